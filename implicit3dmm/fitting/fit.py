"""A raw scan in; codes, and a clean mesh in the scan's own frame, out."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

import implicit3dmm
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.metrics import distance_metrics
from implicit3dmm.extraction import cautions, extract
from implicit3dmm.fitting.config import FitConfig
from implicit3dmm.fitting.solver import solve
from implicit3dmm.fitting.target import alignment_target, near_neck, on_head, template_landmarks
from implicit3dmm.geometry.alignment import (
    Alignment,
    align_by_landmarks,
    align_scan,
    known_pose,
    millimetres_in,
)
from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.isosurface import Extraction
from implicit3dmm.geometry.mesh import MIN_SCAN_POINTS, Mesh, check_scan, mesh_from_arrays, read_mesh, thin
from implicit3dmm.geometry.mesh_arrays import MeshArrays
from implicit3dmm.geometry.narrow_band import Grid
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.latents import Codes
from implicit3dmm.models import HeadModel, load_model

Scan = str | Path | Mesh | Float[np.ndarray, "n 3"]

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
    """The fitted head, watertight, in the scan's own frame and unit."""
    scan: Mesh
    """The scan as it was used (thinned where it was larger)."""
    distance_mm: Float[np.ndarray, " n"]
    """Distance of each vertex of `scan` to the fitted surface, mm."""
    report: dict[str, Any]
    """All that is said of the fit; see docs/fit.md."""


def fit(
    scan: Scan,
    model: HeadModel | str | Path = "imhead",
    *,
    unit: str | float = "auto",
    transform: Similarity | None = None,
    landmarks: Float[np.ndarray, "68 3"] | None = None,
    config: FitConfig | None = None,
    resolution: int = 256,
    progress: Callable[[Iterable], Iterable] = iter,
) -> HeadFit:
    """Fits a model to a head scan: finds its pose, unit and codes from surface points alone.

    Args:
        scan: a file, a mesh, or points; in any pose and unit, whole or in part, with or without normals.
        model: a model, the name of a released one, or a weights file.
        unit: of the scan: "mm", "cm", "m", millimetres per unit, or "auto" to find it from the head's size.
        transform: scan to canonical, where it is known; pose and scale are then only refined.
        landmarks: the 68 iBUG landmarks in the scan's frame, rows of NaN where unknown; at least three.
        config: settings of the solver.
        resolution: cells along the longest side of the extracted mesh's box.
        progress: wraps the solver's steps, such as `tqdm`.

    Raises:
        InputError: the scan or the model cannot be used, or the pose was given twice.
    """
    if transform is not None and landmarks is not None:
        raise InputError("a transform and landmarks are given; either one fixes the pose; give one of them")
    config = config or FitConfig()
    config.validate()
    millimetres_in(unit)
    clock = _Clock()
    with clock("read"):
        model = model if isinstance(model, HeadModel) else load_model(model)
        Grid.over(np.array(model.field.bounds), resolution)
        given = _read(scan)
        rng = np.random.default_rng(config.seed)
        used = thin(given, MOST_POINTS, rng=rng)
        points = _points_on(used, config.points, rng)
    with clock("align"):
        alignment = _align(points, unit, transform, landmarks, rng)
    with clock("fit"):
        explained = _to_explain(points, alignment.similarity)
        solution = solve(model, explained, alignment.similarity, config, progress=progress)
    with clock("extract"):
        extraction = extract(model, solution.codes, resolution=resolution)
    with clock("measure"):
        mm_per_unit = _final_unit(alignment, solution.similarity)
        mesh = extraction.mesh.transformed(solution.similarity.inverse())
        distance_mm = distance_to_surface(used.vertices, mesh).distance * mm_per_unit
        errors = _scan_errors(points, mesh, solution.similarity, mm_per_unit)
    report = {
        "implicit3dmm": implicit3dmm.__version__,
        "model": model.name,
        "scan": _describe_scan(scan, given, used, mm_per_unit),
        "assumptions": _assumptions(alignment, given, used, transform, landmarks),
        "warnings": [*alignment.warnings, *cautions(extraction)],
        "alignment": _describe_alignment(alignment, solution.similarity, mm_per_unit),
        "fit": {
            "points": len(explained),
            "steps": config.steps,
            "robust_rms_mm": _round(np.sqrt(solution.losses[-1]) / solution.similarity.scale * mm_per_unit),
            "code_norm": _round(solution.code_norm),
        },
        "error": errors,
        "mesh": _describe_mesh(mesh, extraction, resolution),
        "seconds": clock.seconds(),
    }
    return HeadFit(solution.codes, solution.similarity, mesh, used, distance_mm, report)


def _read(scan: Scan) -> Mesh:
    if isinstance(scan, np.ndarray):
        mesh = mesh_from_arrays(MeshArrays(scan), source="the points")
    elif isinstance(scan, Mesh):
        arrays = MeshArrays(scan.vertices, scan.faces, scan.normals, scan.colors)
        mesh = mesh_from_arrays(arrays, source="the scan")
    else:
        mesh = read_mesh(scan)
    check_scan(mesh)
    return mesh


def _points_on(scan: Mesh, count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    if scan.faces is not None:
        return sample_surface(scan, count, rng=rng).points
    return thin(scan, count, rng=rng).vertices


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


def _to_explain(points: np.ndarray, similarity: Similarity) -> np.ndarray:
    """The points that the model is fitted to; all of them where the pose is so wrong that hardly any lie on a head."""
    kept = on_head(similarity.apply(points))
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
    return distance_metrics(distances[near]) | {"left_out": _round(1 - near.mean())}


def _describe_scan(scan: Scan, given: Mesh, used: Mesh, mm_per_unit: float) -> dict[str, Any]:
    return {
        "file": str(scan) if isinstance(scan, str | Path) else None,
        "points": len(given.vertices),
        "faces": 0 if given.faces is None else len(given.faces),
        "used_points": len(used.vertices),
        "extent_mm": [_round(side * mm_per_unit) for side in np.ptp(given.bounds(), axis=0)],
    }


def _assumptions(
    alignment: Alignment, given: Mesh, used: Mesh, transform: Similarity | None, landmarks: np.ndarray | None
) -> list[str]:
    unit = f"one unit of the scan is {alignment.mm_per_unit:.4g} mm ({alignment.unit})"
    if alignment.unit == "none":
        unit = "the scan's unit is unknown: an average adult was assumed, so millimetres are relative to one"
    pose = "pose found from the surface" if transform is None else "pose started from the given transform"
    said = [unit, "pose started from the given landmarks" if landmarks is not None else pose]
    if len(used.vertices) < len(given.vertices):
        said.append(f"the scan's {len(given.vertices)} points were thinned to {len(used.vertices)}")
    return said


def _describe_alignment(alignment: Alignment, similarity: Similarity, mm_per_unit: float) -> dict[str, Any]:
    """How the scan lies after the fit, and how sure the search was."""
    return {
        "unit": alignment.unit,
        "mm_per_unit": _round(mm_per_unit),
        "size": _round(mm_per_unit / (UNIT_MM * similarity.scale)),
        "score": _or_none(alignment.score),
        "runner_up": _or_none(alignment.runner_up),
        "plausible": bool(alignment.is_plausible),
        "to_canonical": similarity.matrix().tolist(),
    }


def _describe_mesh(mesh: Mesh, extraction: Extraction, resolution: int) -> dict[str, Any]:
    return {
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "watertight": mesh.is_watertight(),
        "resolution": resolution,
        "evaluations": extraction.evaluations,
        "share_of_dense": _round(extraction.share),
        "lipschitz_bound": extraction.lipschitz,
        "steepest_seen": _round(extraction.steepest),
    }


def _round(value: float) -> float:
    return float(f"{float(value):.4g}")


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else _round(value)


class _Clock:
    """Wall and processor seconds of named stages."""

    def __init__(self):
        self._started = time.monotonic(), time.process_time()
        self._stages: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._stages[stage] = time.monotonic() - started

    def seconds(self) -> dict[str, float]:
        wall, cpu = time.monotonic() - self._started[0], time.process_time() - self._started[1]
        return {name: round(value, 2) for name, value in (self._stages | {"total": wall, "processor": cpu}).items()}
