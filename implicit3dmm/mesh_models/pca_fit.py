"""Fit of a PCA model to loose points of a head: no correspondence, no normals, any pose and unit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.average_head import alignment_target, on_head
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.alignment import Alignment, align_scan, known_pose
from implicit3dmm.geometry.mesh import MIN_SCAN_POINTS, Mesh, check_scan, mesh_from_arrays, thin
from implicit3dmm.geometry.mesh_arrays import MeshArrays
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.mesh_models.pca import PCAModel
from implicit3dmm.mesh_models.pca_solver import PCASolution, solve_pca


@dataclass(frozen=True)
class PCAFitConfig:
    """How coefficients and pose are found from surface points."""

    seed: int = 0
    """Seed of the choice of points."""
    points: int = 10000
    """Points of the scan that are used."""
    robust_start: float = 0.05
    """Distance, canonical units, beyond which a point starts to lose its say at the first step (10 mm)."""
    robust_end: float = 0.01
    """The same at the last step (2 mm), or three times the residuals' standard deviation where that is more."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}; give 0 to 2^63 - 1")
        if self.points < MIN_SCAN_POINTS:
            raise InputError(f"points is {self.points}; give at least {MIN_SCAN_POINTS}")
        if not 0 < self.robust_end <= self.robust_start:
            raise InputError("robust_start and robust_end must be above 0, the end at most the start")


@dataclass(frozen=True, eq=False)
class PCAFit:
    """A head of a PCA model, fitted to a scan."""

    coefficients: Float[np.ndarray, " k"]
    """Standard deviations of the training heads."""
    similarity: Similarity
    """From the scan's frame to the canonical frame."""
    mesh: Mesh
    """The fitted head, closed, in the scan's own frame and unit."""
    report: dict[str, Any]
    """Model, unit, warnings, and how well the points are explained; see docs/baselines.md."""


def fit_pca(
    points: Float[np.ndarray, "n 3"],
    model: PCAModel,
    *,
    unit: str | float = "auto",
    transform: Similarity | None = None,
    config: PCAFitConfig | None = None,
) -> PCAFit:
    """Finds pose, unit and coefficients from surface points alone.

    The pose starts where the fields' fit starts it: the scan is aligned to the average head, and the points that are
    no head are left out. See `solve_pca` for what follows.

    Args:
        points: on the surface, in any pose and unit, whole or in part, with noise, shoulders and strays.
        model: the model to fit.
        unit: of the points, as in `align_scan`.
        transform: scan to canonical, where it is known; pose and scale are then only refined.
        config: settings.

    Raises:
        InputError: the points are too few, flat or not finite, or a setting is out of range.
    """
    config = config or PCAFitConfig()
    config.validate()
    scan = mesh_from_arrays(MeshArrays(points), source="the points")
    check_scan(scan)
    rng = np.random.default_rng(config.seed)
    used = thin(scan, config.points, rng=rng).vertices
    if transform is None:
        alignment = align_scan(used, alignment_target(), unit=unit, rng=rng)
    else:
        alignment = known_pose(transform, unit=unit)
    kept = on_head(alignment.similarity.apply(used), hair=alignment.hair)
    explained = used[kept] if kept.sum() >= MIN_SCAN_POINTS else used
    solution = solve_pca(
        model, explained, alignment.similarity, robust=(config.robust_start, config.robust_end), rng=rng
    )
    return PCAFit(
        coefficients=solution.coefficients,
        similarity=solution.similarity,
        mesh=model.mesh(solution.coefficients).transformed(solution.similarity.inverse()),
        report=_report(model, alignment, solution, len(explained)),
    )


def _report(model: PCAModel, alignment: Alignment, solution: PCASolution, points: int) -> dict[str, Any]:
    scale = solution.similarity.scale
    mm_per_unit = UNIT_MM * scale if alignment.unit == "none" else alignment.mm_per_unit
    return {
        "model": model.name,
        "unit": alignment.unit,
        "mm_per_unit": mm_per_unit,
        "plausible": bool(alignment.is_plausible),
        "warnings": list(alignment.warnings),
        "points": points,
        "residual_mm": solution.residual / scale * mm_per_unit,
        "parameters": solution.parameters,
        "coefficient_norm": float(np.sqrt(np.square(solution.coefficients).mean())),
        "to_canonical": solution.similarity.matrix().tolist(),
    }
