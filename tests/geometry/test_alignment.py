from functools import cache

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.alignment import align_by_landmarks, align_scan, known_pose
from implicit3dmm.geometry.alignment_target import AlignmentTarget
from implicit3dmm.geometry.pointcloud import thin_points
from implicit3dmm.geometry.similarity import Similarity

# A head as a distance from its centre in every direction: an ellipsoid with bumps (direction, height, width).
CENTRE = np.array([0.0, 0.1, 0.08])
AXES = np.array([0.36, 0.58, 0.48])
BUMPS = (
    ((0, -0.15, 1), 0.14, 0.12),  # nose
    ((0, 0.15, 1), 0.03, 0.3),  # brow
    ((0.3, 0.05, 1), -0.04, 0.12),  # eyes
    ((-0.3, 0.05, 1), -0.04, 0.12),
    ((0, -0.75, 0.7), 0.08, 0.25),  # chin
    ((1, -0.05, -0.1), 0.09, 0.12),  # ears
    ((-1, -0.05, -0.1), 0.09, 0.12),
    ((0, -1, -0.15), 0.35, 0.35),  # neck
)
AVERAGE = np.ones(len(AXES) + len(BUMPS))


def person(seed):
    rng = np.random.default_rng(seed)
    return np.r_[rng.normal(1, 0.04, len(AXES)), rng.normal(1, 0.2, len(BUMPS))]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def radius(directions, who):
    reach = 1 / np.linalg.norm(directions / (AXES * who[: len(AXES)]), axis=-1)
    for (towards, height, width), factor in zip(BUMPS, who[len(AXES) :], strict=True):
        angle = np.arccos(np.clip(directions @ unit(np.array(towards, float)), -1, 1))
        reach = reach + factor * height * np.exp(-((angle / width) ** 2) / 2)
    return reach


def surface(count, who, rng):
    directions = unit(thin_points(5 * unit(rng.normal(size=(8 * count, 3))), 2 * count, rng=rng))
    even = unit(thin_points(directions * radius(directions, who)[:, None], count, rng=rng))
    return CENTRE + even * radius(even, who)[:, None]


def height_above(points, who):
    away = points - CENTRE
    return np.linalg.norm(away, axis=-1) - radius(unit(away), who)


@cache
def target():
    points = surface(3000, AVERAGE, np.random.default_rng(0))
    steps = 1e-4 * np.eye(3)
    slopes = [height_above(points + step, AVERAGE) - height_above(points - step, AVERAGE) for step in steps]
    displacements = np.stack([-height_above(points, person(1000 + seed)) for seed in range(60)])
    neck = points[:, 1] < -0.42
    face = (unit(points - CENTRE) @ unit(np.array([0, -0.1, 1])) > 0.65) & ~neck
    hair = (points[:, 1] > 0.4) | ((points[:, 2] < 0) & ~neck)
    return AlignmentTarget.from_heads(
        points, unit(np.stack(slopes, axis=1)), displacements, face=face, neck=neck, hair=hair, modes=10
    )


def shoulders(rng):
    points = unit(rng.normal(size=(9000, 3))) * [0.9, 0.35, 0.45] + [0, -0.95, -0.1]
    return points[points[:, 1] > -1.1]


def posed(points, mm_per_unit, rng, size=1.0):
    """A canonical head, somewhere in a scanner's frame, and the way back."""
    turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    to_scan = Similarity(200 * size / mm_per_unit, turn, rng.normal(0, 500, 3) / mm_per_unit)
    return to_scan.apply(points), to_scan.inverse()


def assert_close(found, truth, degrees, share):
    assert found.angle_to(truth) < degrees
    assert abs(found.scale / truth.scale - 1) < share
    centre = truth.inverse().apply(CENTRE)
    assert np.linalg.norm(found.apply(centre) - CENTRE) < 0.05


@pytest.mark.parametrize(("name", "mm_per_unit"), [("mm", 1), ("cm", 10), ("m", 1000)])
def test_a_whole_head_is_found_in_any_pose_and_its_unit_is_told(name, mm_per_unit):
    rng = np.random.default_rng(mm_per_unit)
    scan, truth = posed(surface(15000, person(1), rng), mm_per_unit, rng, size=0.9)
    found = align_scan(scan, target(), rng=rng)
    assert_close(found.similarity, truth, degrees=3, share=0.03)
    assert (found.unit, found.mm_per_unit) == (name, mm_per_unit)
    assert found.size == pytest.approx(0.9, rel=0.03)
    assert found.is_plausible
    assert not found.hair
    assert found.warnings == ()
    assert found.residual_mm < 2
    assert found.inlier_share > 0.95


@pytest.mark.parametrize("seed", [2, 3])
def test_a_noisy_front_half_with_holes_is_found(seed):
    rng = np.random.default_rng(seed)
    head = surface(20000, person(seed), rng)
    head = head[head[:, 2] > 0.05]
    for hole in rng.choice(len(head), 8):
        head = head[np.linalg.norm(head - head[hole], axis=1) > 0.06]
    scan, truth = posed(head, 1, rng)
    found = align_scan(scan + rng.normal(0, 1, scan.shape), target(), rng=rng)
    assert_close(found.similarity, truth, degrees=5, share=0.05)
    assert found.is_plausible


@pytest.mark.parametrize("seed", [4, 5])
def test_a_bust_among_stray_points_is_found_without_its_unit(seed):
    rng = np.random.default_rng(seed)
    bust = np.concatenate([surface(15000, person(seed), rng), shoulders(rng)])
    bust = np.concatenate([bust, rng.uniform(-1.6, 1.6, (400, 3))])
    scan, truth = posed(bust, 37.0, rng)
    found = align_scan(scan, target(), rng=rng)
    assert_close(found.similarity, truth, degrees=5, share=0.04)
    assert found.unit == "none"
    assert found.mm_per_unit == pytest.approx(200 * found.similarity.scale)
    assert found.size == pytest.approx(1)
    assert any("average adult is assumed" in warning for warning in found.warnings)


def test_a_cap_of_hair_does_not_shrink_the_head_and_is_told():
    rng = np.random.default_rng(15)
    head = surface(15000, person(15), rng)
    covered = (head[:, 1] > 0.42) | ((head[:, 2] < 0) & (head[:, 1] > -0.2))
    hairy = head + 0.1 * covered[:, None] * unit(head - CENTRE)
    scan, truth = posed(hairy, 1, rng)
    found = align_scan(scan, target(), rng=rng)
    assert_close(found.similarity, truth, degrees=4, share=0.04)
    assert found.hair
    assert any("hair" in warning for warning in found.warnings)


def test_noise_on_a_head_of_a_large_skull_is_no_hair():
    rng = np.random.default_rng(15)
    head = surface(4000, person(15), rng)
    covered = (head[:, 1] > 0.42) | ((head[:, 2] < 0) & (head[:, 1] > -0.2))
    larger = head + 0.03 * covered[:, None] * unit(head - CENTRE)
    scan, _ = posed(larger, 1, rng)
    found = align_scan(scan + rng.normal(0, 4, scan.shape), target(), rng=rng)
    assert not found.hair


def test_a_given_unit_gives_the_size():
    rng = np.random.default_rng(6)
    scan, truth = posed(surface(8000, person(6), rng), 25.4, rng, size=0.65)
    found = align_scan(scan, target(), unit=25.4, rng=rng)
    assert_close(found.similarity, truth, degrees=3, share=0.03)
    assert found.unit == "given"
    assert found.size == pytest.approx(0.65, rel=0.03)


def test_equal_seeds_give_equal_bits():
    scan, _ = posed(surface(6000, person(7), np.random.default_rng(7)), 1, np.random.default_rng(7))
    first, second = (align_scan(scan, target(), unit="mm", rng=np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first.similarity.matrix(), second.similarity.matrix())
    assert (first.score, first.runner_up) == (second.score, second.runner_up)


def box_points(rng):
    points = rng.uniform(-1, 1, (6000, 3))
    axis = rng.integers(0, 3, 6000)
    points[np.arange(6000), axis] = np.sign(points[np.arange(6000), axis])
    return points * [100, 120, 90]


def egg_points(rng):
    return unit(rng.normal(size=(6000, 3))) * [75, 105, 90]


@pytest.mark.parametrize("shape", [box_points, egg_points])
def test_what_is_no_head_is_said_to_be_implausible(shape):
    rng = np.random.default_rng(8)
    found = align_scan(shape(rng), target(), rng=rng)
    assert not found.is_plausible
    assert found.warnings


def line(rng):
    return rng.normal(size=(500, 1)) * [1.0, 2.0, 3.0] + 1e4


BAD_SCANS = {
    "99 points": lambda rng: rng.normal(size=(99, 3)),
    "one NaN": lambda rng: np.r_[rng.normal(size=(500, 3)), [[0, np.nan, 0]]],
    "infinite": lambda rng: np.r_[rng.normal(size=(500, 3)), [[0, np.inf, 0]]],
    "plane": lambda rng: rng.normal(size=(9000, 3)) * [1, 1, 0] + 7,
    "line": line,
    "one place": lambda rng: np.full((9000, 3), 5.0),
    "one place and more": lambda rng: np.r_[np.zeros((9000, 3)), rng.normal(size=(50, 3))],
}


@pytest.mark.parametrize("scan", BAD_SCANS.values(), ids=BAD_SCANS)
def test_a_scan_that_is_no_surface_is_refused(scan):
    rng = np.random.default_rng(9)
    with pytest.raises(InputError, match=r".+; .+; .+"):
        align_scan(scan(rng), target(), rng=rng)


@pytest.mark.parametrize("unit", ["inch", "", 0.0, -1.0, np.nan, np.inf])
def test_an_unknown_unit_is_refused(unit):
    rng = np.random.default_rng(10)
    with pytest.raises(InputError, match="the unit is"):
        align_scan(surface(500, AVERAGE, rng), target(), unit=unit, rng=rng)


def test_a_unit_that_makes_the_scan_no_head_is_refused():
    rng = np.random.default_rng(11)
    with pytest.raises(InputError, match=r"units long, .+ mm"):
        align_scan(0.2 * surface(2000, AVERAGE, rng), target(), unit="mm", rng=rng)


def test_landmarks_give_the_similarity_and_missing_ones_do_not_count():
    rng = np.random.default_rng(12)
    landmarks = rng.normal(size=(68, 3))
    scan, truth = posed(landmarks, 10, rng)
    scan[5:60] = np.nan
    found = align_by_landmarks(scan, landmarks)
    np.testing.assert_allclose(found.matrix(), truth.matrix(), atol=1e-9)


def test_two_landmarks_are_too_few():
    landmarks = np.random.default_rng(13).normal(size=(68, 3))
    given = np.where(np.arange(68)[:, None] < 2, landmarks, np.nan)
    with pytest.raises(InputError, match="2 point pairs"):
        align_by_landmarks(given, landmarks)


def test_landmarks_of_another_number_are_refused():
    landmarks = np.random.default_rng(13).normal(size=(68, 3))
    with pytest.raises(InputError, match="67 landmarks were given; 68 expected"):
        align_by_landmarks(landmarks[:67], landmarks)


def test_a_given_pose_is_taken_as_it_is():
    pose = Similarity(1 / 210, Rotation.from_rotvec([0.1, 2, 0]).as_matrix(), np.array([3.0, 2, 1]))
    found = known_pose(pose)
    assert found.similarity is pose
    assert (found.unit, found.mm_per_unit) == ("mm", 1.0)
    assert found.size == pytest.approx(1.05)
    assert found.is_plausible


def test_the_modes_of_a_target_carry_the_variance_of_its_heads():
    rng = np.random.default_rng(14)
    points, normals = rng.normal(size=(50, 3)), unit(rng.normal(size=(50, 3)))
    displacements = rng.normal(size=(9, 50))
    mask = np.arange(50) < 20
    full = AlignmentTarget.from_heads(points, normals, displacements, face=mask, neck=~mask, hair=mask, modes=20)
    assert len(full.modes) == 8
    np.testing.assert_allclose(full.modes.T @ full.modes, np.cov(displacements, rowvar=False), atol=1e-12)
    np.testing.assert_allclose(full.points, points + displacements.mean(0)[:, None] * normals)
    moved = full.deformed(np.eye(8)[0]) - full.points
    np.testing.assert_allclose(moved, full.modes[0][:, None] * normals)
