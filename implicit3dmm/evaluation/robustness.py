"""Noise, sparse points and missing parts: how a method's error grows as a scan gets worse."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from implicit3dmm.data.heads import Heads
from implicit3dmm.evaluation.cases import HeldOut
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.estimates import INTERVAL, estimate
from implicit3dmm.evaluation.methods import Method
from implicit3dmm.evaluation.regions import HEADLINE, PARTS, WIDE_PARTS
from implicit3dmm.evaluation.results import write_json
from implicit3dmm.evaluation.summary import ERROR, counted, describe, failures, footnotes, write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.evaluation.trials import MEAN_HEAD, Trials, run_trials
from implicit3dmm.render.curves import plot_curves
from implicit3dmm.render.pictures import Picture, grid, write_png

PANEL = (540, 420)
"""Width and height of a panel of the figure, pixels."""


def evaluate_noise(
    heads: Heads,
    methods: Sequence[Method],
    *,
    folder: str | Path,
    held_out: HeldOut,
    noise_mm: Sequence[float],
    points: Sequence[int],
    views: Sequence[str],
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Trials]:
    """Reconstructs held-out heads from fewer and noisier points, of the whole head and of what one camera sees.

    The folder gets what `run_trials` writes, summary.json, summary.md (a table for each wide part of the head, noise
    across) and noise.png (error against noise, a curve for each number of points, a panel for each view). Noise is
    isotropic: normal, with that standard deviation in each coordinate.

    Args:
        heads: whose held-out heads.
        methods: under test.
        folder: where the results go.
        held_out: which heads, and how they are measured.
        noise_mm: standard deviations of the noise, the subject's mm.
        points: numbers of points.
        views: keys of `VIEWS`.
        progress: wraps the trials to do, such as `tqdm`.

    Returns:
        Trials of each method, then those of the mean head.

    Raises:
        InputError: a setting is out of range, the split is empty, or the folder belongs to another run or cannot
            be written to.
    """
    rows = [(view, count) for view in views for count in points]
    conditions = [Condition(view, count, noise) for view, count in rows for noise in noise_mm]
    trials = _run(heads, methods, conditions, "noise", folder=folder, held_out=held_out, progress=progress)
    tables = "".join(
        f"\n{part.replace('_', ' ').capitalize()}, surface error in mm by noise:\n\n"
        f"{_noise_table(trials, part, rows, noise_mm)}"
        for part in WIDE_PARTS
    )
    write_text(Path(folder) / "summary.md", f"{counted(trials)}{tables}\n{footnotes(trials)}")
    pictures = [[_noise_curves(each, trials[-1], view, points, noise_mm) for view in views] for each in trials[:-1]]
    write_png(Path(folder) / "noise.png", grid(pictures))
    return trials


def evaluate_partial(
    heads: Heads,
    methods: Sequence[Method],
    *,
    folder: str | Path,
    held_out: HeldOut,
    views: Sequence[str],
    points: int,
    noise_mm: float = 0.0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Trials]:
    """Reconstructs held-out heads of which a scan shows but a part; errors are those of the whole of each part.

    The folder gets what `run_trials` writes, summary.json and summary.md. Arguments, result and errors are those of
    `evaluate_noise`.
    """
    conditions = [Condition(view, points, noise_mm) for view in views]
    trials = _run(heads, methods, conditions, "partial", folder=folder, held_out=held_out, progress=progress)
    table = _partial_table(trials, conditions)
    write_text(
        Path(folder) / "summary.md",
        f"{counted(trials)}\nSurface error in mm of parts of the head (across) where a scan of {points} points with"
        f" noise of {noise_mm:g} mm shows so much of it (down):\n\n{table}\n{footnotes(trials)}",
    )
    return trials


def _run(
    heads: Heads,
    methods: Sequence[Method],
    conditions: Sequence[Condition],
    protocol: str,
    *,
    folder: str | Path,
    held_out: HeldOut,
    progress: Callable[[Iterable], Iterable],
) -> list[Trials]:
    for setting in (held_out, *conditions):
        setting.validate()
    trials = run_trials(
        heads, methods, conditions, protocol=protocol, folder=folder, held_out=held_out, progress=progress
    )
    write_json(Path(folder) / "summary.json", _to_json(trials, conditions))
    return trials


def _to_json(trials: Sequence[Trials], conditions: Sequence[Condition]) -> dict[str, Any]:
    return {
        "interval": INTERVAL,
        "methods": {
            each.name: describe(each) | {"conditions": {c.name: _errors(each.under(c)) for c in conditions}}
            for each in trials[:-1]
        },
        MEAN_HEAD: _errors(trials[-1]),
    }


def _errors(trials: Trials) -> dict[str, Any]:
    """Trials, failures, and the surface error of each part."""
    counts = {"trials": len(trials.rows), "failed": failures(trials.rows)}
    return counts | {part: estimate(trials.rows, part, ERROR)._asdict() for part in PARTS}


def _noise_table(
    trials: Sequence[Trials], part: str, rows: Sequence[tuple[str, int]], noise_mm: Sequence[float]
) -> str:
    header = ["method", "view", "points", *(f"{noise:g} mm" for noise in noise_mm)]
    lines = [
        [each.name, view, str(count), *(_cell(each.under(Condition(view, count, noise)), part) for noise in noise_mm)]
        for each in trials[:-1]
        for view, count in rows
    ]
    nothing = _cell(trials[-1], part)
    return markdown_table(header, [*lines, [MEAN_HEAD, "–", "–", *(nothing for _ in noise_mm)]], left=2)


def _partial_table(trials: Sequence[Trials], conditions: Sequence[Condition]) -> str:
    header = ["method", "view", *(part.replace("_", " ") for part in PARTS)]
    lines = [
        [each.name, condition.view, *(_cell(each.under(condition), part) for part in PARTS)]
        for each in trials[:-1]
        for condition in conditions
    ]
    return markdown_table(header, [*lines, [MEAN_HEAD, "–", *(_cell(trials[-1], part) for part in PARTS)]], left=2)


def _cell(trials: Trials, part: str) -> str:
    failed = failures(trials.rows)
    return plus_minus(estimate(trials.rows, part, ERROR), digits=2) + (f" ({failed} failed)" if failed else "")


def _noise_curves(
    trials: Trials, mean_head: Trials, view: str, points: Sequence[int], noise_mm: Sequence[float]
) -> Picture:
    curves = {
        f"{count} points": [
            estimate(trials.under(Condition(view, count, noise)).rows, HEADLINE, ERROR).mean for noise in noise_mm
        ]
        for count in points
    }
    curves[MEAN_HEAD] = [estimate(mean_head.rows, HEADLINE, ERROR).mean] * len(noise_mm)
    return plot_curves(
        {name: (list(noise_mm), errors) for name, errors in curves.items()},
        title=f"{trials.name}, {view}",
        xlabel="noise, mm",
        ylabel="surface error, neck masked, mm",
        log_y=True,
        size=PANEL,
    )
