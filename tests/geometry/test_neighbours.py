import importlib.util
import sys

import numpy as np
import pytest

from implicit3dmm.geometry import neighbours


@pytest.fixture(params=["pykdtree", "scipy"])
def tree_class(request, monkeypatch):
    """The class over each library: the second is what a machine without pykdtree gets."""
    if request.param == "pykdtree":
        pytest.importorskip("pykdtree", reason="no wheel for this platform")
        return neighbours.NearestNeighbours
    monkeypatch.setitem(sys.modules, "pykdtree.kdtree", None)
    spec = importlib.util.spec_from_file_location("neighbours_without_pykdtree", neighbours.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.KDTree.__module__.startswith("scipy")
    return module.NearestNeighbours


def brute_force(points, queries, k):
    distances = np.linalg.norm(queries[:, None] - points[None], axis=2)
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, indices, axis=1), indices


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_agrees_with_brute_force(tree_class, dtype, k):
    rng = np.random.default_rng(k)
    points, queries = (rng.normal(size=(n, 3)).astype(dtype) for n in (300, 200))
    distances, indices = tree_class(points).query(queries, k=k)
    expected_distances, expected_indices = brute_force(points, queries, k)
    if k == 1:
        expected_distances, expected_indices = expected_distances[:, 0], expected_indices[:, 0]
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-5)
    np.testing.assert_array_equal(indices, expected_indices)
    assert distances.dtype == dtype
    assert indices.dtype == np.int64


def test_strided_points_are_accepted(tree_class):
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3)
    distances, indices = tree_class(grid[::-1]).query(grid[::2] + 0.1)
    np.testing.assert_allclose(distances, 0.1 * np.sqrt(3))
    np.testing.assert_array_equal(grid[::-1][indices], grid[::2])
