"""Nearest neighbours among points."""

import numpy as np
from jaxtyping import Float, Int

try:
    from pykdtree.kdtree import KDTree
except ImportError:  # pykdtree has no wheel for every platform
    from scipy.spatial import cKDTree as KDTree


class NearestNeighbours:
    """A search tree over points, in the precision (32 or 64 bits) that they are given in."""

    def __init__(self, points: Float[np.ndarray, "n 3"]):
        """Builds the tree.

        Args:
            points: at least one point.
        """
        assert len(points) > 0
        self._points = np.ascontiguousarray(points, dtype=_precision(points))
        self._tree = KDTree(self._points)

    def query(
        self, points: Float[np.ndarray, "m 3"], k: int = 1
    ) -> tuple[Float[np.ndarray, "m *k"], Int[np.ndarray, "m *k"]]:
        """The nearest of the tree's points to each of `points`.

        Args:
            points: where to look from; cast to the precision of the tree.
            k: how many neighbours, at most the number of points in the tree.

        Returns:
            Distances and int64 indices, of shape (m,) for k = 1 and else (m, k), nearest first.
        """
        assert 1 <= k <= len(self._points), (k, len(self._points))
        queries = np.ascontiguousarray(points, dtype=self._points.dtype)
        distances, indices = self._tree.query(queries, k=k)
        return np.asarray(distances, dtype=self._points.dtype), np.asarray(indices, dtype=np.int64)


def _precision(points: np.ndarray) -> type[np.floating]:
    return np.float32 if points.dtype == np.float32 else np.float64
