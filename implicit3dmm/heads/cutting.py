"""Cuts an open skin along a surface that is fixed to its vertices, the same for every head."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.heads.subdivision import Polygons

CLOSEST = 0.1
"""How near to a vertex an edge is cut, as a share of its length; nearer cuts would leave slivers."""


@dataclass(frozen=True)
class Cut:
    """What is left of the polygons, and the vertices that the cut adds behind the others."""

    polygons: Polygons
    above: Int[np.ndarray, " c"]
    below: Int[np.ndarray, " c"]
    """The ends of the edges that the added vertices lie on."""
    share: Float[np.ndarray, " c 1"]
    """Where on its edge an added vertex lies: 0 at the end above, 1 at the end below."""

    def extend(self, values: Float[np.ndarray, "*b v 3"]) -> Float[np.ndarray, "*b w 3"]:
        """Positions, or offsets of a mode, of the old vertices and the added ones."""
        added = values[..., self.above, :] * (1 - self.share) + values[..., self.below, :] * self.share
        return np.concatenate([values, added.astype(values.dtype)], axis=-2)


def cut_polygons(polygons: Polygons, height: Float[np.ndarray, " v"]) -> Cut:
    """Keeps the part of a polygon mesh that lies above the height 0.

    Args:
        polygons: over the vertices 0 to v - 1.
        height: of each vertex above the cut; linear along edges.
    """
    crossings: dict[tuple[int, int], int] = {}
    kept = [_above(polygon, height, crossings) for polygon in polygons]
    above, below = np.array(list(crossings), dtype=np.int64).reshape(-1, 2).T
    share = np.clip(height[above] / (height[above] - height[below]), CLOSEST, 1 - CLOSEST)
    return Cut([polygon for polygon in kept if polygon], above, below, share[:, None])


def _above(
    polygon: tuple[int, ...], height: Float[np.ndarray, " v"], crossings: dict[tuple[int, int], int]
) -> tuple[int, ...]:
    """The part of a convex polygon above 0; the edges that it crosses are numbered in `crossings`."""
    corners = []
    for a, b in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if height[a] > 0:
            corners.append(a)
        if (height[a] > 0) != (height[b] > 0):
            edge = (a, b) if height[a] > 0 else (b, a)
            corners.append(len(height) + crossings.setdefault(edge, len(crossings)))
    return tuple(corners)
