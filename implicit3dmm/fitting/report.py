"""What is said of a fit: one function for each part of the report, see docs/fit.md."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.average_head import near_neck, template
from implicit3dmm.fitting.evidence import NEAR_MM, Evidence
from implicit3dmm.fitting.verdict import MOST_DOUBT, Verdict
from implicit3dmm.geometry.alignment import Alignment
from implicit3dmm.geometry.isosurface import Extraction
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.measurements import measure_head
from implicit3dmm.latents import Codes, LatentSpec

LEAST_WEIGHT = 0.02
"""Expression units of smaller weights are left out of the report."""


def describe_scan(file: str | None, given: Mesh, used: Mesh, mm_per_unit: float) -> dict[str, Any]:
    """What was read, and how much of it was used."""
    return {
        "file": file,
        "points": len(given.vertices),
        "faces": 0 if given.faces is None else len(given.faces),
        "used_points": len(used.vertices),
        "extent_mm": [rounded(side * mm_per_unit) for side in np.ptp(given.bounds(), axis=0)],
    }


def assumptions(alignment: Alignment, given: Mesh, used: Mesh, pose: str) -> list[str]:
    """Sentences on what was not known and had to be taken for granted; `pose` says where it is from."""
    unit = f"one unit of the scan is {alignment.mm_per_unit:.4g} mm ({alignment.unit})"
    if alignment.unit == "none":
        unit = "the scan's unit is unknown: an average adult was assumed, so millimetres are relative to one"
    said = [unit, f"pose {pose}"]
    if len(used.vertices) < len(given.vertices):
        said.append(f"the scan's {len(given.vertices)} points were thinned to {len(used.vertices)}")
    return said


def describe_alignment(alignment: Alignment, similarity: Similarity, mm_per_unit: float) -> dict[str, Any]:
    """How the scan lies after the fit, and how sure the search was."""
    return {
        "unit": alignment.unit,
        "mm_per_unit": rounded(mm_per_unit),
        "size": rounded(mm_per_unit / (UNIT_MM * similarity.scale)),
        "score": _or_none(alignment.score),
        "runner_up": _or_none(alignment.runner_up),
        "plausible": bool(alignment.is_plausible),
        "to_canonical": similarity.matrix().tolist(),
    }


def describe_verdict(verdict: Verdict) -> dict[str, Any]:
    """The doubt that the scan is a head, and its signs; with a reason where it is none."""
    said = {
        "doubt": rounded(verdict.doubt),
        "most": MOST_DOUBT,
        "residual_mm": rounded(verdict.residual_mm),
        "shape": rounded(verdict.shape),
        "orientation": rounded(verdict.orientation),
    }
    return said if verdict.is_head else said | {"reason": verdict.reason}


def describe_expression(specs: Sequence[LatentSpec], codes: Codes) -> dict[str, float] | None:
    """Weights of named expression units, those that are not nearly zero; None where the model has none."""
    spec = next((spec for spec in specs if spec.names), None)
    if spec is None:
        return None
    weights = dict(zip(spec.names, codes[spec.name][0].tolist(), strict=True))
    return {name: rounded(weight) for name, weight in weights.items() if abs(weight) >= LEAST_WEIGHT}


def describe_evidence(evidence: Evidence, surface: Mesh) -> dict[str, float]:
    """Share of the fitted surface above the neck that has evidence near it, and its mean confidence.

    Args:
        evidence: for each vertex.
        surface: the fitted head in the canonical frame.
    """
    areas = np.bincount(surface.faces.ravel(), np.repeat(surface.face_areas(), 3), minlength=len(surface.vertices))
    areas[near_neck(surface.vertices)] = 0
    near = np.average(evidence.distance_mm <= NEAR_MM, weights=areas)
    return {
        f"within@{NEAR_MM:g}mm": rounded(near),
        "confidence": rounded(np.average(evidence.confidence, weights=areas)),
    }


def describe_landmarks(landmarks: Float[np.ndarray, "68 3"], evidence_mm: Float[np.ndarray, " v"]) -> dict[str, Any]:
    """The 68 iBUG landmarks in the scan's frame, and how far the evidence for each is.

    Args:
        landmarks: in the scan's frame.
        evidence_mm: at each of the template's vertices.
    """
    return {
        "points": landmarks.tolist(),
        "evidence_mm": [_or_none(distance) for distance in evidence_mm[template().landmarks]],
    }


def describe_measurements(
    vertices: Float[np.ndarray, "v 3"], evidence_mm: Float[np.ndarray, " v"], mm_per_unit: float
) -> dict[str, Any]:
    """The measurements in mm, each with the distance of the evidence from the worst of its ends.

    Args:
        vertices: of the template on the fitted surface, canonical units.
        evidence_mm: at each of them.
        mm_per_unit: millimetres in a canonical unit.
    """
    return {
        name: {
            "mm": rounded(measured.value * mm_per_unit),
            "evidence_mm": _or_none(evidence_mm[measured.vertices].max()),
        }
        for name, measured in measure_head(vertices, template()).items()
    }


def describe_mesh(mesh: Mesh, extraction: Extraction, resolution: int) -> dict[str, Any]:
    """The mesh, and what it took to extract it."""
    return {
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "watertight": mesh.is_watertight(),
        "resolution": resolution,
        "evaluations": extraction.evaluations,
        "share_of_dense": rounded(extraction.share),
        "lipschitz_bound": extraction.lipschitz,
        "steepest_seen": rounded(extraction.steepest),
    }


def rounded(value: float) -> float:
    """Four digits, which no scan is truer than."""
    return float(f"{float(value):.4g}")


def _or_none(value: float) -> float | None:
    return rounded(value) if np.isfinite(value) else None
