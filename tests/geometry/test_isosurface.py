import logging

import numpy as np
import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.isosurface import estimate_lipschitz, extract, extract_surface

BOX = np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def sphere(points, radius=0.7, centre=(0.03, -0.02, 0.05)):
    return np.linalg.norm(points - np.float32(centre), axis=1) - np.float32(radius)


def torus(points):
    ring = np.hypot(points[:, 0], points[:, 2]) - np.float32(0.6)
    return np.hypot(ring, points[:, 1]) - np.float32(0.21)


def cuboid(points):
    beyond = np.abs(points) - np.float32([0.53, 0.31, 0.72])
    return np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0)


def ellipsoid(points):
    """No true distance, but of slope at most 1, with the ellipsoid's surface at 0."""
    axes = np.float32([0.5, 0.8, 0.6])
    return (np.linalg.norm(points / axes, axis=1) - 1) * axes.min()


def two_spheres(points):
    return np.minimum(sphere(points, 0.4, (-0.5, 0, 0)), sphere(points, 0.3, (0.5, 0.1, 0)))


SHAPES = {
    sphere: (4 / 3 * np.pi * 0.7**3, 2),
    torus: (2 * np.pi**2 * 0.6 * 0.21**2, 0),
    cuboid: (8 * 0.53 * 0.31 * 0.72, 2),
    ellipsoid: (4 / 3 * np.pi * 0.5 * 0.8 * 0.6, 2),
    two_spheres: (4 / 3 * np.pi * (0.4**3 + 0.3**3), 4),
}


def assert_same_mesh(a, b):
    np.testing.assert_array_equal(a.vertices, b.vertices)
    np.testing.assert_array_equal(a.faces, b.faces)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resolution", [5, 37, 64])
def test_narrow_band_gives_the_dense_mesh_bit_for_bit(shape, resolution):
    narrow = extract(shape, BOX, resolution, lipschitz=1.0, largest_component=False)
    dense = extract(shape, BOX, resolution, band="dense", largest_component=False)
    assert_same_mesh(narrow.mesh, dense.mesh)
    assert dense.evaluations == dense.dense_evaluations == narrow.dense_evaluations == (resolution + 1) ** 3
    assert narrow.steepest <= 1.0 + 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_mesh_is_closed_outward_and_of_the_right_volume_and_topology(shape):
    volume, euler = SHAPES[shape]
    extraction = extract(shape, BOX, 96, largest_component=False)
    assert extraction.mesh.is_watertight()
    assert extraction.mesh.volume() == pytest.approx(volume, rel=3e-3)
    assert extraction.mesh.euler_number() == euler
    assert extraction.components == (2 if shape is two_spheres else 1)
    assert not extraction.touches_bounds
    assert np.abs(shape(extraction.mesh.vertices.astype(np.float32))).max() < 0.01


def test_band_evaluates_a_small_share_and_no_point_twice():
    seen = []

    def recorded(points):
        seen.append(points.copy())
        return sphere(points)

    extraction = extract(recorded, BOX, 128)
    points = np.concatenate(seen)
    assert len(points) == extraction.evaluations
    assert len(np.unique(points, axis=0)) == len(points)
    assert points.dtype == np.float32
    assert extraction.share < 0.1


@pytest.mark.parametrize("chunk", [1, 1000])
def test_result_does_not_depend_on_the_chunk(chunk):
    assert_same_mesh(extract_surface(sphere, BOX, 12, chunk=chunk), extract_surface(sphere, BOX, 12))


@pytest.mark.parametrize("band", ["narrow", "dense"])
def test_linear_field_puts_vertices_exactly_on_its_plane(band):
    bounds = np.array([[-1.3, 2.0, -0.4], [0.9, 3.1, 5.2]])
    normal, offset = np.array([0.6, -0.48, 0.64]), 0.31
    extraction = extract(lambda p: p.astype(np.float64) @ normal - offset, bounds, 50, band=band)
    vertices = extraction.mesh.vertices
    step = 5.6 / 50
    ends = bounds[0] + step * np.ceil((bounds[1] - bounds[0]) / step - 1e-9)
    on_box = np.isclose(vertices, bounds[0], atol=2e-6) | np.isclose(vertices, ends, atol=2e-6)
    on_plane = np.abs(vertices @ normal - offset) < 2e-6
    assert (on_plane | on_box.any(axis=1)).all()
    assert on_plane.sum() > 500
    assert (vertices > bounds[0] - 1e-6).all()
    assert (vertices < ends + 1e-6).all()


@pytest.mark.parametrize("axis", range(3))
def test_half_space_is_the_box_cut_at_the_plane(axis):
    mesh = extract_surface(lambda p: p[:, axis] - np.float32(0.3), BOX, 20)
    high = np.ones(3)
    high[axis] = 0.3
    np.testing.assert_allclose(mesh.bounds(), [-np.ones(3), high], atol=1e-6)
    assert mesh.volume() == pytest.approx(4 * 1.3, rel=1e-5)


@pytest.mark.parametrize("resolution", [33, 64])
def test_surface_that_leaves_the_box_is_closed_on_its_faces_and_reported(resolution):
    bounds = np.array([[-0.3, -1.0, -1.0], [1.0, 0.2, 1.0]])
    narrow = extract(sphere, bounds, resolution, lipschitz=1.0)
    dense = extract(sphere, bounds, resolution, band="dense")
    assert narrow.touches_bounds
    assert dense.touches_bounds
    assert_same_mesh(narrow.mesh, dense.mesh)
    assert narrow.mesh.is_watertight()
    assert narrow.mesh.bounds()[0, 0] == pytest.approx(-0.3, abs=1e-6)


def test_box_inside_the_solid_gives_the_box():
    extraction = extract(lambda p: np.full(len(p), -9.0), BOX, 10)
    assert extraction.mesh.volume() == pytest.approx(8.0, rel=1e-6)
    assert extraction.touches_bounds


def test_cells_are_cubic_and_the_grid_covers_the_box():
    bounds = np.array([[0.0, 0.0, 0.0], [1.0, 0.55, 0.25]])
    extraction = extract(lambda p: np.full(len(p), -1.0), bounds, 20, band="dense")
    assert extraction.evaluations == 21 * 12 * 6
    np.testing.assert_allclose(extraction.mesh.bounds()[1], [1.0, 0.55, 0.25], atol=1e-6)


def test_level_moves_the_surface_of_a_distance_field():
    mesh = extract_surface(sphere, BOX, 64, level=0.1)
    assert mesh.volume() == pytest.approx(4 / 3 * np.pi * 0.8**3, rel=2e-3)


def test_largest_component_is_kept_and_the_others_are_counted():
    extraction = extract(two_spheres, BOX, 64)
    assert extraction.components == 2
    assert extraction.mesh.volume() == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=5e-3)


def test_slope_above_the_bound_is_noticed(caplog):
    def steep(points):
        return 4 * sphere(points)

    with caplog.at_level(logging.WARNING):
        assert extract(steep, BOX, 64, lipschitz=1.5).steepest == pytest.approx(4, rel=0.05)
    assert "above the bound 1.50" in caplog.text
    assert_same_mesh(extract_surface(steep, BOX, 64, lipschitz=4.0), extract_surface(sphere, BOX, 64))


def test_estimated_lipschitz_is_the_largest_gradient_norm():
    def uneven(points):
        return 2.5 * points[:, 0] + 0.5 * points[:, 1] ** 2

    rng = np.random.default_rng(0)
    assert estimate_lipschitz(sphere, BOX, rng=rng) == pytest.approx(1, abs=1e-3)
    assert estimate_lipschitz(uneven, BOX, rng=rng) == pytest.approx(np.hypot(2.5, 1), rel=5e-3)


def test_estimate_is_repeatable():
    estimates = [estimate_lipschitz(torus, BOX, rng=np.random.default_rng(3), count=100) for _ in range(2)]
    assert estimates[0] == estimates[1]


@pytest.mark.parametrize(
    ("field", "bounds", "resolution", "message"),
    [
        (lambda p: np.ones(len(p)), BOX, 40, "no surface at 0 in the box, its lowest value is 1;"),
        (lambda p: np.where(p[:, 0] > 0, np.nan, 1), BOX, 40, "is not finite at"),
        (lambda p: np.full(len(p), np.inf), BOX, 40, "is not finite at"),
        (sphere, BOX[::-1], 40, "a box with low < high is expected"),
        (sphere, BOX * np.nan, 40, "a box with low < high is expected"),
        (sphere, BOX, 0, "at least 1 cell is expected"),
    ],
)
@pytest.mark.parametrize("band", ["narrow", "dense"])
def test_unusable_input_is_refused_in_one_line(field, bounds, resolution, message, band):
    with pytest.raises(InputError, match=message) as error:
        extract(field, bounds, resolution, band=band)
    assert "\n" not in str(error.value)
