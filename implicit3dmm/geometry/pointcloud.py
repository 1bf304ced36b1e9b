"""Point clouds made fit for registration: thinned evenly, freed of stray points, with normals."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from implicit3dmm.geometry.neighbours import NearestNeighbours

# Points that are looked at while thinning; more do not change where the surface is.
THINNING_SAMPLE = 100_000


class OrientedCloud:
    """Points of a surface with unit normals (signs are not used) and a grid of closest points."""

    def __init__(self, points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]):
        """Fills the grid: 48^3 cells over the bounding box, a fifth wider on every side."""
        self.points = np.ascontiguousarray(points, dtype=np.float32)
        self.normals = np.ascontiguousarray(normals, dtype=np.float32)
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        margin = 0.2 * (high - low).max()
        self._low = low - margin
        self._cell = np.float32(np.prod(high - low + 2 * margin) ** (1 / 3) / 48)
        self._shape = np.ceil((high - low + 2 * margin) / self._cell).astype(int) + 1
        axes = [self._low[i] + self._cell * np.arange(self._shape[i], dtype=np.float32) for i in range(3)]
        nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        self._closest = NearestNeighbours(self.points).query(nodes)[1].astype(np.int32)

    def closest(self, points: Float[np.ndarray, "*b 3"]) -> Int[np.ndarray, "*b"]:
        """Index of the cloud's point closest to the grid node next to each of `points`."""
        nodes = ((points - self._low) / self._cell + np.float32(0.5)).astype(np.int32)
        nodes = np.clip(nodes, 0, self._shape - 1)
        _, rows, columns = self._shape
        return self._closest[(nodes[..., 0] * rows + nodes[..., 1]) * columns + nodes[..., 2]]


def thin_points(points: Float[np.ndarray, "n 3"], count: int, *, rng: np.random.Generator) -> np.ndarray:
    """Spreads a cloud evenly: the means of the points in the cells of a cubic grid.

    The cell size is searched so that about `count` cells are occupied. The mean of several noisy points is
    less noisy than each of them. A cloud that has no more than `count` points comes back as it is, without
    its repetitions.

    Args:
        points: any density, any unit.
        count: points wanted; the result comes within some tenth of it.
        rng: chooses the points that are looked at where there are more than a hundred thousand.

    Returns:
        (m, 3) float64 points.
    """
    points = np.asarray(points, dtype=np.float64)
    if len(points) > THINNING_SAMPLE:
        points = points[rng.choice(len(points), THINNING_SAMPLE, replace=False, shuffle=False)]
    points = _distinct(points)
    if len(points) <= count:
        return points
    # Quantiles, because a few stray points far away would make the first cells far too large.
    low, high = np.quantile(points, [0.02, 0.98], axis=0)
    size = float(np.linalg.norm(high - low)) / np.sqrt(count)
    for _ in range(8):
        cells = _cells((points - low) / size)
        occupied = cells.max() + 1
        if abs(occupied / count - 1) < 0.1:
            break
        # A surface meets 1 / size^2 cells; a cloud near its own density meets fewer, hence the bound.
        size *= float(np.clip(np.sqrt(occupied / count), 0.5, 2.0))
    totals = np.bincount(cells)[:, None]
    return np.stack([np.bincount(cells, weights=axis) for axis in points.T], axis=1) / totals


def drop_stray_points(points: Float[np.ndarray, "n 3"], *, share: float = 0.03) -> np.ndarray:
    """Keeps the connected parts of an evenly spread cloud that hold at least `share` of its points.

    Two points are connected when one is among the other's eight nearest and no further away than two and a
    half times what is usual for an eighth neighbour. The largest part is always kept.

    Returns:
        (m, 3) the points that stay, in their order.
    """
    near = min(9, len(points))
    distances, indices = NearestNeighbours(points).query(points, near)
    linked = distances[:, 1:] <= 2.5 * np.median(distances[:, -1])
    rows = np.broadcast_to(np.arange(len(points))[:, None], linked.shape)[linked]
    graph = csr_array((np.ones(len(rows)), (rows, indices[:, 1:][linked])), shape=(len(points),) * 2)
    labels = connected_components(graph, directed=False)[1]
    sizes = np.bincount(labels)
    return points[(sizes >= min(share * len(points), sizes.max()))[labels]]


def estimate_normals(points: Float[np.ndarray, "n 3"], *, neighbours: int = 16) -> np.ndarray:
    """Unit normals of the planes through each point's nearest neighbours; their signs are arbitrary.

    Returns:
        (n, 3) float64.
    """
    indices = NearestNeighbours(points).query(points, min(neighbours + 1, len(points)))[1]
    patches = points[indices] - points[indices].mean(axis=1, keepdims=True)
    return np.linalg.eigh(np.einsum("nki,nkj->nij", patches, patches))[1][:, :, 0]


def _distinct(points: Float[np.ndarray, "n 3"]) -> np.ndarray:
    """The points without their repetitions, in their order."""
    order = np.lexsort(points.T)
    first = np.ones(len(points), dtype=bool)
    first[order[1:]] = (np.diff(points[order], axis=0) != 0).any(axis=1)
    return points[first]


def _cells(places: Float[np.ndarray, "n 3"]) -> np.ndarray:
    """Number of the occupied unit cell that each place lies in; cells a million away are one."""
    cells = np.clip(np.floor(places), -(2**20), 2**20 - 1).astype(np.int64) + 2**20
    return np.unique((cells[:, 0] << 42) + (cells[:, 1] << 21) + cells[:, 2], return_inverse=True)[1]
