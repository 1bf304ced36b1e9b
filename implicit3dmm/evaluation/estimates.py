"""Means over the rows of trials, with their intervals."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.evaluation.results import Row
from implicit3dmm.evaluation.statistics import Estimate, estimate_mean, mean

INTERVAL = "mean ± half-width of the 95 % interval: Student's t over subjects, each the mean of its heads"
"""What the figures of a table are."""


def figure(row: Row, part: str, metric: str) -> float:
    """One figure of a trial; NaN where the fit failed or the figure is not known."""
    return known(None if row["figures"] is None else row["figures"][part][metric])


def known(value: float | None) -> float:
    """A value of a row as a number; NaN where it has none."""
    return float("nan") if value is None else float(value)


def estimate(rows: Sequence[Row], part: str, metric: str) -> Estimate:
    """Mean of a figure over subjects; trials that failed are left out."""
    return over_subjects(rows, lambda row: figure(row, part, metric))


def estimate_seconds(rows: Sequence[Row], clock: str = "cpu") -> Estimate:
    """Mean time of a fit that did not fail: processor ("cpu") or clock ("wall") seconds."""
    return over_subjects(rows, lambda row: known(row[f"{clock}_seconds"]))


def estimate_difference(rows: Sequence[Row], others: Sequence[Row], part: str, metric: str) -> Estimate:
    """Mean of (figure of `rows` minus figure of `others`) over the heads and conditions that both have.

    The two methods saw the same points of the same heads, so the difference is far surer than the two means are.
    """
    other = {(row["record"], row["condition"]): figure(row, part, metric) for row in others}
    paired = [row for row in rows if (row["record"], row["condition"]) in other]
    return over_subjects(paired, lambda row: figure(row, part, metric) - other[row["record"], row["condition"]])


def over_subjects(rows: Iterable[Row], value: Callable[[Row], float]) -> Estimate:
    """Mean over subjects, each the mean of its heads: heads of one person are no independent draws."""
    return estimate_mean(_subject_means(rows, value))


def over_heads(values: Float[np.ndarray, " r"], subjects: Int[np.ndarray, " r"]) -> Estimate:
    """The same of a value for each head, given the number of its subject."""
    return over_subjects(
        [{"subject": subject, "value": value} for subject, value in zip(subjects, values, strict=True)],
        lambda row: row["value"],
    )


def _subject_means(rows: Iterable[Row], value: Callable[[Row], float]) -> Float[np.ndarray, " s"]:
    by_subject: dict[int, list[float]] = {}
    for row in rows:
        by_subject.setdefault(row["subject"], []).append(value(row))
    tables = [np.array(values) for values in by_subject.values()]
    return np.array([mean(table[~np.isnan(table)]) for table in tables])
