"""Refinement of one pose of a scan against a template that deforms along a few shape modes."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from implicit3dmm.geometry.alignment_target import AlignmentTarget
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.pointcloud import OrientedCloud
from implicit3dmm.geometry.pose_search import overlap_score
from implicit3dmm.geometry.similarity import Similarity

# First and last width of the robust kernel and number of steps.
WIDTHS = np.geomspace(0.06, 0.03, 15)
# Points of either cloud that take part in a step.
POINTS = 2000
# The refinement takes the surfaces for this many independent measurements of this standard deviation
# (canonical units: 3 mm), against which the shape modes have their prior.
MEASUREMENTS = 200.0
DEVIATION = 0.015
SCORE_WIDTH = 0.03
# Points of the scan closer to the surface than this are inliers: 10 mm of an average adult.
INLIER_DISTANCE = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class RefinedPose:
    """A pose, the shape that was found with it, and how well the two fit.

    Attributes:
        similarity: from the scan to the canonical frame.
        coefficients: (k,) of the shape modes, in standard deviations.
        score: `overlap_score` of the scan and the deformed template.
        residual: median distance of the inliers to the surface, canonical units.
        inlier_share: share of the scan's points, those next to the neck aside, that are inliers.
    """

    similarity: Similarity
    coefficients: Float[np.ndarray, " k"]
    score: float
    residual: float
    inlier_share: float


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """Linearised distances between the scan and the template along normals, all in the canonical frame.

    Attributes:
        point: (n, 3) of the scan.
        partner: (n, 3) of the deformed template.
        normal: (n, 3) of the surface that is approached.
        modes: (n, k) motion of the partner along that normal for one standard deviation of each mode.
        weight: (n,) before the robust kernel.
        template: (n,) which point of the template.
    """

    point: np.ndarray
    partner: np.ndarray
    normal: np.ndarray
    modes: np.ndarray
    weight: np.ndarray
    template: np.ndarray

    def squared_distance(self) -> np.ndarray:
        return np.square(self.point - self.partner).sum(axis=1)

    def residual(self) -> np.ndarray:
        return ((self.point - self.partner) * self.normal).sum(axis=1)


def refine_pose(
    scan: OrientedCloud,
    target: AlignmentTarget,
    start: Similarity,
    *,
    scale_range: tuple[float, float],
    rng: np.random.Generator,
) -> RefinedPose:
    """Finds pose and mode coefficients together, by Gauss-Newton steps on distances along normals.

    Minimises, over the similarity and the coefficients c, the Geman-McClure weighted mean of the squared
    point-to-plane distances both ways (scan to template and template to scan) plus |c|^2, the negative
    logarithm of the modes' normal prior.

    Args:
        scan: the scan, in the frame that `start` maps from.
        target: the average head and its modes.
        start: within some 30 degrees of the answer.
        scale_range: smallest and largest scale.
        rng: chooses the points that take part.
    """
    scan_points = rng.choice(len(scan.points), min(POINTS, len(scan.points)), replace=False)
    template_points = rng.choice(len(target.points), min(POINTS, len(target.points)), replace=False)
    pose, coefficients = start, np.zeros(len(target.modes))
    for width in WIDTHS:
        deformed = target.deformed(coefficients)
        partners = target.cloud.closest(pose.apply(scan.points[scan_points]))
        forward = _scan_to_template(scan, target, deformed, pose, scan_points, partners)
        partners = scan.closest(pose.inverse().apply(deformed[template_points]))
        backward = _template_to_scan(scan, target, deformed, pose, template_points, partners)
        pose, coefficients = _step((forward, backward), pose, coefficients, width, scale_range)
    return _judge(scan, target, pose, coefficients)


def _scan_to_template(
    scan: OrientedCloud,
    target: AlignmentTarget,
    deformed: Float[np.ndarray, "m 3"],
    pose: Similarity,
    chosen: Int[np.ndarray, " n"],
    partners: Int[np.ndarray, " n"],
) -> _Rows:
    points = pose.apply(scan.points[chosen])
    normals = target.normals[partners]
    agreement = np.abs((pose.apply_to_normals(scan.normals[chosen]) * normals).sum(axis=1))
    weight = target.weights[partners] * agreement
    return _Rows(points, deformed[partners], normals, target.modes.T[partners], weight, partners)


def _template_to_scan(
    scan: OrientedCloud,
    target: AlignmentTarget,
    deformed: Float[np.ndarray, "m 3"],
    pose: Similarity,
    chosen: Int[np.ndarray, " n"],
    partners: Int[np.ndarray, " n"],
) -> _Rows:
    normals = pose.apply_to_normals(scan.normals[partners])
    cosine = (normals * target.normals[chosen]).sum(axis=1)
    modes = cosine[:, None] * target.modes.T[chosen]
    weight = target.weights[chosen] * np.abs(cosine)
    return _Rows(pose.apply(scan.points[partners]), deformed[chosen], normals, modes, weight, chosen)


def _step(
    ways: tuple[_Rows, _Rows],
    pose: Similarity,
    coefficients: Float[np.ndarray, " k"],
    width: float,
    scale_range: tuple[float, float],
) -> tuple[Similarity, Float[np.ndarray, " k"]]:
    """One Gauss-Newton step in rotation vector, logarithm of the scale, translation and coefficients."""
    count = len(coefficients)
    products = sum(_weighted_products(rows, width) for rows in ways)
    normal_matrix, gradient = products[:-1, :-1], products[:-1, -1]
    normal_matrix[:7, :7] += np.eye(7) * (1e-3 * np.trace(normal_matrix[:7, :7]) / 7)
    normal_matrix[7:, 7:] += np.eye(count)
    gradient[7:] += coefficients
    change = -np.linalg.solve(normal_matrix, gradient)
    # A far start may ask for a leap that the linearisation does not bear.
    turn = Rotation.from_rotvec(np.clip(change[:3], -0.3, 0.3)).as_matrix()
    scale = np.clip(pose.scale * np.exp(np.clip(change[3], -0.15, 0.15)), *scale_range)
    move = Similarity(scale / pose.scale, turn, np.clip(change[4:7], -0.3, 0.3))
    return move.compose(pose), coefficients + change[7:]


def _weighted_products(rows: _Rows, width: float) -> Float[np.ndarray, "c c"]:
    """Products of the columns (Jacobian, residual) with one another, under the robust weights."""
    kernel = 1 / np.square(1 + rows.squared_distance() / width**2)
    weight = rows.weight * kernel * (MEASUREMENTS / DEVIATION**2 / 2 / len(kernel))
    growth = (rows.point * rows.normal).sum(axis=1)
    arm = np.cross(rows.point, rows.normal)
    columns = np.column_stack([arm, growth, rows.normal, -rows.modes, rows.residual()])
    columns *= np.sqrt(weight)[:, None]
    # Blocks this small stay on one thread: on a busy machine two would mostly wait for one another.
    return sum(block.T @ block for block in np.array_split(columns, 1 + len(columns) // 200))


def _judge(
    scan: OrientedCloud, target: AlignmentTarget, pose: Similarity, coefficients: Float[np.ndarray, " k"]
) -> RefinedPose:
    """Scores a pose on all points, with their true closest points."""
    deformed = target.deformed(coefficients)
    moved = pose.apply(scan.points)
    partners = NearestNeighbours(deformed).query(moved)[1]
    forward = _scan_to_template(scan, target, deformed, pose, np.arange(len(moved)), partners)
    partners = NearestNeighbours(moved).query(deformed)[1]
    backward = _template_to_scan(scan, target, deformed, pose, np.arange(len(deformed)), partners)
    counts = target.score_weights[forward.template] > 0
    # A sparse scan lies no closer to the template's points than its own points lie to one another.
    spacing = np.median(NearestNeighbours(moved).query(moved, 2)[0][:, 1])
    score = overlap_score(
        forward.squared_distance(),
        forward.weight / target.weights[forward.template],
        counts,
        np.maximum(backward.squared_distance() - spacing**2, 0),
        backward.weight / target.weights,
        target.score_weights,
        width=SCORE_WIDTH,
    )
    inlier = counts & (forward.squared_distance() < INLIER_DISTANCE**2)
    residual = np.median(np.abs(forward.residual()[inlier])) if inlier.any() else np.inf
    share = inlier.sum() / max(counts.sum(), 1)
    return RefinedPose(pose, coefficients, float(score), float(residual), float(share))
