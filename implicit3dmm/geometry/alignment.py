"""Alignment of a raw head scan, of any pose and unit, to the canonical frame.

The search of pose_search.py finds candidates. Each is refined against a template that may deform along a few
shape modes, because the pose that lays a person's surface closest to a rigid average head is several degrees
and per cent away from that person's own frame. The candidate that covers the face best wins: a skull is
nearly the same back to front.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.alignment_target import AlignmentTarget
from implicit3dmm.geometry.pointcloud import OrientedCloud, drop_stray_points, estimate_normals, thin_points
from implicit3dmm.geometry.pose_refinement import FINE, ROUGH, RefinedPose, heights_over, refine_pose
from implicit3dmm.geometry.pose_search import Poses, PoseSearch, distinct_poses, starting_poses
from implicit3dmm.geometry.similarity import Similarity, fit_similarity

MM_PER_CANONICAL = 200.0
MM_PER_UNIT = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
# Head size relative to the average adult: what is searched where the unit is known, and what makes an
# unknown unit credible.
SIZE_RANGE = (0.6, 1.4)
CREDIBLE_SIZE = (0.7, 1.3)
# Length of a scan in a known unit, millimetres: from an infant's face to a standing adult.
LENGTH_RANGE = (60.0, 2500.0)

MIN_POINTS = 100
# Thickness of a scan, relative to its length, below which it is a plane.
FLAT = 1e-3
# A scan is thinned to about this many points, some 6 mm apart on a head.
SCAN_POINTS = 4000

# Starting poses. Scales are relative to the average adult, or, where the size is unknown, to a scan that
# shows the head alone: shoulders make it larger.
# The rotations are tried again in larger number where the first answer is in doubt.
ROTATIONS = (150, 600)
START_POINTS = 400
KNOWN_STARTS = np.array([0.9, 1.2])
FREE_STARTS = np.array([0.9, 1.25, 1.75, 2.45])

# Candidates that are refined; nearer than this they are the same answer.
CANDIDATES = 6
DISTINCT_DEGREES = 20.0
# A head scores more than this, and no other orientation fits it nearly as well. An egg scores as high as a
# head, but in many orientations; a cube or a chair fails both.
PLAUSIBLE_SCORE = 0.55
CLOSE_RUNNER_UP = 0.95
# Hair: the geometric mean of the scan's height above the skull where the face alone was aligned, and of the skull's
# misfit beyond that of the face where all was; upper quartiles, canonical units, 2.4 mm. Bald heads of both sources
# stayed below 2 mm, all but the thinnest hair was above 3. Some bald heads have much of the one and some of the other.
HAIR = 0.012


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
    """Where a scan lies in the canonical frame, and what was assumed to say so.

    Attributes:
        similarity: from the scan's own coordinates to canonical ones.
        unit: "mm", "cm" or "m"; "given" for a number of millimetres; "none" where no unit makes the scan a
            credible head, so that an average adult is assumed.
        mm_per_unit: millimetres in one unit of the scan.
        score: cover of the scan and the deformed template by one another, in [0, 1].
        runner_up: score of the best candidate more than 20 degrees away; 0 where there was none.
        residual_mm: median distance of the inliers to the surface of the deformed template.
        inlier_share: share of the scan's points, neck and shoulders aside, within 10 mm of it.
        hair: whether hair or a cap seems to cover the skull, so that the pose was found without it.
        candidates_tried: number of starting poses.
        cpu_seconds: processor time spent.
        warnings: one sentence each, for the user.
    """

    similarity: Similarity
    unit: str
    mm_per_unit: float
    score: float
    runner_up: float
    residual_mm: float
    inlier_share: float
    hair: bool
    candidates_tried: int
    cpu_seconds: float
    warnings: tuple[str, ...]

    @property
    def size(self) -> float:
        """Size of the head relative to the average adult; 1 where that was assumed."""
        return self.mm_per_unit / (MM_PER_CANONICAL * self.similarity.scale)

    @property
    def is_plausible(self) -> bool:
        """Whether the scan can be a head: it covers one well, and in this orientation only."""
        return not (self.score < PLAUSIBLE_SCORE or self.is_ambiguous)  # a pose that was given has no score

    @property
    def is_ambiguous(self) -> bool:
        """Whether an orientation more than 20 degrees away fits nearly as well."""
        return _is_close(self.runner_up, self.score)


def align_by_landmarks(
    scan_landmarks: Float[np.ndarray, "j 3"], target_landmarks: Float[np.ndarray, "k 3"]
) -> Similarity:
    """The similarity that brings landmarks of a scan to those of the canonical head, in least squares.

    Args:
        scan_landmarks: in the scan's coordinates; rows of NaN are landmarks that were not set.
        target_landmarks: canonical, in the same order.

    Raises:
        InputError: the numbers of landmarks differ, or fewer than three are set, or they lie on a line.
    """
    if scan_landmarks.shape != target_landmarks.shape:
        raise InputError(
            f"{len(scan_landmarks)} landmarks were given; {len(target_landmarks)} expected; "
            "give one row of three numbers for each, nan nan nan for those that are not set"
        )
    known = ~np.isnan(scan_landmarks).any(axis=1)
    return fit_similarity(scan_landmarks[known], target_landmarks[known])


def align_scan(
    points: Float[np.ndarray, "n 3"],
    target: AlignmentTarget,
    *,
    unit: str | float = "auto",
    rng: np.random.Generator,
) -> Alignment:
    """Finds the similarity that brings a raw scan of a head to the canonical frame.

    The scan may be turned and placed in any way; it may be a whole head, a front half, or a bust; it may
    have holes, noise and stray points. Points should be spread over the surface (sample a mesh by area);
    their normals are estimated, so none are needed and wrong ones do no harm.

    Args:
        points: (n, 3) in the scan's own coordinates.
        target: the average head.
        unit: of the scan: "mm", "cm", "m", millimetres per unit, or "auto". A known unit limits the head to
            0.6 to 1.4 times the average adult. With "auto" the size is free; the unit is then the one that
            makes the head 0.7 to 1.3 times the average adult, or none.
        rng: source of all random choices; equal seeds give equal results.

    Raises:
        InputError: fewer than 100 different points, coordinates that are not finite, points on a plane or
            a line, an unknown unit, or a unit in which the scan is no head for its size.
    """
    began = time.process_time()
    mm_per_unit = millimetres_in(unit)
    scan, normalise = _prepare(points, rng)
    if mm_per_unit is not None:
        _check_length(scan, normalise, mm_per_unit)
    scales, scale_range = _scales(target, normalise, mm_per_unit)
    fits: list[RefinedPose] = []
    tried = 0
    for rotations in ROTATIONS:
        starts = _starts(target, scan, scales, rotations, rng)
        fits = sorted(fits + _fits(scan, target, starts, scale_range, rng), key=lambda fit: -fit.score)
        tried += len(starts)
        if not (fits[0].score < PLAUSIBLE_SCORE or _is_close(_runner_up(fits), fits[0].score)):
            break
    best, hair = _finish(scan, target, fits[0].similarity, scale_range, rng)
    similarity = best.similarity.compose(normalise)
    unit_name, mm_per_unit = _decide_unit(unit, mm_per_unit, similarity.scale)
    alignment = Alignment(
        similarity=similarity,
        unit=unit_name,
        mm_per_unit=mm_per_unit,
        score=fits[0].score,
        runner_up=_runner_up(fits),
        residual_mm=best.residual * mm_per_unit / similarity.scale,
        inlier_share=best.inlier_share,
        hair=hair,
        candidates_tried=tried,
        cpu_seconds=time.process_time() - began,
        warnings=(),
    )
    return dataclasses.replace(alignment, warnings=tuple(_warnings(alignment)))


def known_pose(similarity: Similarity, *, unit: str | float = "auto") -> Alignment:
    """The alignment of a scan whose pose the user knows: nothing is searched and nothing is scored.

    Args:
        similarity: from the scan's coordinates to canonical ones.
        unit: of the scan, as in `align_scan`.
    """
    name, mm_per_unit = _decide_unit(unit, millimetres_in(unit), similarity.scale)
    return Alignment(
        similarity=similarity,
        unit=name,
        mm_per_unit=mm_per_unit,
        score=float("nan"),
        runner_up=float("nan"),
        residual_mm=float("nan"),
        inlier_share=float("nan"),
        hair=False,
        candidates_tried=0,
        cpu_seconds=0.0,
        warnings=(),
    )


def millimetres_in(unit: str | float) -> float | None:
    """Millimetres in one unit of a scan; None for "auto".

    Args:
        unit: "mm", "cm", "m", millimetres per unit, or "auto".

    Raises:
        InputError: it is none of these.
    """
    if unit == "auto":
        return None
    if isinstance(unit, str) and unit in MM_PER_UNIT:
        return MM_PER_UNIT[unit]
    if isinstance(unit, str) or not (np.isfinite(unit) and unit > 0):
        raise InputError(
            f"the unit is {unit!r}; auto, {', '.join(MM_PER_UNIT)} or a positive number of millimetres was "
            "expected; choose one"
        )
    return float(unit)


def _prepare(points: np.ndarray, rng: np.random.Generator) -> tuple[OrientedCloud, Similarity]:
    """Thins and cleans a scan and brings it to mean 0 and root mean square radius 1."""
    if len(points) < MIN_POINTS:
        raise InputError(f"the scan has {len(points)} points; at least {MIN_POINTS} were expected; give more")
    if not np.isfinite(points).all():
        raise InputError("the scan holds NaN or infinite coordinates; numbers were expected; drop them")
    thinned = thin_points(points, SCAN_POINTS, rng=rng)
    if len(thinned) < MIN_POINTS:
        raise InputError(
            f"the scan has {len(thinned)} different points; at least {MIN_POINTS} were expected; give more"
        )
    kept = drop_stray_points(thinned)
    if _thickness(kept) < FLAT:
        raise InputError(
            "the points of the scan lie on a plane or a line, stray ones aside; the surface of a head was "
            "expected; check the file"
        )
    mean = kept.mean(axis=0)
    scale = 1 / float(np.sqrt(np.square(kept - mean).sum(axis=1).mean()))
    normalise = Similarity(scale, np.eye(3), -scale * mean)
    return OrientedCloud(normalise.apply(kept), estimate_normals(kept)), normalise


def _thickness(points: np.ndarray) -> float:
    """Standard deviation of the points in their thinnest direction over that in their longest."""
    variances = np.linalg.eigvalsh(np.cov(points, rowvar=False, dtype=np.float64))
    return float(np.sqrt(max(variances[0], 0) / variances[2])) if variances[2] > 0 else 0.0


def _check_length(scan: OrientedCloud, normalise: Similarity, mm_per_unit: float) -> None:
    length = float(np.ptp(scan.points, axis=0).max()) / normalise.scale
    if not LENGTH_RANGE[0] <= length * mm_per_unit <= LENGTH_RANGE[1]:
        raise InputError(
            f"the scan is {length:.4g} units long, {length * mm_per_unit:.4g} mm in the unit that was given; "
            "a head is 150 to 350 mm; give another unit, or auto"
        )


def _scales(
    target: AlignmentTarget, normalise: Similarity, mm_per_unit: float | None
) -> tuple[np.ndarray, tuple[float, float]]:
    """Scales to start from and their range, for the normalised scan."""
    if mm_per_unit is not None:
        average = mm_per_unit / (MM_PER_CANONICAL * normalise.scale)
        return average * KNOWN_STARTS, (average / SIZE_RANGE[1], average / SIZE_RANGE[0])
    head = target.points[~target.neck]
    alone = float(np.sqrt(np.square(head - head.mean(axis=0)).sum(axis=1).mean()))
    return alone * FREE_STARTS, (alone * FREE_STARTS[0] / 1.5, alone * FREE_STARTS[-1] * 1.5)


def _starts(
    target: AlignmentTarget, scan: OrientedCloud, scales: np.ndarray, rotations: int, rng: np.random.Generator
) -> Poses:
    head = ~target.neck
    front = head & (target.normals[:, 2] > 0)
    chosen = rng.choice(len(scan.points), min(START_POINTS, len(scan.points)), replace=False)
    return starting_poses(
        scan.points[chosen],
        np.stack([target.points[head].mean(axis=0), target.points[front].mean(axis=0)]),
        top=float(target.points[:, 1].max()),
        height=float(np.ptp(target.points[head, 1])),
        scales=scales,
        rotations=rotations,
    )


def _fits(
    scan: OrientedCloud,
    target: AlignmentTarget,
    starts: Poses,
    scale_range: tuple[float, float],
    rng: np.random.Generator,
) -> list[RefinedPose]:
    """The few distinct answers that the search ends with, refined."""
    search = PoseSearch(
        scan,
        target.cloud,
        weights=target.weights,
        score_weights=target.score_weights,
        scale_range=scale_range,
        rng=rng,
    )
    candidates = distinct_poses(search.run(starts)[0], angle=DISTINCT_DEGREES, count=CANDIDATES)
    return [
        refine_pose(scan, target, candidates.similarity(index), refinement=ROUGH, scale_range=scale_range, rng=rng)
        for index in range(len(candidates))
    ]


def _finish(
    scan: OrientedCloud,
    target: AlignmentTarget,
    start: Similarity,
    scale_range: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[RefinedPose, bool]:
    """The last refinement of the best answer, and whether it had to leave out what hair covers."""
    settings = {"refinement": FINE, "scale_range": scale_range, "rng": rng}
    whole, bare = (refine_pose(scan, target, start, bare=bare, **settings) for bare in (False, True))
    height = _upper_quartile(heights_over(scan, target, bare, target.hair))
    skull, face = (
        _upper_quartile(np.abs(heights_over(scan, target, whole, places))) for places in (target.hair, target.face)
    )
    misfit = max(skull**2 - face**2, 0.0) ** 0.5  # what the scan's noise, and heads of another kind, do not explain
    return (bare, True) if height * misfit > HAIR**2 else (whole, False)


def _upper_quartile(values: Float[np.ndarray, " n"]) -> float:
    return float(np.quantile(values, 0.75)) if len(values) else 0.0


def _decide_unit(unit: str | float, mm_per_unit: float | None, scale: float) -> tuple[str, float]:
    """Name of the unit and millimetres in it, given the scale from the scan to canonical."""
    if mm_per_unit is not None:
        return (unit if isinstance(unit, str) else "given"), mm_per_unit
    for name, millimetres in MM_PER_UNIT.items():
        if CREDIBLE_SIZE[0] <= millimetres / (MM_PER_CANONICAL * scale) <= CREDIBLE_SIZE[1]:
            return name, millimetres
    return "none", MM_PER_CANONICAL * scale


def _is_close(runner_up: float, score: float) -> bool:
    return runner_up > CLOSE_RUNNER_UP * score


def _runner_up(fits: list[RefinedPose]) -> float:
    best = fits[0].similarity
    return max((fit.score for fit in fits if fit.similarity.angle_to(best) > DISTINCT_DEGREES), default=0.0)


def _warnings(alignment: Alignment) -> Iterator[str]:
    if alignment.score < PLAUSIBLE_SCORE:
        yield (
            f"the scan does not look like a head (score {alignment.score:.2f}, heads reach at least "
            f"{PLAUSIBLE_SCORE}); look at the result, or give landmarks or a transform"
        )
    if alignment.is_ambiguous:
        yield (
            f"another orientation fits nearly as well (score {alignment.runner_up:.2f} against "
            f"{alignment.score:.2f}); look at the result, or give landmarks or a transform"
        )
    if alignment.hair:
        yield "hair or a cap seems to cover the skull; the pose and the size come from the face alone"
    if alignment.unit == "none":
        yield "in mm, cm and m alike the scan is no head for its size; an average adult is assumed; give the unit"
