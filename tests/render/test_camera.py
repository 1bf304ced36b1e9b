import math

import numpy as np
import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.render.camera import camera_for_points, camera_from_view

BOUNDS = np.array([[-0.4, -0.9, -0.5], [0.4, 0.7, 0.6]])
VIEWS = ["front", "three_quarter", "profile", "back"]
LEFT, UP, OUT = np.eye(3)


def projected(view, point, field_of_view=12.0):
    camera = camera_from_view(view, BOUNDS, field_of_view=field_of_view)
    centre = camera.project(camera.target[None], (200, 300))[0]
    return camera.project((camera.target + 0.1 * point)[None], (200, 300))[0] - centre


@pytest.mark.parametrize("view", VIEWS)
def test_up_in_the_scene_is_up_in_the_picture(view):
    column, row, _ = projected(view, UP)
    assert row < -5
    assert abs(column) < 1e-9


def test_a_frontal_picture_shows_the_subjects_left_on_the_right():
    assert projected("front", LEFT)[0] > 5
    assert projected("front", OUT)[2] > 0.09  # the nose is nearest


def test_a_picture_from_behind_shows_the_subjects_left_on_the_left():
    assert projected("back", LEFT)[0] < -5
    assert projected("back", OUT)[2] < -0.09


def test_profile_and_three_quarter_stand_on_the_subjects_left_and_the_nose_points_to_the_left():
    for view in ("profile", "three_quarter"):
        assert projected(view, OUT)[0] < -3
        assert projected(view, LEFT)[2] > 0.05
    assert abs(projected("profile", LEFT, field_of_view=0)[0]) < 1e-9


@pytest.mark.parametrize("view", VIEWS)
def test_axes_are_a_right_handed_orthonormal_frame(view):
    axes = camera_from_view(view, BOUNDS).axes
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1.0)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("field_of_view", [0.0, 12.0, 40.0])
@pytest.mark.parametrize("size", [(200, 300), (300, 200)])
def test_all_points_are_framed_and_touch_the_margin(view, field_of_view, size):
    points = np.random.default_rng(0).uniform(*BOUNDS, size=(500, 3))
    camera = camera_for_points(view, points, margin=0.06, field_of_view=field_of_view)
    places = camera.project(points, size)[:, :2] / size
    assert (np.abs(places - 0.5) <= 0.5 / 1.12 + 1e-9).all()
    assert np.abs(places - 0.5).max() == pytest.approx(0.5 / 1.12)


def test_perspective_agrees_with_a_pinhole():
    camera = camera_from_view("front", BOUNDS)
    eye = camera.target + camera.distance * camera.axes[2]
    point = np.array([0.21, 0.34, 0.5])
    ray = point - eye
    on_plane = eye + ray * camera.distance / -(ray @ camera.axes[2])
    expected = (on_plane - camera.target)[:2] / camera.pixel_pitch((200, 300))
    column, row, depth = camera.project(point[None], (200, 300))[0]
    np.testing.assert_allclose([column - 100, 150 - row], expected)
    assert depth == pytest.approx(point[2] - camera.target[2])


def test_a_vanishing_field_of_view_approaches_the_orthographic_view():
    points = np.random.default_rng(0).uniform(*BOUNDS, size=(50, 3))
    narrow, flat = (camera_from_view("three_quarter", BOUNDS, field_of_view=f) for f in (1e-3, 0))
    assert math.isinf(flat.distance)
    np.testing.assert_allclose(narrow.project(points, (200, 300)), flat.project(points, (200, 300)), atol=0.01)


def test_the_view_does_not_depend_on_the_scenes_unit():
    points = np.random.default_rng(0).uniform(*BOUNDS, size=(50, 3))
    small, large = (camera_for_points("front", points * unit).project(points * unit, (99, 77)) for unit in (1, 200))
    np.testing.assert_allclose(small[:, :2], large[:, :2])


@pytest.mark.parametrize(
    "points", [np.zeros((0, 3)), np.zeros((5, 3)), np.array([[0, 0, 0], [1, np.nan, 0], [1, 1, 1.0]])]
)
def test_what_cannot_be_framed_is_refused(points):
    with pytest.raises(InputError, match="nothing to frame"):
        camera_for_points("front", points)


def test_an_unknown_view_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'side' is unknown.*front, three_quarter, profile, back"):
        camera_from_view("side", BOUNDS)
