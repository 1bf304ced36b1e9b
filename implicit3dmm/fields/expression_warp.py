"""Expressions by a backward warp: imHead's expression deformer (Potamias et al., sections 3.4 and 10.2).

A network takes each point of the expressive head to the neutral one of the same subject, x_can = x + E(x, z_id, z_exp),
and adds ambient coordinates (Park et al. 2021, HyperNeRF); a field of neutral heads does the rest. Nothing has to be
solved for, so fitting, extraction and evaluation treat the warped field like any other.
"""

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit3dmm.errors import InputError
from implicit3dmm.fields.base import (
    ConditionedField,
    Field,
    Frames,
    Jacobian,
    StageErrors,
    build_field,
    field_configs,
    register_field,
)
from implicit3dmm.fields.layers import ExteriorBall, positional_encoding, softplus
from implicit3dmm.latents import EXPRESSION, Codes, LatentSpec


def neutral_configs() -> dict[str, type]:
    """The architectures that a warp may be put before, by name: those that are no warps themselves."""
    return {name: config for name, config in field_configs().items() if not issubclass(config, WarpConfig)}


@dataclass(frozen=True)
class WarpConfig:
    """What every warp needs to know: which neutral field is warped, and what the expression code is."""

    identity: Any = dataclasses.field(metadata={"choose": neutral_configs})
    """The field of neutral heads: `name` and its sizes; its `ambient` says how many ambient coordinates it takes."""
    units: tuple[str, ...] = ()
    """Names of the source's expression units whose weights are the code."""
    free_dim: int = 0
    """Size of a free code of each record, learnt with the field; where no units are named."""
    lifted_dim: int = 64
    """Numbers that a linear layer lifts the expression code to."""
    traits_dim: int = 64
    """Numbers that a linear layer reduces the subject's traits to."""
    exterior_radius: float = 1.0
    """Radius of the ball, canonical units, outside which the displacement is that at its rim."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if (self.free_dim > 0) == bool(self.units) or self.free_dim < 0:
            raise InputError(f"free_dim is {self.free_dim} with {len(self.units)} units; give either of them")
        if len(set(self.units)) < len(self.units):
            raise InputError("units names a unit twice; name each once")
        for name in ("lifted_dim", "traits_dim"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.exterior_radius <= 0:
            raise InputError(f"exterior_radius is {self.exterior_radius}; expected above 0, canonical units")


@dataclass(frozen=True)
class ExpressionWarpConfig(WarpConfig):
    """And the sizes of imHead's warp."""

    width: int = 128
    """Width of the hidden layers."""
    layers: int = 8
    """Hidden layers; codes and point come in again at the middle one."""
    octaves: int = 0
    """Octaves of the positional encoding of points."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        super().validate()
        if self.width < 1:
            raise InputError(f"width is {self.width}; expected at least 1")
        if self.layers < 2:
            raise InputError(f"layers is {self.layers}; expected at least 2")
        if self.octaves < 0:
            raise InputError(f"octaves is {self.octaves}; expected at least 0")


@register_field("expression_warp", ExpressionWarpConfig)
class ExpressionWarp(Field):
    """A field of neutral heads behind a warp; its codes are those of the neutral field and `EXPRESSION`.

    The subject enters by its traits: the local embeddings where the neutral field has any, so that the warp follows an
    edited part. These are affine in the identity code, so that a linear layer reads from them what it would read from
    the code.
    """

    def __init__(self, config: WarpConfig):
        super().__init__()
        self.config = config
        self.identity = build_field(config.identity)
        dim = len(config.units) or config.free_dim
        own = LatentSpec(EXPRESSION, dim, 0.1, "record", names=config.units)
        self.latent_specs = (*self.identity.latent_specs, own)
        self.parts = self.identity.parts
        self.exterior = ExteriorBall(config.exterior_radius)
        with torch.no_grad():
            codes = {spec.name: torch.zeros(1, spec.dim) for spec in self.identity.latent_specs}
            features = self.identity.traits(codes).shape[1]
        self.warp = self.make_warp(features, dim, 3 + self.identity.ambient)

    def make_warp(self, traits: int, expression: int, outputs: int) -> nn.Module:
        """The network with a subclass's own: it has `lift`, `reduce` and `fold` as `WarpNet` has."""
        return WarpNet(self.config, traits, expression, outputs)

    def condition(self, codes: Codes) -> "ConditionedExpressionWarp":
        """Conditions the neutral field, folds traits and expression into the warp's biases."""
        return self._conditioned(self.identity.condition(codes), self.identity.traits(codes), codes[EXPRESSION])

    def condition_on_embeddings(
        self,
        embeddings: Float[Tensor, "b k e"],
        anchors: Float[Tensor, "b k 3"] | None = None,
        expression: Float[Tensor, "b d"] | None = None,
    ) -> "ConditionedExpressionWarp":
        """The field of given local embeddings; see `Field`."""
        inner = self.identity.condition_on_embeddings(embeddings, anchors)
        if expression is None:
            expression = embeddings.new_zeros(len(embeddings), self.latent_specs[-1].dim)
        return self._conditioned(inner, inner.traits, expression)

    def traits(self, codes: Codes) -> Float[Tensor, "b f"]:
        """Those of the neutral field."""
        return self.identity.traits(codes)

    def jacobian(self, codes: Codes, points: Float[Tensor, "n 3"]) -> Jacobian:
        """As in `Field`: the chain rule through the warp, with one backward pass of each of the two networks.

        Each point gets the reduced traits and the lifted expression for itself, in which the codes are linear.
        """
        with torch.no_grad():
            lifted = self.warp.lift(codes[EXPRESSION])
            reduced = self.warp.reduce(self.identity.traits(codes))
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            own = [row.expand(len(points), -1).clone().requires_grad_() for row in (reduced, lifted)]
            inside, outside = self.exterior.split(points)
            moved = self.warp.fold(*own)(inside[:, None])[:, 0]
            canonical = torch.cat([inside + moved[:, :3], moved[:, 3:]], dim=-1)
            inner = self.identity.jacobian(codes, canonical)
            through = (canonical * inner.by_points).sum() + outside.sum()
            by_reduced, by_lifted, by_points = torch.autograd.grad(through, [*own, points])
        with torch.no_grad():
            by_codes = {EXPRESSION: by_lifted @ self.warp.lift.weight}
            for name, rows in self._reduced_jacobian(codes).items():
                by_codes[name] = inner.by_codes[name] + by_reduced @ rows
        return Jacobian(inner.sdf + outside.detach(), by_codes, by_points)

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """As in `Field`; the weights may also be those of the neutral field alone."""
        if any(name.startswith("warp.") for name in weights):
            super().start_from(weights)
        else:
            self.identity.start_from(weights)

    def _conditioned(
        self, inner: ConditionedField, traits: Float[Tensor, "b f"], expression: Float[Tensor, "b d"]
    ) -> "ConditionedExpressionWarp":
        return ConditionedExpressionWarp(self, inner, traits, expression)

    def _reduced_jacobian(self, codes: Codes) -> dict[str, Float[Tensor, "r d"]]:
        """Derivatives of the reduced traits by the subject's codes."""
        count = self.config.traits_dim
        with torch.enable_grad():
            copies = {
                spec.name: codes[spec.name].detach().expand(count, -1).clone().requires_grad_()
                for spec in self.identity.latent_specs
            }
            reduced = self.warp.reduce(self.identity.traits(copies))
            rows = torch.autograd.grad(reduced.diagonal().sum(), list(copies.values()))
        return dict(zip(copies, rows, strict=True))


class ConditionedExpressionWarp(ConditionedField):
    """A warped field for `b` given subjects under `b` given expressions."""

    def __init__(
        self,
        model: ExpressionWarp,
        inner: ConditionedField,
        traits: Float[Tensor, "b f"],
        expression: Float[Tensor, "b d"],
    ):
        self.model = model
        self.inner = inner
        self.embeddings = inner.embeddings
        self.anchors = inner.anchors
        self.expression = expression
        self._traits = traits
        self._warp = model.warp.fold(model.warp.reduce(traits), model.warp.lift(expression))

    @property
    def state(self) -> Codes | None:
        """That of the neutral head, and the expression."""
        return None if self.inner.state is None else self.inner.state | {EXPRESSION: self.expression}

    @property
    def traits(self) -> Float[Tensor, "b f"]:
        """Those of the neutral head."""
        return self._traits

    def sdf(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
        """Signed distance to the neutral head where the warp takes the points, canonical units."""
        inside, outside = self.model.exterior.split(points)
        moved = self._warp(inside)
        canonical = torch.cat([inside + moved[..., :3], moved[..., 3:]], dim=-1)
        return self.inner.sdf(canonical) + outside

    def to_canonical(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """Where each point lies on, or near, the neutral head."""
        return points + self._warp(self.model.exterior.split(points)[0])[..., :3]

    def to_template(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"] | None:
        """Where the neutral field takes the points' neutral places."""
        return self.inner.to_template(self.to_canonical(points))

    def warp_error(self, posed: Float[Tensor, "b n 3"], neutral: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"] | None:
        """Distance between where the warp takes expressive points and where they belong."""
        return (self.to_canonical(posed) - neutral).square().sum(-1).add(1e-12).sqrt()

    def stage_errors(self, places: Float[Tensor, "b 2 2 k 3"], parts: Int[Tensor, "b k"]) -> StageErrors | None:
        """Those of the neutral field."""
        return self.inner.stage_errors(places, parts)

    def part_weights(self, points: Float[Tensor, "b n 3"]) -> tuple[Int[Tensor, "b n k"], Float[Tensor, "b n k"]]:
        """Parts that act where the warp takes the points."""
        return self.inner.part_weights(self.to_canonical(points))

    def with_part(
        self, name: str, other: "ConditionedExpressionWarp", *, frames: Frames = "part"
    ) -> "ConditionedExpressionWarp":
        """As the neutral field does it; the expression stays."""
        return self._around(self.inner.with_part(name, other.inner, frames=frames))

    def with_mirrored(self, name: str) -> "ConditionedExpressionWarp":
        """As the neutral field does it; the expression stays."""
        return self._around(self.inner.with_mirrored(name))

    def with_expression(self, expression: Float[Tensor, "b d"]) -> "ConditionedExpressionWarp":
        """The same subjects under other expressions; the neutral field is not made again."""
        return self.model._conditioned(self.inner, self._traits, expression)

    def towards(self, other: "ConditionedExpressionWarp", share: float) -> "ConditionedExpressionWarp":
        """Moves subject and expression along straight lines."""
        return self.model._conditioned(
            self.inner.towards(other.inner, share),
            torch.lerp(self._traits, other._traits, share),
            torch.lerp(self.expression, other.expression, share),
        )

    def _around(self, inner: ConditionedField) -> "ConditionedExpressionWarp":
        return self.model._conditioned(inner, inner.traits, self.expression)


class WarpNet(nn.Module):
    """From a point, a subject's traits and an expression to a displacement and ambient coordinates.

    The last layer's weights are linear in the lifted expression, without a constant: the output is a sum of
    blendshapes that the hidden layers bend. Neutral, whose code is zero, is therefore not displaced, whatever the
    weights are.
    """

    def __init__(self, config: ExpressionWarpConfig, traits: int, expression: int, outputs: int):
        super().__init__()
        self.octaves = config.octaves
        self.outputs = outputs
        width, point = config.width, 3 + 6 * config.octaves
        self.middle = (config.layers - 1) // 2
        self.lift = nn.Linear(expression, config.lifted_dim, bias=False)
        self.reduce = nn.Linear(traits, config.traits_dim)
        self.first = nn.Linear(point, width)
        self.first_codes = nn.Linear(config.traits_dim + config.lifted_dim, width, bias=False)
        self.middle_point = nn.Linear(point, width, bias=False)
        self.middle_codes = nn.Linear(config.traits_dim + config.lifted_dim, width, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise([width] * config.layers))
        self.out = nn.Linear(config.lifted_dim, (width + 1) * outputs, bias=False)
        for layer in (self.first, self.middle_point, *self.hidden):
            nn.init.normal_(layer.weight, 0, (2 / width) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.out.weight, 0, 0.02 / width**0.5)

    def fold(self, reduced: Float[Tensor, "b r"], lifted: Float[Tensor, "b l"]) -> "FoldedWarp":
        """All that depends on the codes alone."""
        codes = torch.cat([reduced, lifted], dim=-1)
        first = self.first.bias + self.first_codes(codes)
        last = self.out(lifted).unflatten(-1, (-1, self.outputs))
        return FoldedWarp(self, first[:, None], self.middle_codes(codes)[:, None], last)


class FoldedWarp:
    """The warp of `b` given shapes: a function from points to displacements and ambient coordinates."""

    def __init__(
        self,
        net: WarpNet,
        first_bias: Float[Tensor, "b 1 w"],
        middle_bias: Float[Tensor, "b 1 w"],
        last: Float[Tensor, "b w+1 o"],
    ):
        self.net = net
        self._first_bias = first_bias
        self._middle_bias = middle_bias
        self._last = last

    def __call__(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n o"]:
        """Displacement, canonical units, then the ambient coordinates."""
        encoded = positional_encoding(points, self.net.octaves)
        values = softplus(nn.functional.linear(encoded, self.net.first.weight) + self._first_bias)
        for number, layer in enumerate(self.net.hidden):
            values = layer(values)
            if number == self.net.middle:
                values = values + self.net.middle_point(encoded) + self._middle_bias
            values = softplus(values)
        return values @ self._last[:, :-1] + self._last[:, -1:]
