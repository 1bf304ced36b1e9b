import numpy as np
import pytest

from implicit3dmm.render.color_space import linear_to_oklab, linear_to_srgb, oklab_to_linear, srgb_to_linear
from implicit3dmm.render.colormap import UNKNOWN, color_bar, error_scale, signed_scale

SCALES = [error_scale(2.0), signed_scale(2.0)]


def oklab(srgb):
    return linear_to_oklab(srgb_to_linear(srgb))


def test_colour_spaces_agree_with_published_values_and_invert():
    # Ottosson's reference values of sRGB white, red and blue.
    known = {(1, 1, 1): (1, 0, 0), (1, 0, 0): (0.628, 0.2249, 0.1258), (0, 0, 1): (0.452, -0.0324, -0.3115)}
    for srgb, expected in known.items():
        np.testing.assert_allclose(oklab(np.array(srgb, dtype=float)), expected, atol=1e-3)
    assert srgb_to_linear(np.array([188.0, 0, 255]) / 255)[0] == pytest.approx(0.503, abs=1e-3)
    colors = np.random.default_rng(0).random((100, 3))
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(colors)), colors, atol=1e-6)
    np.testing.assert_allclose(oklab_to_linear(linear_to_oklab(colors)), colors, atol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_steps_along_a_scale_look_equally_large(scale):
    halves = [scale.table] if scale.low == 0 else [scale.table[:256], scale.table[255:]]
    for table in halves:
        steps = np.linalg.norm(np.diff(oklab(table), axis=0), axis=1)
        assert steps.max() < 1.02 * steps.min()


@pytest.mark.parametrize("scale", SCALES)
def test_colours_are_shown_by_a_screen_uncut(scale):
    assert scale.table.min() > 0.005
    assert scale.table.max() < 0.995


def test_larger_errors_are_darker():
    lightness = oklab(error_scale(1.0).table)[:, 0]
    assert (np.diff(lightness) < 0).all()
    assert lightness[0] - lightness[-1] > 0.55


def test_the_signed_scale_is_as_dark_on_both_sides_and_palest_at_zero():
    scale = signed_scale(3.0)
    values = np.linspace(0, 3, 50)
    minus, zero, plus = (oklab(scale(v))[..., 0] for v in (-values, np.zeros(1), values))
    np.testing.assert_allclose(minus, plus, atol=0.03)
    assert (np.diff(plus) < 0).all()
    assert zero > 0.92
    blue, red = scale(np.array([-2.0, 2.0]))
    assert blue[2] > blue[0] + 0.3
    assert red[0] > red[2] + 0.3


def test_values_beyond_the_limits_take_their_colours_and_unknown_ones_are_grey():
    scale = signed_scale(2.0)
    np.testing.assert_array_equal(scale(np.array([-9.0, -np.inf])), scale.table[[0, 0]])
    np.testing.assert_array_equal(scale(np.array([[2.0, 9.0, np.inf]])), scale.table[[-1, -1, -1]][None])
    np.testing.assert_array_equal(scale(np.array([np.nan])), [UNKNOWN])


@pytest.mark.parametrize("scale", SCALES)
def test_the_bar_runs_through_the_scale_from_below(scale):
    bar = color_bar(scale, height=300)
    assert bar.shape[0] == 300
    column = bar[:, 16].astype(float) / 255
    inner = column[60:270]
    ideal = scale(np.linspace(scale.high, scale.low, 2000))
    distance = np.abs(inner[:, None] - ideal[None]).max(axis=2)
    assert distance.min(axis=1).max() < 0.01
    assert (np.diff(distance.argmin(axis=1)) >= 0).all()
