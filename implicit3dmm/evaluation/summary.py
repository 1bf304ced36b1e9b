"""What the rows of a reconstruction run add up to: means with intervals, a table, a chart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from implicit3dmm.evaluation.figures import cumulative_errors
from implicit3dmm.evaluation.metrics import METRICS
from implicit3dmm.evaluation.regions import HEADLINE, PARTS
from implicit3dmm.evaluation.results import Row, write_json
from implicit3dmm.evaluation.statistics import Estimate, estimate_mean, mean
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.files import atomic_path
from implicit3dmm.render.pictures import write_png

METHODS = {"fit": "fit", "mean_head": "mean head"}
"""Keys of a row that hold figures, and what tables call them."""

COLUMNS = {
    "surface_mean_mm": ("surface", 3),
    "accuracy_mean_mm": ("accuracy", 3),
    "completeness_mean_mm": ("completeness", 3),
    "completeness_p95_mm": ("compl. p95", 3),
    "chamfer_l1_mm": ("Chamfer-L1", 3),
    "chamfer_l1_floor_mm": ("its floor", 3),
    "f_score@1mm": ("F@1mm", 3),
    "f_score@2mm": ("F@2mm", 3),
    "f_score@5mm": ("F@5mm", 3),
    "normal_consistency": ("normals", 3),
}
"""The figures that the table shows: title and digits."""

Figures = Mapping[str, Mapping[str, Mapping[str, Estimate]]]


@dataclass(frozen=True)
class ReconstructionSummary:
    """Means over the heads of a reconstruction run."""

    heads: int
    """Heads that were tried."""
    subjects: int
    """Subjects that they belong to."""
    errors: Mapping[int, str]
    """Why the fit of a record failed, by its number."""
    figures: Figures
    """Mean over subjects with its interval, by method ("fit", "mean_head"), part of the head and metric."""
    seconds: Mapping[str, Estimate]
    """Processor ("cpu") and clock ("wall") seconds of a fit that did not fail."""

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return {
            "heads": self.heads,
            "subjects": self.subjects,
            "failed": len(self.errors),
            "errors": dict(self.errors),
            "interval": "mean ± half_width: 95 %, Student's t over subjects, each the mean of its heads",
            "figures": {
                method: {
                    part: {metric: estimate._asdict() for metric, estimate in metrics.items()}
                    for part, metrics in parts.items()
                }
                for method, parts in self.figures.items()
            },
            "seconds": {clock: estimate._asdict() for clock, estimate in self.seconds.items()},
        }

    def to_markdown(self) -> str:
        """The summary as a page: what was counted, the table, the failures."""
        table = markdown_table(
            ["part", "method", *(title for title, _ in COLUMNS.values())],
            [
                [part.replace("_", " "), METHODS[method], *_cells(self.figures[method][part])]
                for part in PARTS
                for method in METHODS
            ],
            left=2,
        )
        failures = "".join(f"- record {record}: {error}\n" for record, error in self.errors.items())
        return (
            f"Heads: {self.heads}, of {self.subjects} subjects. Failed fits, which the fit's means leave out:"
            f" {len(self.errors)}. Processor time of a fit: {plus_minus(self.seconds['cpu'], digits=1)} s."
            " Mean ± 95 % interval (Student's t over subjects, each the mean of its heads). Distances in the"
            f" subjects' own millimetres; F-scores are fractions.\n\n{table}"
            + (f"\nFailed fits:\n\n{failures}" if failures else "")
        )


def summarise(rows: Sequence[Row]) -> ReconstructionSummary:
    """Adds up the rows of `evaluate_reconstruction`; at least one."""

    def estimate(value: Callable[[Row], float | None]) -> Estimate:
        return estimate_mean(_subject_means(rows, value))

    return ReconstructionSummary(
        heads=len(rows),
        subjects=len({row["subject"] for row in rows}),
        errors={row["record"]: row["error"] for row in rows if row["error"] is not None},
        figures={
            method: {
                part: {metric: estimate(lambda row, at=(method, part, metric): _figure(row, *at)) for metric in METRICS}
                for part in PARTS
            }
            for method in METHODS
        },
        seconds={clock: estimate(lambda row, key=f"{clock}_seconds": row[key]) for clock in ("cpu", "wall")},
    )


def write_summary(folder: str | Path, rows: Sequence[Row]) -> ReconstructionSummary:
    """Writes summary.json, summary.md and errors.png into a folder and returns the summary."""
    folder, summary = Path(folder), summarise(rows)
    write_json(folder / "summary.json", summary.to_json())
    with atomic_path(folder / "summary.md") as path:
        path.write_text(summary.to_markdown(), encoding="utf-8")
    errors = {
        name: np.array([_number(_figure(row, method, HEADLINE, "surface_mean_mm")) for row in rows])
        for method, name in METHODS.items()
    }
    write_png(folder / "errors.png", cumulative_errors(errors, title="Surface error, neck masked"))
    return summary


def _subject_means(rows: Sequence[Row], value: Callable[[Row], float | None]) -> Float[np.ndarray, " s"]:
    """Mean of each subject's heads; heads of one person are no independent draws."""
    by_subject: dict[int, list[float]] = {}
    for row in rows:
        by_subject.setdefault(row["subject"], []).append(_number(value(row)))
    tables = [np.array(values) for values in by_subject.values()]
    return np.array([mean(table[~np.isnan(table)]) for table in tables])


def _figure(row: Row, method: str, part: str, metric: str) -> float | None:
    return None if row[method] is None else row[method][part][metric]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _cells(metrics: Mapping[str, Estimate]) -> list[str]:
    return [plus_minus(metrics[metric], digits=digits) for metric, (_, digits) in COLUMNS.items()]
