"""What the axioms of `check_field` are tried on, and how their findings are worded."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from implicit3dmm.fields.base import ConditionedField, Field
from implicit3dmm.latents import Codes

ROUNDING = 1e-8
"""Largest difference between two ways to compute one number in float64, relative to 1 and to the number."""

Problems = Iterator[str | None]
"""What an axiom finds: for each thing that it looks at None, or what is wrong with it."""


@dataclass(frozen=True)
class Case:
    """A field in float64, codes of b shapes, and for each of them n points in and around the field's bounds."""

    field: Field
    codes: Codes
    points: Float[Tensor, "b n 3"]
    generator: torch.Generator

    @classmethod
    def of(cls, field: Field, generator: torch.Generator, *, points: int, shapes: int) -> "Case":
        """Copies `field`, fills its all-zero weights, and draws codes as its specs say."""
        twin = copy.deepcopy(field).double().requires_grad_(True)
        device = next(twin.parameters()).device
        with torch.no_grad():
            for parameter in twin.parameters():
                if not parameter.any():
                    parameter += 0.01 * torch.randn(parameter.shape, generator=generator).to(parameter)
        codes = {
            spec.name: spec.init_std * torch.randn(shapes, spec.dim, generator=generator).to(device).double()
            for spec in field.latent_specs
        }
        low, high = torch.tensor(field.bounds, dtype=torch.float64, device=device)
        uniform = torch.rand(shapes, points, 3, generator=generator, dtype=torch.float64).to(device)
        return cls(twin, codes, low + (1.2 * uniform - 0.1) * (high - low), generator)

    def condition(self) -> ConditionedField:
        """The field of the codes."""
        return self.field.condition(dict(self.codes))

    def leaves(self) -> Codes:
        """Copies of the codes, to differentiate by."""
        return {name: table.clone().requires_grad_(True) for name, table in self.codes.items()}

    def random(self, *shape: int) -> Float[Tensor, "..."]:
        """Numbers uniform in 0 to 1."""
        return torch.rand(shape, generator=self.generator, dtype=torch.float64).to(self.points.device)

    def directions(self, *shape: int) -> Float[Tensor, "... 3"]:
        """Unit vectors uniform on the sphere."""
        normal = torch.randn(*shape, 3, generator=self.generator, dtype=torch.float64)
        return torch.nn.functional.normalize(normal, dim=-1).to(self.points.device)


def difference(found: Tensor, expected: Tensor, what: str, *, limit: float = ROUNDING) -> str | None:
    """Says `what`, with the largest relative difference of the two, where that is above `limit`."""
    error = ((found - expected).abs() / (1 + expected.abs())).flatten()
    if not len(error) or error.max() <= limit:
        return None
    return f"{what}, by up to {error.max():.2g}"


def misfit(value: Tensor, shape: tuple[int, ...], points: Tensor, name: str) -> str | None:
    """Says where `value` has another shape, or another dtype than the points."""
    if tuple(value.shape) == tuple(shape) and value.dtype == points.dtype:
        return None
    return f"{name} is {tuple(value.shape)} of {value.dtype}; expected {tuple(shape)} of {points.dtype}"


def dense_weights(conditioned: ConditionedField, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n k"]:
    """Weight of every part at every point."""
    indices, weights = conditioned.part_weights(points)
    dense = torch.zeros(*points.shape[:2], conditioned.anchors.shape[1]).to(weights)
    return dense.scatter(2, indices, weights)
