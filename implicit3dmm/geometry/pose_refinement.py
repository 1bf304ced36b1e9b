"""Refinement of one pose of a scan against a template that deforms along a few shape modes."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from implicit3dmm.geometry.alignment_target import AlignmentTarget
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.pointcloud import OrientedCloud
from implicit3dmm.geometry.pose_search import overlap_score
from implicit3dmm.geometry.similarity import Similarity

SCORE_WIDTH = 0.03
# Points of the scan closer to the surface than this are inliers: 10 mm of an average adult.
INLIER_DISTANCE = 0.05
# What lies on a place where hair may be is a place of the scan that is no further beside it, 10 mm, nor over or under
# it, 80 mm.
BESIDE = 0.05
HIGHEST = 0.4


@dataclasses.dataclass(frozen=True)
class Refinement:
    """How a pose is refined.

    Attributes:
        modes: how many shape modes take part.
        points: how many of either cloud take part.
        steps: Gauss-Newton steps.
        width: (first, last) width of the robust kernel, canonical units.
        measurements: the surfaces are taken for so many independent measurements ...
        deviation: ... of this standard deviation, canonical units, against which the modes have their prior.
    """

    modes: int
    points: int
    steps: int
    width: tuple[float, float]
    measurements: float
    deviation: float


# For candidates some 30 degrees away, and for the answer. What the modes do not describe of a person is shared by
# whole areas, so the points count as few: a front half tells the scale by its shape alone, and the more it is trusted,
# the surer, but the wronger where a person is unlike the heads that the modes are from.
ROUGH = Refinement(modes=20, points=1000, steps=12, width=(0.06, 0.03), measurements=200.0, deviation=0.015)
FINE = Refinement(modes=60, points=2000, steps=8, width=(0.04, 0.03), measurements=500.0, deviation=0.01)


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
class _Pairs:
    """Places of the scan and of the template that lie next to one another, in the canonical frame.

    Attributes:
        point: (n, 3) of the scan.
        partner: (n, 3) of the deformed template.
        normal: (n, 3) of the surface that is approached.
        template: (n,) which point of the template.
        cosine: (n,) between `normal` and the template's; how far the partner moves along it with the modes.
        agreement: (n,) |cosine| between the normals of the two surfaces, in [0, 1].
    """

    point: np.ndarray
    partner: np.ndarray
    normal: np.ndarray
    template: np.ndarray
    cosine: np.ndarray
    agreement: np.ndarray

    def squared_distance(self) -> np.ndarray:
        return np.square(self.point - self.partner).sum(axis=1)

    def residual(self) -> np.ndarray:
        return ((self.point - self.partner) * self.normal).sum(axis=1)


def refine_pose(
    scan: OrientedCloud,
    target: AlignmentTarget,
    start: Similarity,
    *,
    refinement: Refinement,
    scale_range: tuple[float, float],
    rng: np.random.Generator,
    bare: bool = False,
) -> RefinedPose:
    """Finds pose and mode coefficients together, by Gauss-Newton steps on distances along normals.

    Minimises, over the similarity and the coefficients c, the Geman-McClure weighted mean of the squared
    point-to-plane distances both ways (scan to template and template to scan) plus |c|^2, the negative
    logarithm of the modes' normal prior.

    Args:
        scan: the scan, in the frame that `start` maps from.
        target: the average head and its modes.
        start: within some 30 degrees of the answer.
        refinement: `ROUGH` or `FINE`.
        scale_range: smallest and largest scale.
        rng: chooses the points that take part.
        bare: leaves out what hair may cover.
    """
    scan_points = rng.choice(len(scan.points), min(refinement.points, len(scan.points)), replace=False)
    template_points = rng.choice(len(target.points), min(refinement.points, len(target.points)), replace=False)
    weights = target.bare_weights if bare else target.weights
    modes = target.modes[: refinement.modes].T
    pose, coefficients = start, np.zeros(modes.shape[1])
    for width in np.geomspace(*refinement.width, refinement.steps):
        deformed = target.deformed(coefficients)
        partners = target.cloud.closest(pose.apply(scan.points[scan_points]))
        forward = _scan_to_template(scan, target, deformed, pose, scan_points, partners)
        partners = scan.closest(pose.inverse().apply(deformed[template_points]))
        backward = _template_to_scan(scan, target, deformed, pose, template_points, partners)
        products = _products(forward, weights, modes, width) + _products(backward, weights, modes, width)
        products *= refinement.measurements / refinement.deviation**2 / 2
        pose, coefficients = _step(products, pose, coefficients, scale_range)
    return _judge(scan, target, pose, coefficients)


def heights_over(
    scan: OrientedCloud, target: AlignmentTarget, pose: RefinedPose, places: Bool[np.ndarray, " m"]
) -> Float[np.ndarray, " h"]:
    """How far the scan lies outside the head that was found, at some of the target's points, canonical units.

    Places that the scan does not show are left out.
    """
    points = target.deformed(pose.coefficients)[places]
    nearest = scan.closest(pose.similarity.inverse().apply(points))
    away = pose.similarity.apply(scan.points[nearest]) - points
    normals = target.normals[places]
    heights = (away * normals).sum(axis=1)
    beside = np.linalg.norm(away - heights[:, None] * normals, axis=1)
    return heights[(beside < BESIDE) & (np.abs(heights) < HIGHEST)]


def _scan_to_template(
    scan: OrientedCloud,
    target: AlignmentTarget,
    deformed: Float[np.ndarray, "m 3"],
    pose: Similarity,
    chosen: Int[np.ndarray, " n"],
    partners: Int[np.ndarray, " n"],
) -> _Pairs:
    normals = target.normals[partners]
    agreement = np.abs((pose.apply_to_normals(scan.normals[chosen]) * normals).sum(axis=1))
    ones = np.ones(len(chosen))
    return _Pairs(pose.apply(scan.points[chosen]), deformed[partners], normals, partners, ones, agreement)


def _template_to_scan(
    scan: OrientedCloud,
    target: AlignmentTarget,
    deformed: Float[np.ndarray, "m 3"],
    pose: Similarity,
    chosen: Int[np.ndarray, " n"],
    partners: Int[np.ndarray, " n"],
) -> _Pairs:
    normals = pose.apply_to_normals(scan.normals[partners])
    cosine = (normals * target.normals[chosen]).sum(axis=1)
    return _Pairs(pose.apply(scan.points[partners]), deformed[chosen], normals, chosen, cosine, np.abs(cosine))


def _step(
    products: Float[np.ndarray, "c c"],
    pose: Similarity,
    coefficients: Float[np.ndarray, " k"],
    scale_range: tuple[float, float],
) -> tuple[Similarity, Float[np.ndarray, " k"]]:
    """One Gauss-Newton step in rotation vector, logarithm of the scale, translation and coefficients."""
    normal_matrix, gradient = products[:-1, :-1], products[:-1, -1]
    normal_matrix[:7, :7] += np.eye(7) * (1e-3 * np.trace(normal_matrix[:7, :7]) / 7)
    normal_matrix[7:, 7:] += np.eye(len(coefficients))
    gradient[7:] += coefficients
    change = -np.linalg.solve(normal_matrix, gradient)
    # A far start may ask for a leap that the linearisation does not bear.
    turn = Rotation.from_rotvec(np.clip(change[:3], -0.3, 0.3)).as_matrix()
    scale = np.clip(pose.scale * np.exp(np.clip(change[3], -0.15, 0.15)), *scale_range)
    move = Similarity(scale / pose.scale, turn, np.clip(change[4:7], -0.3, 0.3))
    return move.compose(pose), coefficients + change[7:]


def _products(
    pairs: _Pairs, weights: Float[np.ndarray, " m"], modes: Float[np.ndarray, "m k"], width: float
) -> Float[np.ndarray, "c c"]:
    """Mean products of the columns (Jacobian, residual) with one another, under the robust weights.

    The Jacobian is taken in the middle of each pair. Taken at the scan's point, which carries the scan's errors, the
    residuals themselves would shrink the scan; at the template's, its errors would let it grow. A front half, whose
    scale is weakly determined, would be some per cent off either way.
    """
    kernel = 1 / np.square(1 + pairs.squared_distance() / width**2)
    weight = weights[pairs.template] * pairs.agreement * kernel / len(kernel)
    middle = (pairs.point + pairs.partner) / 2
    growth = (middle * pairs.normal).sum(axis=1)
    moved = -pairs.cosine[:, None] * modes[pairs.template]
    columns = np.column_stack([np.cross(middle, pairs.normal), growth, pairs.normal, moved, pairs.residual()])
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
        forward.agreement,
        counts,
        np.maximum(backward.squared_distance() - spacing**2, 0),
        backward.agreement,
        target.score_weights,
        width=SCORE_WIDTH,
    )
    inlier = counts & (forward.squared_distance() < INLIER_DISTANCE**2)
    residual = np.median(np.abs(forward.residual()[inlier])) if inlier.any() else np.inf
    share = inlier.sum() / max(counts.sum(), 1)
    return RefinedPose(pose, coefficients, float(score), float(residual), float(share))
