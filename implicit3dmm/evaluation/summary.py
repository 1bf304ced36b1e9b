"""What trials on held-out heads add up to: a page, JSON values and a chart of several methods side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from implicit3dmm.evaluation.estimates import (
    INTERVAL,
    estimate,
    estimate_difference,
    estimate_seconds,
    figure,
)
from implicit3dmm.evaluation.figures import cumulative_errors
from implicit3dmm.evaluation.metrics import METRICS
from implicit3dmm.evaluation.regions import HEADLINE, PARTS, WIDE_PARTS
from implicit3dmm.evaluation.results import Row, write_json
from implicit3dmm.evaluation.statistics import Estimate
from implicit3dmm.evaluation.tables import large_number, markdown_table, plus_minus
from implicit3dmm.evaluation.trials import MEAN_HEAD, Trials
from implicit3dmm.files import atomic_path
from implicit3dmm.render.pictures import write_png

COLUMNS = {
    "surface_mean_mm": "surface",
    "accuracy_mean_mm": "accuracy",
    "completeness_mean_mm": "completeness",
    "completeness_p95_mm": "compl. p95",
    "chamfer_l1_mm": "Chamfer-L1",
    "chamfer_l1_floor_mm": "its floor",
    "f_score@1mm": "F@1mm",
    "f_score@2mm": "F@2mm",
    "f_score@5mm": "F@5mm",
    "normal_consistency": "normals",
}
"""The figures that tables show, and their titles."""

ERROR = "surface_mean_mm"
"""The headline figure."""

Figures = Mapping[str, Mapping[str, Estimate]]
"""Means by part of the head and metric."""


def summarise(rows: Sequence[Row]) -> Figures:
    """Means of every figure of every part over the trials of one method."""
    return {part: {metric: estimate(rows, part, metric) for metric in METRICS} for part in PARTS}


def write_summary(folder: str | Path, trials: Sequence[Trials]) -> None:
    """Writes summary.json, summary.md and errors.png of a reconstruction run into `folder`.

    Each method's own folder gets a summary.md of all parts of the head.

    Args:
        folder: of the run.
        trials: of each method, then of the mean head, as `run_trials` gives them.
    """
    folder, figures = Path(folder), {each.name: summarise(each.rows) for each in trials}
    write_json(folder / "summary.json", _to_json(trials, figures))
    write_text(folder / "summary.md", _to_markdown(trials, figures))
    errors = {each.name: np.array([figure(row, HEADLINE, ERROR) for row in each.rows]) for each in trials}
    write_png(folder / "errors.png", cumulative_errors(errors, title="Surface error, neck masked"))
    for each in trials[:-1]:
        write_text(each.folder / "summary.md", _parts_page(each, figures[each.name], figures[MEAN_HEAD]))


def write_text(path: Path, text: str) -> None:
    """Writes a text, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def counted(trials: Sequence[Trials]) -> str:
    """The sentence above a table: heads, subjects, what its figures are."""
    rows = trials[-1].rows
    subjects = len({row["subject"] for row in rows})
    return (
        f"Heads: {len(rows)}, of {subjects} subjects. Distances in the subjects' own millimetres; F-scores are"
        f" fractions; {INTERVAL}. Failed fits are left out of their method's means. The mean head stands in the true"
        " pose and size.\n"
    )


def footnotes(trials: Sequence[Trials]) -> str:
    """What each method was trained on, the gate that it passed, and the fits that failed."""
    lines = []
    for each in trials[:-1]:
        gate = each.info.gate or "none stated"
        lines.append(f"- {each.name}: trained on {each.info.training_set or 'unknown heads'}; known figure: {gate}\n")
        lines += [
            f"  - failed on record {row['record']} ({row['condition']}): {row['error']}\n"
            for row in each.rows
            if row["error"] is not None
        ]
    return "Each method, and the known figure that it first reached:\n\n" + "".join(lines)


def failures(rows: Sequence[Row]) -> int:
    """Number of trials whose fit failed."""
    return sum(row["error"] is not None for row in rows)


def describe(trials: Trials) -> dict[str, Any]:
    """What stands beside a method's figures, as JSON values."""
    return {
        "trials": len(trials.rows),
        "subjects": len({row["subject"] for row in trials.rows}),
        "failed": failures(trials.rows),
        "errors": [
            {key: row[key] for key in ("record", "condition", "error")}
            for row in trials.rows
            if row["error"] is not None
        ],
        "latent_size": trials.latent_size,
        "training_set": trials.info.training_set,
        "training_points": trials.info.training_points,
        "training_seconds": trials.info.training_seconds,
        "training_cpu_seconds": trials.info.training_cpu_seconds,
        "gate": trials.info.gate,
        "seconds": {clock: estimate_seconds(trials.rows, clock)._asdict() for clock in ("cpu", "wall")},
    }


def _to_json(trials: Sequence[Trials], figures: Mapping[str, Figures]) -> dict[str, Any]:
    return {
        "heads": len(trials[-1].rows),
        "interval": INTERVAL,
        "methods": {
            each.name: describe(each)
            | {
                "figures": {
                    part: {metric: value._asdict() for metric, value in metrics.items()}
                    for part, metrics in figures[each.name].items()
                }
            }
            for each in trials
        },
        "difference_to": trials[0].name,
        "differences": {
            each.name: {
                part: estimate_difference(each.rows, trials[0].rows, part, ERROR)._asdict() for part in WIDE_PARTS
            }
            for each in trials[1:-1]
        },
    }


def _to_markdown(trials: Sequence[Trials], figures: Mapping[str, Figures]) -> str:
    parts = "".join(
        f"\n{part.replace('_', ' ').capitalize()}:\n\n{_metrics_table(trials, figures, part)}" for part in WIDE_PARTS
    )
    return f"{counted(trials)}\n{_overview(trials, figures)}{_differences(trials)}{parts}\n{footnotes(trials)}"


def _overview(trials: Sequence[Trials], figures: Mapping[str, Figures]) -> str:
    """One row a method: error of the three wide parts, and what it cost."""
    wide = [f"{part.replace('_', ' ')}, mm" for part in WIDE_PARTS]
    header = ["method", *wide, "latent size", "fit, cpu s", "training points", "training, s", "its cpu s", "failed"]
    rows = [
        [
            each.name,
            *(plus_minus(figures[each.name][part][ERROR], digits=3) for part in WIDE_PARTS),
            large_number(each.latent_size),
            plus_minus(estimate_seconds(each.rows), digits=1),
            large_number(each.info.training_points),
            large_number(each.info.training_seconds),
            large_number(each.info.training_cpu_seconds),
            str(failures(each.rows)),
        ]
        for each in trials
    ]
    return markdown_table(header, rows)


def _differences(trials: Sequence[Trials]) -> str:
    """Differences of the other methods to the first one, head by head; nothing where there is but one."""
    first, *others = trials[:-1]
    if not others:
        return ""
    header = ["surface error, mm", *(part.replace("_", " ") for part in WIDE_PARTS)]
    rows = [
        [
            f"{other.name} minus {first.name}",
            *(plus_minus(estimate_difference(other.rows, first.rows, part, ERROR), digits=3) for part in WIDE_PARTS),
        ]
        for other in others
    ]
    return (
        "\nPaired, over the heads that both fitted; an interval without 0 says which is ahead:\n\n"
        f"{markdown_table(header, rows)}"
    )


def _metrics_table(trials: Sequence[Trials], figures: Mapping[str, Figures], part: str) -> str:
    rows = [[each.name, *_cells(figures[each.name][part])] for each in trials]
    return markdown_table(["method", *COLUMNS.values()], rows)


def _parts_page(trials: Trials, figures: Figures, mean_head: Figures) -> str:
    """All parts of the head, the method and the mean head one under the other."""
    rows = [
        [part.replace("_", " "), name, *_cells(means[part])]
        for part in PARTS
        for name, means in ((trials.name, figures), (MEAN_HEAD, mean_head))
    ]
    return f"{counted([trials])}\n{markdown_table(['part', 'method', *COLUMNS.values()], rows, left=2)}"


def _cells(metrics: Mapping[str, Estimate]) -> list[str]:
    return [plus_minus(metrics[metric], digits=3) for metric in COLUMNS]
