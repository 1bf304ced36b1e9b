import numpy as np
import pytest

from implicit3dmm.render.ticks import limit_ticks, linear_ticks, log_ticks, round_limit, tick_labels


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.3, 17), (1e-7, 3e-7), (995, 1003), (-2, -1)])
def test_linear_ticks_are_evenly_spaced_inside_and_few(low, high):
    ticks = np.array(linear_ticks(low, high))
    assert 2 <= len(ticks) <= 6
    assert ticks.min() >= low - 1e-9 * abs(high)
    assert ticks.max() <= high + 1e-9 * abs(high)
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-6)


@pytest.mark.parametrize("limit", [0.1, 0.15, 0.3, 0.8, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 20, 150])
def test_ticks_of_a_round_limit_end_with_it(limit):
    ticks = limit_ticks(limit)
    assert ticks[0] == 0
    assert ticks[-1] == pytest.approx(limit)
    assert 4 <= len(ticks) <= 7
    assert max(len(label) for label in tick_labels(ticks)) <= 4


def test_ticks_of_another_limit_stay_below_it():
    assert limit_ticks(1.7) == pytest.approx([0, 0.5, 1, 1.5])


def test_log_ticks_are_decades_or_where_few_ones_twos_and_fives():
    np.testing.assert_allclose(log_ticks(2e-5, 3), [1e-4, 1e-3, 1e-2, 0.1, 1])
    np.testing.assert_allclose(log_ticks(0.04, 1.0), [0.05, 0.1, 0.2, 0.5, 1])
    np.testing.assert_allclose(log_ticks(1.1, 1.9), [1.2, 1.4, 1.6, 1.8])


@pytest.mark.parametrize(("value", "limit"), [(1, 1), (1.01, 1.5), (0.0621, 0.08), (83, 100), (2.0000000001, 2)])
def test_a_limit_is_the_next_round_number(value, limit):
    assert round_limit(value) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0, 0.5, 1], ["0.0", "0.5", "1.0"]),
        ([-2, 0, 2], ["-2", "0", "2"]),
        ([0, 2.5e-5, 5e-5], ["0", "2.5e-05", "5e-05"]),
        ([0.001, 0.1, 10], ["0.001", "0.1", "10"]),
        ([0, 5e6], ["0", "5e+06"]),
        ([], []),
    ],
)
def test_labels_have_the_decimals_they_need(ticks, labels):
    assert tick_labels(ticks) == labels
