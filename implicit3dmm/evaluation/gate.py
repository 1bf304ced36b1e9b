"""What a PCA model can reach at best: the registered projection, against which its fit to loose points is held."""

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.heads import Heads
from implicit3dmm.evaluation.cases import Case, HeldOut
from implicit3dmm.evaluation.regions import HEADLINE
from implicit3dmm.mesh_models.pca import PCAModel

SAMPLES = 20_000
"""Samples on each surface; more change a mean over heads by less than a hundredth."""


def projection_gate(model: PCAModel, heads: Heads) -> str:
    """What tables say of a linear model: its registered projection of the validation heads.

    Args:
        model: of the heads' topology.
        heads: which have validation heads, or the training heads stand in for them.
    """
    split = "validation" if len(heads.records("validation")) else "train"
    held_out = HeldOut(split=split, heads=16, samples=SAMPLES)
    errors = registered_projection(model, heads, held_out.records(heads), held_out=held_out)
    return f"registered projection of {len(errors)} {split} heads: {errors.mean():.3g} mm"


def registered_projection(
    model: PCAModel,
    heads: Heads,
    records: Iterable[int],
    *,
    held_out: HeldOut | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Float[np.ndarray, " r"]:
    """Surface error of each record's nearest head of the model, were its vertices and its pose known.

    The error is the protocols' headline: `surface_mean_mm`, neck masked, in the subject's own millimetres.

    Args:
        model: of the heads' topology.
        heads: those of a corpus or a recipe.
        records: which heads.
        held_out: samples and seed; equal ones measure on the same samples of the truth as the protocols.
        progress: wraps the records, such as `tqdm`.

    Raises:
        InputError: the model is of another topology.
    """
    errors = []
    for record in progress(records):
        case = Case.of(heads, int(record), held_out or HeldOut())
        nearest = model.mesh(model.project(case.head.vertices))
        figures = case.judge(nearest.transformed(case.head.similarity.inverse()))
        errors.append(figures[HEADLINE]["surface_mean_mm"])
    return np.array(errors)
