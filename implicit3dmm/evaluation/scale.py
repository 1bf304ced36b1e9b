"""Scale: what more training heads, and other ones, are worth; models in rows, test sets in columns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from implicit3dmm.data.heads import Heads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import HeldOut
from implicit3dmm.evaluation.estimates import INTERVAL, estimate
from implicit3dmm.evaluation.methods import Method
from implicit3dmm.evaluation.reconstruction import evaluate_reconstruction
from implicit3dmm.evaluation.regions import WIDE_PARTS
from implicit3dmm.evaluation.results import write_json
from implicit3dmm.evaluation.statistics import Estimate
from implicit3dmm.evaluation.summary import ERROR, describe, failures, footnotes, write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.evaluation.trials import Trials

Matrix = Mapping[str, Sequence[Trials]]
"""Trials of each method, then of the mean head, by test set."""


def evaluate_scale(
    test_sets: Sequence[Heads],
    methods: Sequence[Method],
    *,
    folder: str | Path,
    held_out: HeldOut,
    points: int = 10000,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Matrix:
    """Reconstructs the held-out heads of several test sets; see `evaluate_reconstruction`.

    Each test set has a folder of its own in `folder`, by its name, as if it were evaluated alone; summary.md and
    summary.json hold the matrix of surface errors.

    Args:
        test_sets: of different names.
        methods: such as models that were trained on more and more heads.
        folder: where the results go.
        held_out: which heads of each, and how they are measured.
        points: given of each head.
        progress: wraps the trials of each test set, such as `tqdm`.

    Raises:
        InputError: two test sets have one name, or as `evaluate_reconstruction`.
    """
    names = [heads.name for heads in test_sets]
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"the test sets are called {', '.join(names) or 'nothing'}; give one or more, of different names"
        )
    matrix = {
        heads.name: evaluate_reconstruction(
            heads, methods, folder=Path(folder) / heads.name, held_out=held_out, points=points, progress=progress
        )
        for heads in test_sets
    }
    write_json(Path(folder) / "summary.json", _to_json(matrix))
    write_text(Path(folder) / "summary.md", _to_markdown(matrix))
    return matrix


def _to_json(matrix: Matrix) -> dict:
    return {
        "interval": INTERVAL,
        "test_sets": {
            name: {
                each.name: describe(each) | {part: _error(each, part)._asdict() for part in WIDE_PARTS}
                for each in trials
            }
            for name, trials in matrix.items()
        },
    }


def _to_markdown(matrix: Matrix) -> str:
    counts = ", ".join(f"{len(trials[-1].rows)} of {name}" for name, trials in matrix.items())
    tables = "".join(f"\n{part.replace('_', ' ').capitalize()}:\n\n{_table(matrix, part)}" for part in WIDE_PARTS)
    return (
        f"Surface error on held-out heads ({counts}), the subjects' own mm; {INTERVAL}. Rows are what was trained,"
        f" columns what was tested. Failed fits are left out, their number in brackets.\n{tables}\n"
        + "\n".join(f"Tested on {name}. {footnotes(trials)}" for name, trials in matrix.items())
    )


def _table(matrix: Matrix, part: str) -> str:
    rows = [
        [column[0].name, column[0].info.training_set or "–", *(_cell(trials, part) for trials in column)]
        for column in zip(*matrix.values(), strict=True)
    ]
    return markdown_table(["method", "trained on", *matrix], rows, left=2)


def _cell(trials: Trials, part: str) -> str:
    failed = failures(trials.rows)
    return plus_minus(_error(trials, part), digits=3) + (f" ({failed} failed)" if failed else "")


def _error(trials: Trials, part: str) -> Estimate:
    return estimate(trials.rows, part, ERROR)
