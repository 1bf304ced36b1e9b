"""Reconstruction: how well methods find held-out heads again from points on their surface."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from implicit3dmm.data.heads import Heads
from implicit3dmm.evaluation.cases import HeldOut
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.methods import Method
from implicit3dmm.evaluation.summary import write_summary
from implicit3dmm.evaluation.trials import Trials, run_trials


def evaluate_reconstruction(
    heads: Heads,
    methods: Sequence[Method],
    *,
    folder: str | Path,
    held_out: HeldOut,
    points: int = 10000,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Trials]:
    """Reconstructs held-out heads from surface points and measures them against the exact surfaces.

    Each head's points are drawn afresh from its exact mesh and brought into a random pose, place and unit. A
    method sees these points alone. Its mesh is led back by the known transform, not aligned to the truth, and
    compared with it in the subject's own millimetres; see `surface_metrics` for the figures and `head_parts` for
    the parts of the head. Beside it stands the mean head.

    The folder gets what `run_trials` writes, and summary.json, summary.md and errors.png.

    Args:
        heads: whose held-out heads.
        methods: under test; differences are taken to the first.
        folder: where the results go.
        held_out: which heads, and how they are measured.
        points: given of each head.
        progress: wraps the trials to do, such as `tqdm`.

    Returns:
        Trials of each method, then those of the mean head.

    Raises:
        InputError: a setting is out of range, the split is empty, or the folder belongs to another run or cannot
            be written to.
    """
    held_out.validate()
    condition = Condition(points=points)
    condition.validate()
    trials = run_trials(
        heads, methods, [condition], protocol="reconstruction", folder=folder, held_out=held_out, progress=progress
    )
    write_summary(folder, trials)
    return trials
