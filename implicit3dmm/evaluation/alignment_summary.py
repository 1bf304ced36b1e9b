"""What the rows of an alignment run add up to: a page and JSON values."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from implicit3dmm.evaluation.results import Row, write_json
from implicit3dmm.evaluation.simulated_scans import SCANS
from implicit3dmm.evaluation.summary import write_text
from implicit3dmm.evaluation.tables import markdown_table

SUBJECTS = ("held-out", "scan")
"""Whose scans: heads of a corpus, or a real scan."""

DEGREES = 5.0
SCALE = 0.03
"""An alignment is right within these limits of rotation and scale."""

COLUMNS = ("rotation °", "scale %", "translation mm")
"""Errors that the table gives as median, 95th percentile and worst."""


def is_right(errors: Row) -> bool:
    """Whether a pose lies within 5 degrees and 3 % of scale of the truth."""
    return errors["rotation_degrees"] < DEGREES and abs(errors["scale_error"]) < SCALE


def write_summary(folder: Path, rows: Sequence[Row]) -> None:
    """Writes summary.json and summary.md of the rows of `evaluate_alignment` into a folder."""
    groups = {(subject, kind): [] for subject in SUBJECTS for kind in SCANS}
    for row in rows:
        groups[row["subject"], row["kind"]].append(row)
    summary = [
        {"subject": subject, "kind": kind} | _figures(chosen) for (subject, kind), chosen in groups.items() if chosen
    ]
    write_json(folder / "summary.json", {"limits": {"degrees": DEGREES, "scale": SCALE}, "groups": summary})
    write_text(folder / "summary.md", _page(summary, rows))


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    figures = _pose_figures(rows) | {
        "unit_right": _share([row for row in rows if row["unit"] != "none"], lambda row: row["unit_right"]),
        "plausible": _share(rows, lambda row: row["plausible"]),
        "cpu_seconds": float(np.mean([row["cpu_seconds"] for row in rows])),
        "right_by_unit": {
            unit: _share([row for row in rows if row["unit"] == unit], is_right) for unit in _units(rows)
        },
    }
    fits = [row["fit"] for row in rows if "fit" in row]
    return figures | ({"fit": _pose_figures(fits)} if fits else {})


def _units(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["unit"] for row in rows))


def _pose_figures(errors: Sequence[Row]) -> dict[str, Any]:
    return {
        "cases": len(errors),
        "right": _share(errors, is_right),
        "rotation_degrees": _spread([row["rotation_degrees"] for row in errors]),
        "scale_error": _spread([abs(row["scale_error"]) for row in errors]),
        "scale_bias": float(np.mean([row["scale_error"] for row in errors])),
        "translation_mm": _spread([row["translation_mm"] for row in errors]),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    median, p95 = np.percentile(values, [50, 95])
    return {"median": float(median), "p95": float(p95), "worst": float(max(values))}


def _share(rows: Sequence[Row], holds: Callable[[Row], bool]) -> float | None:
    """Share of the rows for which it holds; None where there are none."""
    return sum(map(holds, rows)) / len(rows) if rows else None


def _page(summary: Sequence[dict[str, Any]], rows: Sequence[Row]) -> str:
    header = ["subject", "scan", "cases", "right %", *COLUMNS, "unit known %", "plausible %", "cpu s"]
    lines = [[group["subject"], group["kind"], *_cells(group), *_account_cells(group)] for group in summary]
    page = (
        f"Alignments: {len(rows)}. Right is within {DEGREES:g}° and {SCALE:.0%} of scale. Errors are median / 95th"
        " percentile / worst; translation is that of the head's middle, mm of an average adult. No alignment was told"
        " the unit: the table says how often it was recognised where it was mm or m.\n\n"
        + markdown_table(header, lines, left=2)
    )
    fits = [[group["subject"], group["kind"], *_cells(group["fit"])] for group in summary if "fit" in group]
    return page + ("\nAfter the fit:\n\n" + markdown_table(header[:7], fits, left=2) if fits else "")


def _cells(figures: dict[str, Any]) -> list[str]:
    def triple(name: str, digits: int, factor: float = 1.0) -> str:
        return " / ".join(f"{factor * figures[name][key]:.{digits}f}" for key in ("median", "p95", "worst"))

    errors = [triple("rotation_degrees", 1), triple("scale_error", 1, 100.0), triple("translation_mm", 1)]
    return [str(figures["cases"]), _per_cent(figures["right"]), *errors]


def _account_cells(figures: dict[str, Any]) -> list[str]:
    return [_per_cent(figures["unit_right"]), _per_cent(figures["plausible"]), f"{figures['cpu_seconds']:.2f}"]


def _per_cent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
