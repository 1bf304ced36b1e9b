import math

import numpy as np
import pytest
from scipy import stats

from implicit3dmm.evaluation.statistics import (
    estimate_mean,
    f_score,
    mean,
    mean_of_means,
    share_within,
    spread,
)


def test_interval_is_students():
    values = np.random.default_rng(0).gamma(2.0, size=17)
    low, high = stats.t.interval(0.95, 16, loc=values.mean(), scale=stats.sem(values))
    estimate = estimate_mean(values)
    assert estimate.mean == pytest.approx(values.mean())
    assert (estimate.mean - estimate.half_width, estimate.mean + estimate.half_width) == pytest.approx((low, high))
    assert estimate.count == 17


def test_interval_holds_the_true_mean_in_95_of_100_samples():
    draws = np.random.default_rng(1).normal(3.0, 1.0, (4000, 8))
    estimates = [estimate_mean(row) for row in draws]
    hits = np.mean([abs(estimate.mean - 3.0) <= estimate.half_width for estimate in estimates])
    assert hits == pytest.approx(0.95, abs=0.015)


def test_unknown_values_are_left_out_and_counted_out():
    known, gappy = np.array([1.0, 2.0, 4.0]), np.array([1.0, np.nan, 2.0, 4.0])
    assert estimate_mean(gappy) == estimate_mean(known)


def test_few_values_have_no_interval():
    single, none = estimate_mean(np.array([2.0])), estimate_mean(np.array([np.nan]))
    assert (single.mean, single.count) == (2.0, 1)
    assert math.isnan(single.half_width)
    assert math.isnan(none.mean)
    assert none.count == 0


def test_reductions_of_nothing():
    nothing = np.zeros(0)
    assert math.isnan(mean(nothing))
    assert math.isnan(mean_of_means(nothing, np.ones(3)))
    assert all(math.isnan(value) for value in spread("x", nothing).values())
    assert share_within(nothing, 1.0) == 0.0
    assert f_score(nothing, nothing, 1.0) == 0.0


def test_a_distance_at_the_threshold_is_within_it():
    assert share_within(np.array([0.5, 1.0, 1.5, 2.0]), 1.0) == 0.5


def test_f_score_is_the_harmonic_mean():
    accuracy, completeness = np.array([0.0, 0.0, 0.0, 9.0]), np.array([0.0, 9.0])
    assert f_score(accuracy, completeness, 1.0) == pytest.approx(2 / (1 / 0.75 + 1 / 0.5))
