import numpy as np
import pytest

from implicit3dmm.evaluation.estimates import estimate, estimate_difference, estimate_seconds
from implicit3dmm.evaluation.metrics import METRICS
from implicit3dmm.evaluation.regions import HEADLINE, PARTS
from implicit3dmm.evaluation.statistics import estimate_mean

ERROR = "surface_mean_mm"


def row(record, error, *, subject=None, condition="whole"):
    return {
        "record": record,
        "subject": record if subject is None else subject,
        "condition": condition,
        "figures": None if error is None else {part: dict.fromkeys(METRICS, error) for part in PARTS},
        "error": None if error is not None else "InputError: no head",
        "cpu_seconds": None if error is None else 10.0 + record,
        "wall_seconds": None if error is None else 20.0,
    }


def test_means_are_over_heads():
    rows = [row(0, 1.0), row(1, 2.0), row(2, 6.0)]
    for part in PARTS:
        assert estimate(rows, part, ERROR) == estimate_mean(np.array([1.0, 2.0, 6.0]))
    assert estimate_seconds(rows).mean == 11.0
    assert estimate_seconds(rows, "wall").mean == 20.0


def test_heads_of_one_subject_count_as_one_and_failures_are_left_out():
    rows = [row(0, 1.0, subject=7), row(1, 3.0, subject=7), row(2, 4.0, subject=8), row(3, None, subject=8)]
    assert estimate(rows, HEADLINE, ERROR) == estimate_mean(np.array([2.0, 4.0]))
    assert estimate([row(0, None)], HEADLINE, ERROR).count == 0


def test_a_figure_that_is_not_known_is_left_out():
    rows = [row(0, 1.0), row(1, 2.0), row(2, 3.0)]
    rows[1]["figures"][HEADLINE]["accuracy_mean_mm"] = None
    assert estimate(rows, HEADLINE, "accuracy_mean_mm")[::2] == (2.0, 2)


def test_differences_are_taken_head_by_head_and_condition_by_condition():
    first = [row(0, 1.0), row(1, 5.0), row(2, 9.0), row(0, 50.0, condition="face"), row(4, None), row(5, 1.0)]
    second = [row(2, 9.5), row(0, 1.4), row(1, 5.3), row(3, 7.0), row(4, 2.0), row(5, None)]
    difference = estimate_difference(second, first, HEADLINE, ERROR)
    assert difference == pytest.approx(estimate_mean(np.array([0.5, 0.4, 0.3])))
    assert difference.half_width < 0.3 < estimate(first[:3], HEADLINE, ERROR).half_width
