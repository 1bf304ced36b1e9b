"""The additive linear model: a person plus an expression (Amberg, Knothe and Vetter, FG 2008)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.axes import gram_axes
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError

LOOKED_AT = 1000
"""Heads that the components of expressions are taken from, of those that show one."""


@dataclass(frozen=True, eq=False)
class AdditiveModel:
    """Mean neutral head, components of neutral heads, and components of what expressions add to them.

    Coefficients of both are standard normal; people and expressions do not know of each other.
    """

    mean: Float[np.ndarray, "v 3"]
    """Of neutral heads, canonical units."""
    expression: Float[np.ndarray, "v 3"]
    """Mean of what expressions add."""
    components: dict[str, Float[np.ndarray, "k v 3"]]
    """Of "identity" and "expression", each scaled by its standard deviation."""

    @classmethod
    def of(cls, heads: RegisteredHeads, sizes: dict[str, int]) -> "AdditiveModel":
        """Principal components of neutral heads and of offsets from them, in metric coordinates.

        Args:
            heads: with their neutral heads among them.
            sizes: components of "identity" and of "expression".

        Raises:
            InputError: there are too few heads for so many components.
        """
        neutral = np.unique(heads.rest)
        moved = np.flatnonzero(heads.rest != np.arange(len(heads)))
        moved = moved[np.linspace(0, len(moved) - 1, min(len(moved), LOOKED_AT)).astype(int)] if len(moved) else moved
        rows = {
            "identity": heads.vertices[neutral],
            "expression": heads.vertices[moved] - heads.vertices[heads.rest[moved]],
        }
        for name, each in rows.items():
            if len(each) <= sizes[name]:
                raise InputError(f"{sizes[name]} components of {name} asked of {len(each)} heads; ask for fewer")
        mean, offset = (each.mean(0, dtype=np.float64).astype(np.float32) for each in rows.values())
        return cls(
            mean,
            offset,
            {
                "identity": _components(rows["identity"] - mean, sizes["identity"]),
                "expression": _components(rows["expression"] - offset, sizes["expression"]),
            },
        )

    def vertices(
        self, identity: Float[np.ndarray, "b i"], expression: Float[np.ndarray, "b e"]
    ) -> Float[np.ndarray, "b v 3"]:
        """Heads of coefficients, canonical units."""
        moved = np.tensordot(expression.astype(np.float32), self.components["expression"], 1) + self.expression
        return np.tensordot(identity.astype(np.float32), self.components["identity"], 1) + self.mean + moved


def _components(centred: Float[np.ndarray, "r v 3"], count: int) -> Float[np.ndarray, "k v 3"]:
    left, _ = gram_axes(centred.reshape(len(centred), -1))
    scaled = left[:, :count].T @ centred.reshape(len(centred), -1) / np.sqrt(len(centred) - 1)
    return scaled.reshape(count, *centred.shape[1:]).astype(np.float32)
