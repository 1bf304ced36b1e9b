import numpy as np
import pytest

from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.pointcloud import OrientedCloud, drop_stray_points, estimate_normals, thin_points


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def sphere(count, rng):
    points = rng.normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_thinning_evens_out_a_dense_spot_whatever_the_unit(scale, rng):
    dense = sphere(40000, rng)
    points = np.concatenate([dense[dense[:, 2] > 0.9], sphere(20000, rng), sphere(150_000, rng)])
    thinned = thin_points(scale * points + 5 * scale, 3000, rng=rng) / scale - 5
    assert 2600 < len(thinned) < 3400
    np.testing.assert_allclose(np.linalg.norm(thinned, axis=1), 1, atol=0.01)
    assert (thinned[:, 2] > 0.9).mean() == pytest.approx(0.05, abs=0.01)  # the share of the cap's area


def test_thinning_averages_noise_away(rng):
    noisy = sphere(60000, rng) * rng.normal(1, 0.005, (60000, 1))
    thinned = thin_points(noisy, 2000, rng=rng)
    assert np.linalg.norm(thinned, axis=1).std() < 0.0035


def test_a_small_cloud_is_not_thinned(rng):
    points = sphere(500, rng)
    np.testing.assert_array_equal(thin_points(points, 500, rng=rng), points)


def test_stray_points_and_crumbs_are_dropped_and_large_parts_stay(rng):
    first = thin_points(sphere(30000, rng), 2000, rng=rng)
    second = 0.5 * thin_points(sphere(30000, rng), 500, rng=rng) + [4, 0, 0]
    crumb = 0.02 * sphere(30, rng) + [0, 3, 0]
    stray = rng.uniform(-5, 5, (60, 3))
    stray = stray[NearestNeighbours(np.concatenate([first, second])).query(stray)[0] > 0.4]
    kept = drop_stray_points(np.concatenate([first, stray, crumb, second]))
    np.testing.assert_array_equal(kept, np.concatenate([first, second]))


def test_repeated_points_count_once(rng):
    points = sphere(300, rng)
    np.testing.assert_array_equal(thin_points(np.concatenate([points, points]), 500, rng=rng), points)


def test_the_normals_of_a_sphere_are_its_radii(rng):
    points = thin_points(sphere(30000, rng), 3000, rng=rng)
    normals = estimate_normals(points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-9)
    cosines = np.abs((normals * points).sum(axis=1)) / np.linalg.norm(points, axis=1)
    assert np.degrees(np.arccos(cosines.min())) < 8


def test_the_grid_gives_a_closest_point_up_to_its_cells(rng):
    points = thin_points(sphere(30000, rng) * [1, 2, 0.7], 2000, rng=rng)
    cloud = OrientedCloud(points, points)
    queries = rng.uniform(-2, 2, (4, 500, 3))
    exact = NearestNeighbours(points).query(queries.reshape(-1, 3))[0].reshape(4, 500)
    found = np.linalg.norm(cloud.points[cloud.closest(queries)] - queries, axis=-1)
    inside = (np.abs(queries) < [1.2, 2, 0.9]).all(axis=-1)
    assert (found >= exact - 1e-5).all()
    assert (found - exact)[inside].max() < 0.15  # twice half the diagonal of a cell of 0.09
    assert (found - exact)[inside].mean() < 0.02
