"""A raw scan in; codes, and a clean mesh in the scan's own frame, out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from implicit3dmm.errors import InputError
from implicit3dmm.fitting.config import FitConfig
from implicit3dmm.fitting.head_fit import HeadFit
from implicit3dmm.fitting.job import FitJob
from implicit3dmm.fitting.scan import Scan
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.latents import Codes
from implicit3dmm.models import HeadModel, subject_codes


def fit(
    scan: Scan,
    model: HeadModel | str | Path = "imhead",
    *,
    unit: str | float = "auto",
    transform: Similarity | None = None,
    landmarks: Float[np.ndarray, "68 3"] | None = None,
    held: Codes | None = None,
    config: FitConfig | None = None,
    resolution: int = 256,
    progress: Callable[[Iterable], Iterable] = iter,
) -> HeadFit:
    """Fits a model to a head scan: finds its pose, unit and codes from surface points alone.

    Args:
        scan: a file, a mesh, points or a depth image; in any pose and unit, whole or in part, with or without normals.
        model: a model, the name of a released one, or a weights file.
        unit: of the scan: "mm", "cm", "m", millimetres per unit, or "auto" to find it from the head's size.
        transform: scan to canonical, where it is known; pose and scale are then only refined.
        landmarks: the 68 iBUG landmarks in the scan's frame, rows of NaN where unknown; at least three.
        held: codes that are known and stay, such as the identity of a person whose expression is asked for.
        config: settings of the solver.
        resolution: cells along the longest side of the extracted mesh's box.
        progress: wraps the solver's steps, such as `tqdm`.

    Returns:
        The fit; `is_head` says whether there was a head to fit.

    Raises:
        InputError: the scan or the model cannot be used, the pose was given twice, or the held codes are not those of
            the model.
    """
    if transform is not None and landmarks is not None:
        raise InputError("a transform and landmarks are given; either one fixes the pose; give one of them")
    job = FitJob.open(model, unit, config, resolution)
    prepared = job.prepare(scan, transform, landmarks)
    return job.finish(prepared, *job.solve([prepared], held or {}, progress))


def fit_together(
    scans: Sequence[Scan],
    model: HeadModel | str | Path = "imhead",
    *,
    unit: str | float = "auto",
    config: FitConfig | None = None,
    resolution: int = 256,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[HeadFit]:
    """Fits a model to several scans of one person, who has one identity and in each scan a pose and an expression.

    Args:
        scans: as `fit` takes them.
        model: as `fit` takes it.
        unit: of all scans.
        config: settings of the solver.
        resolution: cells along the longest side of the extracted meshes' boxes.
        progress: wraps the solver's steps, such as `tqdm`.

    Returns:
        A fit for each scan; their codes of the subject are the same.

    Raises:
        InputError: no scan is given, or one of them or the model cannot be used.
    """
    if not scans:
        raise InputError("no scan is given; give one or more scans of the same person")
    job = FitJob.open(model, unit, config, resolution)
    prepared = [job.prepare(scan) for scan in scans]
    solutions = job.solve(prepared, {}, progress)
    return [job.finish(each, solution) for each, solution in zip(prepared, solutions, strict=True)]


def fit_sequence(
    frames: Iterable[Scan | InputError],
    model: HeadModel | str | Path = "imhead",
    *,
    held: Codes | None = None,
    unit: str | float = "auto",
    config: FitConfig | None = None,
    resolution: int = 256,
) -> Iterator[HeadFit | InputError]:
    """Fits a model to frames of one person, in their order: the identity is held, the expression followed.

    Each frame starts from the pose and the expression of the last one. Where the search or a frame fails, that frame
    is reported and the next one starts from the last that was found.

    Args:
        frames: as `fit` takes scans, read one by one; or what was wrong with one that could not be opened.
        model: as `fit` takes it; one with expressions.
        held: codes of the person, such as of a fit of a neutral scan; by default those of the first frame that
            shows a head.
        unit: of all frames.
        config: settings of the solver; frames after the first take half the steps.
        resolution: cells along the longest side of the extracted meshes' boxes.

    Returns:
        For each frame, as it is asked for, its fit, or what was wrong with it.

    Raises:
        InputError: the model cannot be used.
    """
    job = FitJob.open(model, unit, config, resolution)
    if all(spec.per == "subject" for spec in job.model.field.latent_specs):
        raise InputError(f"{job.model.name} has no expressions to follow through a sequence; use one that has, or fit")
    held = subject_codes(held, job.model) if held else {}
    return _follow(job, frames, held)


def _follow(job: "FitJob", frames: Iterable[Scan | InputError], held: Codes) -> Iterator[HeadFit | InputError]:
    last: HeadFit | None = None
    for frame in frames:
        try:
            if isinstance(frame, InputError):
                raise frame
            if last is None:
                prepared = job.prepare(frame)
                result = job.finish(prepared, *job.solve([prepared], held, iter))
            else:
                result = job.follow(frame, last)
        except InputError as error:
            yield error
            continue
        yield result
        if result.is_head:
            last = result
