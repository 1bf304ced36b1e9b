"""Where in a scan a template lies: a search over similarities by many small registrations at once.

Thousands of starting poses (rotations spread over SO(3), several scales) run through a few steps of a
robust, two-way, iterative closest point method together, on a few hundred points; the worse ones are
dropped and the rest continue on more points. Closest points come from a grid that is filled once, which
makes a step some thirty times cheaper than a tree search.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from implicit3dmm.geometry.pointcloud import OrientedCloud
from implicit3dmm.geometry.similarity import Similarity, rotation_angle


@dataclasses.dataclass(frozen=True)
class SearchStage:
    """One round of the search.

    Attributes:
        points: how many points of either cloud are used.
        steps: closest-point steps.
        width: (first, last) width of the robust kernel, canonical units.
        survivors: how many poses go on to the next round.
    """

    points: int
    steps: int
    width: tuple[float, float]
    survivors: int


STAGES = (
    SearchStage(points=100, steps=6, width=(0.35, 0.2), survivors=200),
    SearchStage(points=250, steps=8, width=(0.2, 0.08), survivors=50),
    SearchStage(points=500, steps=8, width=(0.08, 0.05), survivors=50),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Poses:
    """A batch of similarities from the scan to the template.

    Attributes:
        scale: (b,).
        rotation: (b, 3, 3).
        translation: (b, 3).
    """

    scale: Float[np.ndarray, "b"]
    rotation: Float[np.ndarray, "b 3 3"]
    translation: Float[np.ndarray, "b 3"]

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, chosen: Int[np.ndarray, "c"]) -> Poses:
        return Poses(self.scale[chosen], self.rotation[chosen], self.translation[chosen])

    def similarity(self, index: int) -> Similarity:
        """One of the poses by itself."""
        return Similarity(self.scale[index], self.rotation[index], self.translation[index])

    def apply(self, points: Float[np.ndarray, "*b n 3"]) -> Float[np.ndarray, "b n 3"]:
        """Maps points of the scan: the same ones for all poses, or each pose its own."""
        turned = points @ self.rotation.transpose(0, 2, 1).astype(np.float32)
        scale, translation = self.scale.astype(np.float32), self.translation.astype(np.float32)
        return scale[:, None, None] * turned + translation[:, None]

    def apply_inverse(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "b n 3"]:
        """Maps points of the template back to the scan."""
        moved = points - self.translation.astype(np.float32)[:, None]
        return moved @ self.rotation.astype(np.float32) / self.scale.astype(np.float32)[:, None, None]


@dataclasses.dataclass(frozen=True, eq=False)
class _Pairs:
    """Closest points for each of b poses, in the template's frame.

    Attributes:
        moving: (b, k, 3) points of the scan, mapped by the pose.
        fixed: (b, k, 3) their partners on the template.
        index: (b, k) which points of the template those are.
        agreement: (b, k) |cosine| between the two normals, in [0, 1].
    """

    moving: np.ndarray
    fixed: np.ndarray
    index: np.ndarray
    agreement: np.ndarray

    def squared_distance(self) -> np.ndarray:
        return np.square(self.moving - self.fixed).sum(axis=-1)


class PoseSearch:
    """Search for the similarities that lay a scan on a template."""

    def __init__(
        self,
        scan: OrientedCloud,
        template: OrientedCloud,
        *,
        weights: Float[np.ndarray, "m"],
        score_weights: Float[np.ndarray, "m"],
        scale_range: tuple[float, float],
        rng: np.random.Generator,
    ):
        """Sets the search up.

        Args:
            scan: the scan, in any frame whose numbers are near one.
            template: the template, in the canonical frame.
            weights: importance of each point of the template for the registration.
            score_weights: importance for the score; points with zero may be covered by anything (a neck that
                goes on into shoulders).
            scale_range: smallest and largest scale of a pose.
            rng: chooses the points that are used.
        """
        self.scan, self.template = scan, template
        self.weights, self.score_weights = weights, score_weights
        self.scale_range = scale_range
        self.rng = rng

    def run(self, poses: Poses) -> tuple[Poses, Float[np.ndarray, "b"]]:
        """Registers all starting poses, keeping fewer in every stage of `STAGES`.

        Returns:
            The survivors and their scores, best first.
        """
        for stage in STAGES:
            scan = _choose(len(self.scan.points), stage.points, self.rng)
            template = _choose(len(self.template.points), stage.points, self.rng)
            for width in np.geomspace(*stage.width, stage.steps):
                poses = self._step(poses, scan, template, width)
            scores = self._score(poses, scan, template, max(stage.width[1] / 2, 0.04))
            best = np.argsort(-scores, kind="stable")[: stage.survivors]
            poses, scores = poses[best], scores[best]
        return poses, scores

    def _scan_to_template(self, poses: Poses, chosen: np.ndarray) -> _Pairs:
        moving = poses.apply(self.scan.points[chosen])
        index = self.template.closest(moving)
        normals = self.scan.normals[chosen] @ poses.rotation.transpose(0, 2, 1).astype(np.float32)
        agreement = np.abs((normals * self.template.normals[index]).sum(axis=-1))
        return _Pairs(moving, self.template.points[index], index, agreement)

    def _template_to_scan(self, poses: Poses, chosen: np.ndarray) -> _Pairs:
        fixed = self.template.points[chosen]
        partner = self.scan.closest(poses.apply_inverse(fixed))
        moving = poses.apply(self.scan.points[partner])
        normals = self.scan.normals[partner] @ poses.rotation.transpose(0, 2, 1).astype(np.float32)
        agreement = np.abs((normals * self.template.normals[chosen]).sum(axis=-1))
        shape = moving.shape
        return _Pairs(moving, np.broadcast_to(fixed, shape), np.broadcast_to(chosen, shape[:2]), agreement)

    def _step(self, poses: Poses, scan: np.ndarray, template: np.ndarray, width: float) -> Poses:
        """One closest-point step with Geman-McClure weights, both ways."""
        ways = (self._scan_to_template(poses, scan), self._template_to_scan(poses, template))
        weights = [
            self.weights[way.index]
            * way.agreement
            / np.square(1 + way.squared_distance() / width**2)
            / way.index.shape[1]
            for way in ways
        ]
        moving = np.concatenate([way.moving for way in ways], axis=1)
        fixed = np.concatenate([way.fixed for way in ways], axis=1)
        return _superpose(poses, moving, fixed, np.concatenate(weights, axis=1), self.scale_range)

    def _score(self, poses: Poses, scan: np.ndarray, template: np.ndarray, width: float) -> np.ndarray:
        forward = self._scan_to_template(poses, scan)
        backward = self._template_to_scan(poses, template)
        return overlap_score(
            forward.squared_distance(),
            forward.agreement,
            self.score_weights[forward.index] > 0,
            backward.squared_distance(),
            backward.agreement,
            self.score_weights[template],
            width=width,
        )


def overlap_score(
    scan_squared: Float[np.ndarray, "*b n"],
    scan_agreement: Float[np.ndarray, "*b n"],
    scan_counts: np.ndarray,
    template_squared: Float[np.ndarray, "*b m"],
    template_agreement: Float[np.ndarray, "*b m"],
    template_weights: Float[np.ndarray, "m"],
    *,
    width: float,
) -> Float[np.ndarray, "*b"] | np.floating:
    """How well a scan and a template cover one another, in [0, 1].

    The geometric mean of two shares: of the template, weighted, that the scan covers (a shrunken head
    inside a bust covers nothing), and of the scan's counting points that lie on the template (a pose that
    lets the head stick out loses here). A point at distance d whose normal agrees by c covers
    c / (1 + d^2 / width^2).

    Args:
        scan_squared: squared distance of each point of the scan to the template.
        scan_agreement: |cosine| between the normals of the two.
        scan_counts: (*b, n) False for points that may lie anywhere, such as shoulders.
        template_squared: the same for the points of the template.
        template_agreement: the same.
        template_weights: importance of the template's points; not negative.
        width: distance at which a point covers half.

    Returns:
        (*b,) scores.
    """
    covered = template_agreement / (1 + template_squared / width**2)
    recall = covered @ (template_weights / template_weights.sum())
    explained = scan_agreement / (1 + scan_squared / width**2) * scan_counts
    # A pose under which hardly any point counts would be right about hardly anything.
    counting = np.maximum(scan_counts.sum(axis=-1), 0.05 * scan_counts.shape[-1])
    return np.sqrt(recall * explained.sum(axis=-1) / counting)


def starting_poses(
    points: Float[np.ndarray, "n 3"],
    anchors: Float[np.ndarray, "a 3"],
    *,
    top: float,
    height: float,
    scales: Float[np.ndarray, "s"],
    rotations: int,
) -> Poses:
    """Poses to start from: every rotation with every scale and every anchor.

    Whatever hangs below it, a head is the topmost part of a scan in its own upright direction. So each
    rotation and scale gives a translation: the scan's top goes to the template's, and the mean of the slab
    of a head's height below it goes above or below an anchor.

    Args:
        points: some hundred points of the scan.
        anchors: where that mean may lie (x and z are used): another place for a face alone than for a head.
        top: y of the template's highest point.
        height: height of the slab, canonical units.
        scales: scales to start from.
        rotations: how many, spread evenly over SO(3).
    """
    turns = _spread_rotations(rotations)
    turned = points @ turns.transpose(0, 2, 1)
    highest = np.quantile(turned[:, :, 1], 0.995, axis=1)
    starts = []
    for scale in scales:
        slab = (turned[:, :, 1] > (highest - height / scale)[:, None])[:, :, None]
        centres = scale * (turned * slab).sum(axis=1) / slab.sum(axis=1)
        for anchor in anchors:
            translation = np.stack(
                [anchor[0] - centres[:, 0], top - scale * highest, anchor[2] - centres[:, 2]], axis=1
            )
            starts.append(Poses(np.full(rotations, scale), turns, translation))
    return Poses(
        np.concatenate([start.scale for start in starts]),
        np.concatenate([start.rotation for start in starts]),
        np.concatenate([start.translation for start in starts]),
    )


def distinct_poses(poses: Poses, *, angle: float, count: int) -> Poses:
    """The first `count` poses that differ from all before them by `angle` degrees or a third in scale."""
    kept: list[int] = []
    for index in range(len(poses)):
        if len(kept) == count:
            break
        if all(
            rotation_angle(poses.rotation[index], poses.rotation[other]) > angle
            or abs(np.log(poses.scale[index] / poses.scale[other])) > np.log(4 / 3)
            for other in kept
        ):
            kept.append(index)
    return poses[np.array(kept)]


def _superpose(
    poses: Poses,
    moving: np.ndarray,
    fixed: np.ndarray,
    weights: np.ndarray,
    scale_range: tuple[float, float],
) -> Poses:
    """Moves each pose so that its `moving` points come nearest to its `fixed` ones.

    The scale is the ratio of the spreads (Horn 1987, section 2.D) and not Umeyama's: with wrong partners
    the least-squares scale is always too small, and a head would shrink step by step.
    """
    weights = (weights / weights.sum(axis=1, keepdims=True))[:, None]
    moving_mean, fixed_mean = weights @ moving, weights @ fixed
    moving, fixed = moving - moving_mean, fixed - fixed_mean
    u, _, vt = np.linalg.svd((fixed.transpose(0, 2, 1) * weights) @ moving)
    u[:, :, 2] *= (np.linalg.det(u) * np.linalg.det(vt))[:, None]
    turn = u @ vt
    spread = (weights @ np.square(fixed)).sum(axis=(1, 2)) / (weights @ np.square(moving)).sum(axis=(1, 2))
    scale = np.clip(poses.scale * np.sqrt(spread), *scale_range)
    factor = (scale / poses.scale)[:, None]
    arm = poses.translation - moving_mean[:, 0]
    translation = factor * np.einsum("bij,bj->bi", turn, arm) + fixed_mean[:, 0]
    return Poses(scale, turn @ poses.rotation, translation)


def _choose(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(total, min(count, total), replace=False))


def _spread_rotations(count: int) -> Float[np.ndarray, "count 3 3"]:
    """Rotations spread evenly over SO(3) along a spiral on the unit quaternions.

    Source: Alexa, "Super-Fibonacci Spirals: Fast, Low-Discrepancy Sampling of SO(3)", CVPR 2022, with
    phi = sqrt(2) and psi the root of psi^4 = psi + 4.
    """
    place = (np.arange(count) + 0.5) / count
    inner, outer = np.sqrt(place), np.sqrt(1 - place)
    first = 2 * np.pi * count * place / np.sqrt(2)
    second = 2 * np.pi * count * place / 1.533751168755204288118041
    quaternions = np.stack(
        [inner * np.sin(first), inner * np.cos(first), outer * np.sin(second), outer * np.cos(second)], axis=1
    )
    return Rotation.from_quat(quaternions).as_matrix()
