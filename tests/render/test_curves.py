import numpy as np
import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.render.curves import plot_curves

BLUE, ORANGE = (0, 114, 178), (213, 94, 0)
LEGEND = 80


def chart(series, **options):
    return plot_curves(series, title="losses", xlabel="step", ylabel="loss", **options)


def inked(picture, color):
    """Places of a colour below the legend."""
    rows, columns = np.nonzero((np.abs(picture.astype(int) - color) <= 2).all(axis=-1))
    below = rows > LEGEND
    return rows[below], columns[below]


def test_a_chart_has_its_size_and_equal_input_gives_equal_bytes():
    series = {"a": (range(100), np.geomspace(1, 0.01, 100)), "b": ([0, 99], [0.5, 0.1])}
    first, second = (chart(series, log_y=True, size=(500, 300)) for _ in range(2))
    assert first.shape == (300, 500, 3)
    assert first.dtype == np.uint8
    assert first.tobytes() == second.tobytes()


def test_each_series_has_its_colour_and_larger_values_are_higher():
    x = np.arange(200)
    picture = chart({"low": (x, np.full(200, 1.0)), "high": (x, np.full(200, 3.0))})
    low, high = inked(picture, BLUE), inked(picture, ORANGE)
    assert low[0].mean() > high[0].mean() + 100
    assert np.ptp(low[1]) > 600


def test_equal_ratios_are_equal_distances_on_a_logarithmic_axis():
    x = np.arange(200)
    series = {str(level): (x, np.full(200, float(level))) for level in (1, 100)}
    rows = [inked(chart({**series, "mid": (x, np.full(200, 10.0))}, log_y=True), c)[0].mean() for c in (BLUE, ORANGE)]
    green = inked(chart({**series, "mid": (x, np.full(200, 10.0))}, log_y=True), (0, 158, 115))[0].mean()
    assert green == pytest.approx(np.mean(rows), abs=1)


def test_a_line_is_broken_where_a_value_cannot_be_shown():
    x = np.arange(100.0)
    for hole, options in ((np.nan, {}), (np.inf, {}), (-1.0, {"log_y": True}), (0.0, {"log_y": True})):
        y = np.where((x >= 40) & (x < 60), hole, 2.0)
        columns = np.unique(inked(chart({"a": (x, y)}, **options), BLUE)[1])
        assert np.diff(columns).max() > 0.18 * np.ptp(columns)


def test_a_single_point_and_a_constant_series_are_drawn():
    for series in ({"a": ([3], [5])}, {"a": ([0, 1], [0, 0])}, {"": ([0, 1], [1, 1])}):
        assert len(inked(chart(series), BLUE)[0]) > 20


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({}, "0 series of 'losses' hold no point"),
        ({"a": ([], [])}, "no point to show"),
        ({"a": ([1], [np.nan])}, "no point to show"),
        ({"a": ([1, 2], [1])}, "'a' has 2 x and 1 y"),
    ],
)
def test_what_cannot_be_drawn_is_refused(series, message):
    with pytest.raises(InputError, match=message):
        chart(series)


def test_a_logarithmic_axis_asks_for_positive_values():
    with pytest.raises(InputError, match="positive"):
        chart({"a": ([1, 2], [0, -1])}, log_y=True)
