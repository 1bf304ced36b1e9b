"""A scan's way to a fit, stage by stage: read and align, solve, finish."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

import implicit3dmm
from implicit3dmm.data.average_head import alignment_target, near_neck, on_head, template, template_landmarks
from implicit3dmm.evaluation.metrics import distance_metrics
from implicit3dmm.extraction import at_rest, cautions, extract_field, on_template
from implicit3dmm.fitting import report as say
from implicit3dmm.fitting.clock import Clock
from implicit3dmm.fitting.config import FitConfig
from implicit3dmm.fitting.evidence import carried_colors, find_evidence
from implicit3dmm.fitting.head_fit import HeadFit
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


class Prepared(NamedTuple):
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
class FitJob:
    """What the fits of one call share."""

    model: HeadModel
    unit: str | float
    config: FitConfig
    resolution: int

    @classmethod
    def open(
        cls, model: HeadModel | str | Path, unit: str | float, config: FitConfig | None, resolution: int
    ) -> "FitJob":
        """Checks the settings and loads the model, before any scan is read.

        Raises:
            InputError: the model cannot be used, or a setting is out of range.
        """
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
    ) -> Prepared:
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
        return Prepared(scan, given, used, points, explained, alignment, assumed, clock)

    def solve(
        self,
        prepared: Sequence[Prepared],
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

    def finish(self, prepared: Prepared, solution: Solution) -> HeadFit:
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
            known = on_template(conditioned, extraction.mesh.vertices, device=model.device)
            registration = register_head(extraction.mesh, rest, known)
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
