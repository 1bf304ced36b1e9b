"""Figures from arrays of distances, and means over heads with their intervals."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

CONFIDENCE = 0.95
"""Coverage of the intervals."""


class Estimate(NamedTuple):
    """A mean over a sample of subjects, and how sure it is."""

    mean: float
    """NaN where there is no subject."""
    half_width: float
    """The interval is mean ± half_width; NaN with fewer than two subjects."""
    count: int
    """Number of subjects that the mean is taken over."""


def estimate_mean(values: Float[np.ndarray, " n"]) -> Estimate:
    """Mean over subjects with its 95 % interval by Student's t.

    The interval says how far the mean of so many subjects may lie from that of the population they were
    drawn from.

    Args:
        values: one for each subject, drawn independently; NaN where it has none, which is left out.
    """
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return Estimate(mean(known), float("nan"), len(known))
    quantile = stdtrit(len(known) - 1, 0.5 + 0.5 * CONFIDENCE)
    return Estimate(mean(known), float(quantile * known.std(ddof=1) / np.sqrt(len(known))), len(known))


def mean(values: Float[np.ndarray, " n"]) -> float:
    """The mean; NaN where there is nothing to take it of."""
    return float(values.mean()) if len(values) else float("nan")


def mean_of_means(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> float:
    """0.5 (mean a + mean b): either direction of a comparison counts alike."""
    return 0.5 * (mean(a) + mean(b))


def spread(prefix: str, distance_mm: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Mean, median and 95th percentile as ``<prefix>_mean_mm`` and so on; NaN where there is no distance."""
    median, p95 = np.percentile(distance_mm, [50, 95]) if len(distance_mm) else (np.nan, np.nan)
    return {
        f"{prefix}_mean_mm": mean(distance_mm),
        f"{prefix}_median_mm": float(median),
        f"{prefix}_p95_mm": float(p95),
    }


def share_within(distance: Float[np.ndarray, " n"], threshold: float) -> float:
    """Share of the distances that are at most `threshold`, in [0, 1]; 0 where there is none."""
    return float(np.count_nonzero(distance <= threshold) / max(len(distance), 1))


def f_score(accuracy: Float[np.ndarray, " n"], completeness: Float[np.ndarray, " m"], threshold: float) -> float:
    """Harmonic mean of the shares of either direction within `threshold`, in [0, 1]; 0 where both are 0."""
    precision, recall = share_within(accuracy, threshold), share_within(completeness, threshold)
    return 2.0 * precision * recall / (precision + recall) if precision + recall > 0.0 else 0.0
