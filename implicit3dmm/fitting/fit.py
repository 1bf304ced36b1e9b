"""A raw scan in; codes, and a clean mesh in the scan's own frame, out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

import implicit3dmm
from implicit3dmm.data.average_head import alignment_target, near_neck, on_head, template, template_landmarks
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.metrics import distance_metrics
from implicit3dmm.extraction import at_rest, cautions, extract_field
from implicit3dmm.fitting import report as say
from implicit3dmm.fitting.clock import Clock
from implicit3dmm.fitting.config import FitConfig
from implicit3dmm.fitting.evidence import Evidence, carried_colors, find_evidence
from implicit3dmm.fitting.registration import register_head
from implicit3dmm.fitting.scan import Scan, file_of, points_on, read_scan, unit_of
from implicit3dmm.fitting.solver import LAST_STEPS, Solution, solve_together
from implicit3dmm.fitting.verdict import judge
from implicit3dmm.geometry.alignment import (
    Alignment,
    align_by_landmarks,
    align_scan,
    known_pose,
    millimetres_in,
)
from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import MIN_SCAN_POINTS, Mesh, thin
from implicit3dmm.geometry.narrow_band import Grid
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.latents import Codes
from implicit3dmm.models import HeadModel, check_codes, load_model, subject_codes

MOST_POINTS = 300_000
"""A scan with more vertices is thinned to this number; more say nothing new about a head."""

FAR_MM = 20.0
"""Scan points further than this from the fit are taken for hair, shoulders or strays, and counted apart."""


@dataclass(frozen=True, eq=False)
class HeadFit:
    """A head fitted to a scan."""

    codes: Codes
    """Latent codes of the model."""
    similarity: Similarity
    """From the scan's frame to the canonical frame."""
    mesh: Mesh
    """The fitted head, watertight, in the scan's own frame and unit, with the scan's colours where it has any."""
    scan: Mesh
    """The scan as it was used (thinned where it was larger)."""
    distance_mm: Float[np.ndarray, " n"]
    """Distance of each vertex of `scan` to the fitted surface, mm."""
    evidence: Evidence
    """What each vertex of `mesh` rests on: the nearest place of the scan that the fit explained."""
    registered: Float[np.ndarray, "v 3"]
    """Where the built-in head's vertices lie on the fitted surface, in its order, in the scan's own frame and unit."""
    is_head: bool
    """Whether the scan is a head; where it is none, codes, mesh and landmarks mean nothing."""
    report: dict[str, Any]
    """All that is said of the fit; see docs/fit.md."""

    @property
    def landmarks(self) -> Float[np.ndarray, "68 3"]:
        """The 68 iBUG landmarks on the fitted surface, in the scan's own frame and unit."""
        return self.registered[template().landmarks]

    @property
    def registered_mesh(self) -> Mesh:
        """The fitted head in the built-in head's own topology, in the scan's own frame and unit."""
        return Mesh(self.registered, template().triangles)

    @property
    def evidence_mm(self) -> Float[np.ndarray, " v"]:
        """Distance of each vertex of `mesh` to its evidence, mm; infinite where there is none."""
        return self.evidence.distance_mm

    @property
    def confidence(self) -> Float[np.ndarray, " v"]:
        """1 where a vertex of `mesh` has evidence, falling towards 0 with the distance from it; one half at 10 mm."""
        return self.evidence.confidence


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
    job = _Job.open(model, unit, config, resolution)
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
    job = _Job.open(model, unit, config, resolution)
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
        held: codes of the person, such as of a fit of a neutral scan; by default those of the first frame's fit.
        unit: of all frames.
        config: settings of the solver; frames after the first take half the steps.
        resolution: cells along the longest side of the extracted meshes' boxes.

    Returns:
        For each frame, as it is asked for, its fit, or what was wrong with it.

    Raises:
        InputError: the model cannot be used.
    """
    job = _Job.open(model, unit, config, resolution)
    if all(spec.per == "subject" for spec in job.model.field.latent_specs):
        raise InputError(f"{job.model.name} has no expressions to follow through a sequence; use one that has, or fit")
    held = subject_codes(held, job.model) if held else {}
    return _follow(job, frames, held)


def _follow(job: "_Job", frames: Iterable[Scan | InputError], held: Codes) -> Iterator[HeadFit | InputError]:
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


class _Prepared(NamedTuple):
    """A scan that is read and aligned."""

    scan: Scan
    given: Mesh
    used: Mesh
    points: Float[np.ndarray, "n 3"]
    explained: Float[np.ndarray, "m 3"]
    """Those of the points that the model is fitted to."""
    alignment: Alignment
    assumed: list[str]
    clock: Clock


@dataclass(frozen=True)
class _Job:
    """What the fits of one call share."""

    model: HeadModel
    unit: str | float
    config: FitConfig
    resolution: int

    @classmethod
    def open(
        cls, model: HeadModel | str | Path, unit: str | float, config: FitConfig | None, resolution: int
    ) -> "_Job":
        config = config or FitConfig()
        config.validate()
        millimetres_in(unit)
        model = model if isinstance(model, HeadModel) else load_model(model)
        Grid.over(np.array(model.field.bounds), resolution)
        return cls(model, unit, config, resolution)

    def prepare(
        self,
        scan: Scan,
        transform: Similarity | None = None,
        landmarks: Float[np.ndarray, "68 3"] | None = None,
        *,
        known_from: str = "the given transform",
    ) -> _Prepared:
        """Reads and aligns a scan, whose pose may be known."""
        clock = Clock()
        with clock("read"):
            unit = unit_of(scan, self.unit)
            given = read_scan(scan)
            rng = np.random.default_rng(self.config.seed)
            used = thin(given, MOST_POINTS, rng=rng)
            points = points_on(used, self.config.points, rng)
        with clock("align"):
            alignment = _align(points, unit, transform, landmarks, rng)
        explained = _to_explain(points, alignment)
        pose = "found from the surface" if transform is None else f"started from {known_from}"
        pose = pose if landmarks is None else "started from the given landmarks"
        assumed = say.assumptions(alignment, given, used, pose)
        return _Prepared(scan, given, used, points, explained, alignment, assumed, clock)

    def solve(
        self,
        prepared: Sequence[_Prepared],
        held: Codes,
        progress: Callable[[Iterable], Iterable],
        *,
        first: Codes | None = None,
        config: FitConfig | None = None,
    ) -> list[Solution]:
        """Codes and poses of scans of one person."""
        with prepared[0].clock("fit"):
            check_codes(self.model, held)
            return solve_together(
                self.model,
                [each.explained for each in prepared],
                [each.alignment.similarity for each in prepared],
                config or self.config,
                first=(first or {}) | held,
                held=held.keys(),
                progress=progress,
            )

    def follow(self, frame: Scan, last: HeadFit) -> HeadFit:
        """The frame after `last`."""
        prepared = self.prepare(frame, last.similarity, known_from="the frame before")
        subject = subject_codes(last.codes, self.model)
        steps = max(self.config.steps // 2, LAST_STEPS + 1)
        config = replace(self.config, steps=steps, prior_start=self.config.prior_start / 10)
        return self.finish(prepared, *self.solve([prepared], subject, iter, first=last.codes, config=config))

    def finish(self, prepared: _Prepared, solution: Solution) -> HeadFit:
        """Mesh, landmarks, verdict and report of a scan."""
        model, clock = self.model, prepared.clock
        used, points, alignment, similarity = prepared.used, prepared.points, prepared.alignment, solution.similarity
        with clock("extract"), torch.no_grad():
            conditioned = model.condition({name: table.to(model.device) for name, table in solution.codes.items()})
            extraction = extract_field(conditioned, model.field.bounds, resolution=self.resolution, device=model.device)
        with clock("measure"):
            mm_per_unit = _final_unit(alignment, similarity)
            mesh = extraction.mesh.transformed(similarity.inverse())
            distance_mm = distance_to_surface(used.vertices, mesh).distance * mm_per_unit
            evidence = find_evidence(mesh, used, distance_mm, mm_per_unit=mm_per_unit)
            colors, about_colors = carried_colors(evidence, used)
        with clock("landmarks"):
            canonical_mm = mm_per_unit / similarity.scale
            rest = at_rest(conditioned, extraction.mesh.vertices, device=model.device)
            registration = register_head(extraction.mesh, rest)
            registered = similarity.inverse().apply(registration.vertices)
            evidence_mm = evidence.distance_mm[
                NearestNeighbours(extraction.mesh.vertices).query(registration.vertices)[1]
            ]
        with clock("judge"):
            verdict = judge(
                similarity.apply(points),
                extraction.mesh,
                registration.coefficients,
                alignment,
                mm_per_unit=canonical_mm,
            )
        report = {
            "implicit3dmm": implicit3dmm.__version__,
            "model": model.name,
            "is_head": verdict.is_head,
            "head": say.describe_verdict(verdict),
            "scan": say.describe_scan(file_of(prepared.scan), prepared.given, used, mm_per_unit),
            "assumptions": prepared.assumed,
            "warnings": [*alignment.warnings, *cautions(extraction)],
            "alignment": say.describe_alignment(alignment, similarity, mm_per_unit),
            "fit": {
                "points": len(prepared.explained),
                "steps": len(solution.losses),
                "robust_rms_mm": say.rounded(np.sqrt(solution.losses[-1]) * canonical_mm),
                "code_norm": say.rounded(solution.code_norm),
            },
            "expression": say.describe_expression(model.field.latent_specs, solution.codes),
            "error": _scan_errors(points, mesh, similarity, mm_per_unit),
            "evidence": say.describe_evidence(evidence, extraction.mesh),
            "colors": about_colors,
            "landmarks": say.describe_landmarks(registered[template().landmarks], evidence_mm)
            if verdict.is_head
            else None,
            "measurements": (
                say.describe_measurements(registration.vertices, evidence_mm, canonical_mm) if verdict.is_head else None
            ),
            "mesh": say.describe_mesh(mesh, extraction, self.resolution),
            "seconds": clock.seconds(),
        }
        mesh = replace(mesh, colors=colors)
        return HeadFit(
            solution.codes, similarity, mesh, used, distance_mm, evidence, registered, verdict.is_head, report
        )


def _align(
    points: np.ndarray,
    unit: str | float,
    transform: Similarity | None,
    landmarks: np.ndarray | None,
    rng: np.random.Generator,
) -> Alignment:
    if landmarks is not None:
        transform = align_by_landmarks(landmarks, template_landmarks())
    if transform is None:
        return align_scan(points, alignment_target(), unit=unit, rng=rng)
    return known_pose(transform, unit=unit)


def _to_explain(points: np.ndarray, alignment: Alignment) -> np.ndarray:
    """The points that the model is fitted to; all of them where the pose is so wrong that hardly any lie on a head."""
    kept = on_head(alignment.similarity.apply(points), hair=alignment.hair)
    return points[kept] if kept.sum() >= MIN_SCAN_POINTS else points


def _final_unit(alignment: Alignment, similarity: Similarity) -> float:
    """Millimetres in a unit of the scan; where an average adult is assumed it follows from the final scale."""
    return UNIT_MM * similarity.scale if alignment.unit == "none" else alignment.mm_per_unit


def _scan_errors(points: np.ndarray, mesh: Mesh, similarity: Similarity, mm_per_unit: float) -> dict[str, Any]:
    """Distances of the scan's sample to the fit; neck, shoulders and points beyond `FAR_MM` are left out."""
    head = ~near_neck(similarity.apply(points))
    distances = distance_to_surface(points[head], mesh).distance * mm_per_unit
    near = distances < FAR_MM
    if not near.any():
        return {"left_out": 1.0}
    return distance_metrics(distances[near]) | {"left_out": say.rounded(1 - near.mean())}
