"""Non-rigid registration of a PCA model: closest points on its surface, Gauss-Newton over shape and pose together."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import igl
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.spatial.transform import Rotation

from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.mesh_models.pca import PCAModel

POSE = 7
"""Unknowns of a pose step: rotation vector, logarithm of the scale, shift."""


class Stage(NamedTuple):
    """Some steps with the first components alone and a part of the points; None for all."""

    components: int | None
    points: int | None
    steps: int


STAGES = (Stage(16, 2000, 5), Stage(64, 4000, 6), Stage(None, None, 9))
"""Coarse to fine: the first components find the place of the others. Steps after these change nothing that shows."""

WIDEST = 3.0
"""The robust scale is at least so many standard deviations of the residuals: noise alone leaves no point out."""

LEAST_FREEDOM = 0.05
"""Share of the points that counts as degrees of freedom at least, where there are hardly more points than unknowns."""

LEAST_RESIDUAL = 1e-6
"""Canonical units, 0.2 micrometres: no scan is truer than this."""

LEAP = (0.2, 0.1, 0.2)
"""Most that a step may turn (radians), scale (logarithm) and shift (canonical units): what linearisation bears."""


@dataclass(frozen=True, eq=False)
class PCASolution:
    """What the solver found.

    Attributes:
        coefficients: standard deviations of the training heads.
        similarity: from the scan's frame to the canonical frame.
        residual: standard deviation of the distances along normals, strays aside, canonical units.
        parameters: how many of the unknowns the points determine, the others being the prior's.
    """

    coefficients: Float[np.ndarray, " k"]
    similarity: Similarity
    residual: float
    parameters: float


def solve_pca(
    model: PCAModel,
    points: Float[np.ndarray, "n 3"],
    start: Similarity,
    *,
    robust: tuple[float, float],
    rng: np.random.Generator,
) -> PCASolution:
    """Minimises robust point-to-plane distances plus the prior over coefficients u and pose.

    The objective is sum_i rho(r_i) / s^2 + |u|^2, twice the negative logarithm of the posterior for residuals of
    variance s^2. The variance is found on the way, as the residuals' sum of squares over the number of points less that
    of the unknowns that they determine (MacKay, "Bayesian interpolation", 1992): the more noise and the fewer points,
    the more the prior decides, and without noise it decides only what no point tells. rho is the Geman-McClure function
    r^2 / (1 + r^2 / c^2).

    Distances are those that the scan's own unit shows: else noise could be explained by shrinking the scan.

    Args:
        model: the model to fit.
        points: on the surface, in the scan's frame, any unit.
        start: scan to canonical, within some 20 degrees.
        robust: scale of rho at the first and at the last step, canonical units.
        rng: chooses the points of the coarse stages.
    """
    state = PCASolution(np.zeros(0), start, residual=0.0, parameters=0.0)
    scales = iter(np.geomspace(*robust, sum(stage.steps for stage in STAGES)))
    for stage in STAGES:
        basis = np.ascontiguousarray(model.basis[:, : stage.components])
        added = basis.shape[1] - len(state.coefficients)
        state = replace(state, coefficients=np.pad(state.coefficients, (0, added)))
        chosen = points[rng.permutation(len(points))[: stage.points]]
        for _ in range(stage.steps):
            state = _step(model, basis, chosen, state, next(scales))
    return state


class _Rows(NamedTuple):
    """Distances of the points along the normals of their closest places, and how they change."""

    residual: Float[np.ndarray, " n"]
    squared_distance: Float[np.ndarray, " n"]
    jacobian: Float[np.ndarray, "n c"]
    """By the pose step, then by the coefficients."""


def _step(
    model: PCAModel,
    basis: Float[np.ndarray, "c k"],
    points: Float[np.ndarray, "n 3"],
    state: PCASolution,
    scale: float,
) -> PCASolution:
    """One Gauss-Newton step of the robustly weighted problem."""
    vertices = (model.mean.ravel() + basis @ state.coefficients.astype(basis.dtype)).reshape(-1, 3)
    rows = _linearised(Mesh(vertices, model.skin), basis, state.similarity.apply(points))
    scale = max(scale, WIDEST * state.residual)
    root_weight = 1 / (1 + rows.squared_distance / scale**2)
    columns = np.column_stack([rows.jacobian, rows.residual]) * root_weight[:, None]
    products = columns.T @ columns
    count = np.square(root_weight).sum()
    freedom = max(count - state.parameters, LEAST_FREEDOM * count)
    residual = max(float(np.sqrt(products[-1, -1] / freedom)), LEAST_RESIDUAL)
    products /= residual**2
    matrix, slope = products[:-1, :-1], products[:-1, -1]
    slope[POSE:] += state.coefficients
    matrix[np.diag_indices(POSE)] *= 1 + 1e-6
    shape = np.arange(POSE, len(matrix))
    matrix[shape, shape] += 1
    covariance = np.linalg.inv(matrix)
    change = -covariance @ slope
    return PCASolution(
        coefficients=state.coefficients + change[POSE:],
        similarity=_moved(change[:POSE]).compose(state.similarity),
        residual=residual,
        parameters=float(len(matrix) - covariance[shape, shape].sum()),
    )


def _linearised(surface: Mesh, basis: Float[np.ndarray, "c k"], placed: Float[np.ndarray, "n 3"]) -> _Rows:
    """Point-to-plane distances to a surface whose vertices move along `basis`, the points held by a pose."""
    nearest = distance_to_surface(placed, surface)
    normals = surface.face_normals()[nearest.face]
    residual = np.einsum("nx,nx->n", placed - nearest.point, normals)
    # Rows of a sparse matrix on the basis: only the three corners of each point's triangle are read.
    corners = surface.faces[nearest.face]
    shares = _barycentric(surface, corners, nearest.point)
    along = -(shares[:, :, None] * normals[:, None]).reshape(-1).astype(basis.dtype)
    coordinates = (3 * corners[:, :, None] + np.arange(3)).reshape(-1)
    pick = csr_array((along, coordinates, np.arange(0, len(along) + 1, 9)), shape=(len(placed), len(basis)))
    # Growth about the surface, not about the point, is what the scan's unit sees of a change of scale.
    growth = np.einsum("nx,nx->n", nearest.point, normals)
    pose = (np.cross(placed, normals), growth, normals)
    return _Rows(residual, np.square(nearest.distance), np.column_stack([*pose, pick @ basis]))


def _barycentric(
    surface: Mesh, corners: Int[np.ndarray, "n 3"], places: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """Shares of the corners in places on their triangles; even ones where a triangle has no area."""
    triangles = (np.ascontiguousarray(surface.vertices[corners[:, corner]]) for corner in range(3))
    shares = igl.barycentric_coordinates(np.ascontiguousarray(places), *triangles)
    return np.where(np.isfinite(shares), shares, 1 / 3)


def _moved(change: Float[np.ndarray, "7"]) -> Similarity:
    turn, growth, shift = LEAP
    rotation = Rotation.from_rotvec(np.clip(change[:3], -turn, turn)).as_matrix()
    return Similarity(np.exp(np.clip(change[3], -growth, growth)), rotation, np.clip(change[4:], -shift, shift))
