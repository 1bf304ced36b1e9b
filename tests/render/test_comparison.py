import numpy as np
import pytest
import trimesh

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.render.colormap import UNKNOWN, error_scale, signed_scale
from implicit3dmm.render.comparison import fit_picture
from implicit3dmm.render.drawing import PAPER

PANEL = (120, 140)
MARGIN, TITLE, GAP = 16, 24, 8


def ball(radius=0.5, subdivisions=3):
    shape = trimesh.creation.icosphere(subdivisions, radius)
    return Mesh(shape.vertices, shape.faces)


def panel(picture, row, column):
    top, left = MARGIN + TITLE + row * (PANEL[1] + GAP), MARGIN + column * (PANEL[0] + GAP)
    return picture[top : top + PANEL[1], left : left + PANEL[0]]


def pictured(scan, fit, error_mm, **options):
    return fit_picture(scan, fit, error_mm=error_mm, panel=PANEL, antialias=2, **options)


@pytest.mark.parametrize("error_on", ["scan", "fit"])
def test_the_third_column_shows_the_errors_in_the_scales_colours(error_on):
    scan, fit = ball(subdivisions=3), ball(subdivisions=4)
    errors = np.full(len({"scan": scan, "fit": fit}[error_on].vertices), 0.7)
    picture = pictured(scan, fit, errors, error_on=error_on, scale=error_scale(2.0))
    expected = error_scale(2.0)(np.array(0.7)) * 255
    for row in (0, 1):
        np.testing.assert_allclose(panel(picture, row, 2)[70, 60], expected, atol=1.5)
        assert np.ptp(panel(picture, row, 0)[70, 60].astype(int)) < 70  # clay


def test_unknown_errors_are_grey_and_signed_ones_take_a_signed_scale():
    shape = ball()
    errors = np.where(shape.vertices[:, 0] > 0, -1.0, np.nan)
    picture = panel(pictured(shape, shape, errors, scale=signed_scale(1.0)), 0, 2)
    left, right = picture[70, 45].astype(float), picture[70, 75].astype(float)
    np.testing.assert_allclose(left / left.max(), np.array(UNKNOWN) / max(UNKNOWN), atol=0.02)
    assert right[2] > 1.5 * right[0]


def test_the_default_scale_ends_at_a_round_number_above_most_errors():
    shape = ball()
    errors = np.linspace(0, 1.9, len(shape.vertices))
    np.testing.assert_array_equal(
        pictured(shape, shape, errors), pictured(shape, shape, errors, scale=error_scale(2.0))
    )
    for errors in (np.zeros(len(shape.vertices)), np.full(len(shape.vertices), np.nan)):
        np.testing.assert_array_equal(
            pictured(shape, shape, errors), pictured(shape, shape, errors, scale=error_scale(0.1))
        )


def test_the_fit_is_framed_and_a_larger_scan_is_cut():
    picture = pictured(ball(1.5), ball(), np.zeros(len(ball().vertices)))
    assert (panel(picture, 0, 0) != PAPER).any(axis=-1).mean() > 0.99
    assert (panel(picture, 0, 1)[0] == PAPER).all()


def test_one_row_for_each_view_and_a_caption_below():
    shape = ball()
    errors = np.zeros(len(shape.vertices))
    three = pictured(shape, shape, errors, views=("front", "profile", "back"))
    two = pictured(shape, shape, errors, views=("front", "profile"))
    told = pictured(shape, shape, errors, views=("front", "profile"), caption=["median 0.4 mm", "95 % below 1.2 mm"])
    assert three.shape[0] - two.shape[0] == PANEL[1] + GAP
    assert told.shape[0] > two.shape[0] + 40
    np.testing.assert_array_equal(told[: two.shape[0] - MARGIN], two[:-MARGIN])
    assert (told[two.shape[0] :] != PAPER).any()


def test_a_scan_of_points_is_painted_too_and_equal_input_gives_equal_bytes():
    cloud, fit = Mesh(ball(subdivisions=5).vertices), ball()
    errors = np.abs(cloud.vertices[:, 0])
    first, second = (pictured(cloud, fit, errors).tobytes() for _ in range(2))
    assert first == second


def test_errors_that_do_not_fit_the_vertices_are_refused():
    with pytest.raises(InputError, match=r"\(5,\) were given for the 642 vertices of the fit"):
        fit_picture(ball(), ball(), error_mm=np.zeros(5), error_on="fit")
