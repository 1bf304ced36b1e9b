import numpy as np
import pytest

from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.render.camera import camera_for_points, camera_from_view
from implicit3dmm.render.splats import disc_radius, plane_normals, splat_points

BOX = np.array([[-1.0, -1, -1], [1, 1, 1]])


def ball(count, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def square(depth, side=41, half=0.9):
    across = np.linspace(-half, half, side)
    x, y = np.meshgrid(across, across)
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, depth)], axis=1)


def nearest_by_hand(cloud, camera, size, antialias):
    """Point whose disc is nearest to an orthographic viewer at each sample, or -1, disc by disc."""
    view, normals = camera.to_view(cloud.vertices), camera.turn(cloud.normals)
    step = camera.pixel_pitch(size) / antialias
    radius = min(disc_radius(cloud.vertices), 0.012 * max(size) * antialias * step)
    nearest = np.full((size[1] * antialias, size[0] * antialias), -1)
    normals *= np.sign(normals[:, 2:])
    upper_left = np.array([-size[0], size[1]]) * camera.pixel_pitch(size) / 2
    for row, column in np.ndindex(*nearest.shape):
        offsets = upper_left + np.array([column + 0.5, -row - 0.5]) * step - view[:, :2]
        rise = -(normals[:, :2] * offsets).sum(axis=1) / np.maximum(normals[:, 2], 0.2)
        covered = (offsets**2).sum(axis=1) + rise**2 <= radius**2
        if covered.any():
            nearest[row, column] = np.argmax(np.where(covered, view[:, 2] + rise, -np.inf))
    return nearest


def test_the_nearest_disc_is_found_as_by_hand():
    cloud = Mesh(ball(150), None, ball(150))
    camera = camera_for_points("three_quarter", cloud.vertices, field_of_view=0)
    size, antialias = (100, 80), 2
    seen = splat_points(cloud, camera, size=size, antialias=antialias)
    found = np.full((160, 200), -1)
    found[seen.row, seen.column] = seen.vertices[:, 0]
    expected = nearest_by_hand(cloud, camera, size, antialias)
    assert (found >= 0).mean() > 0.03
    assert (found != expected).mean() < 2e-4  # samples on a disc's very rim may round either way


def test_nearer_points_hide_farther_ones_whatever_their_order():
    far, near = square(-0.5), square(0.5, half=0.45)
    points = np.concatenate([far, near])
    camera = camera_from_view("front", BOX)
    order = np.random.default_rng(0).permutation(len(points))
    first = splat_points(Mesh(points), camera, size=(120, 120), antialias=2)
    second = splat_points(Mesh(points[order]), camera, size=(120, 120), antialias=2)
    np.testing.assert_array_equal(first.depth, second.depth)
    np.testing.assert_array_equal(first.row, second.row)
    middle = (abs(first.row - 120) < 40) & (abs(first.column - 120) < 40)
    assert middle.sum() == 79 * 79
    assert (first.vertices[middle, 0] >= len(far)).all()
    assert (first.vertices[:, 0] < len(far)).any()


def test_the_silhouette_and_depth_of_a_ball_of_points_are_the_balls():
    camera = camera_from_view("front", BOX, field_of_view=0)
    seen = splat_points(Mesh(ball(40_000)), camera, size=(200, 200), antialias=2)
    area = len(seen.depth) / 4 * camera.pixel_pitch((200, 200)) ** 2
    assert area == pytest.approx(np.pi, rel=0.02)
    x, y = ((seen.column + 0.5) / 2 - 100) / 100 * 1.12, ((seen.row + 0.5) / 2 - 100) / 100 * 1.12
    inner = np.hypot(x, y) < 0.9
    expected = np.sqrt(1 - x[inner] ** 2 - y[inner] ** 2)
    assert np.quantile(np.abs(seen.depth[inner] - expected), 0.99) < 0.01


def test_plane_normals_are_those_of_the_surface():
    points = ball(20_000)
    cosines = np.abs((plane_normals(points) * points).sum(axis=1))
    assert np.degrees(np.arccos(np.median(cosines))) < 1
    assert np.degrees(np.arccos(np.quantile(cosines, 0.01))) < 5


def test_discs_of_an_even_grid_reach_the_sixth_neighbour():
    points = square(0.0, side=101, half=1.0)
    assert disc_radius(points) == pytest.approx(0.02 * np.sqrt(2))


def test_normals_that_look_away_mark_the_back_and_missing_ones_never_do():
    points = square(0.0)
    normals = np.tile([0.0, 0, -1], (len(points), 1))
    normals[: len(points) // 2] = 0
    seen = splat_points(Mesh(points, None, normals), camera_from_view("front", BOX), size=(60, 60), antialias=1)
    np.testing.assert_array_equal(seen.inside, seen.vertices[:, 0] >= len(points) // 2)
    np.testing.assert_allclose(seen.normals, np.broadcast_to([0, 0, 1], seen.normals.shape), atol=1e-6)


@pytest.mark.parametrize("count", [3, 39])
def test_a_handful_of_points_is_drawn(count):
    seen = splat_points(Mesh(ball(count)), camera_from_view("front", BOX), size=(100, 100), antialias=2)
    assert 0 < len(np.unique(seen.vertices)) <= count


@pytest.mark.parametrize("offset", [(30, 0, 0), (0, 0, 1000)], ids=["aside", "behind the viewer"])
def test_points_out_of_sight_give_no_fragments(offset):
    seen = splat_points(Mesh(ball(50) + offset), camera_from_view("front", BOX), size=(50, 50), antialias=2)
    assert len(seen.depth) == 0
