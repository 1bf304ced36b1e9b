import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from implicit3dmm.geometry.pointcloud import OrientedCloud, estimate_normals, thin_points
from implicit3dmm.geometry.pose_search import (
    Poses,
    PoseSearch,
    distinct_poses,
    overlap_score,
    starting_poses,
)
from implicit3dmm.geometry.similarity import Similarity, rotation_angle


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def random_poses(count, rng):
    turns = Rotation.from_quat(rng.normal(size=(count, 4))).as_matrix()
    return Poses(rng.uniform(0.5, 2, count), turns, rng.normal(size=(count, 3)))


def snowman(rng):
    """A body without symmetry: three balls of different sizes."""
    balls = [([0, 0, 0], 0.5), ([0.4, 0.5, 0], 0.35), ([0.1, 0.3, 0.6], 0.25)]
    points = []
    for centre, radius in balls:
        directions = rng.normal(size=(6000, 3))
        points.append(centre + radius * directions / np.linalg.norm(directions, axis=1, keepdims=True))
    points = np.concatenate(points)
    outside = [np.linalg.norm(points - centre, axis=1) > radius - 1e-6 for centre, radius in balls]
    points = thin_points(points[np.all(outside, axis=0)], 1500, rng=rng)
    return OrientedCloud(points, estimate_normals(points))


def test_poses_act_as_the_similarities_they_hold(rng):
    poses, points = random_poses(7, rng), rng.normal(size=(20, 3)).astype(np.float32)
    for index in range(7):
        alone = poses.similarity(index)
        np.testing.assert_allclose(poses.apply(points)[index], alone.apply(points), atol=1e-5)
        back = alone.inverse().apply(points)
        np.testing.assert_allclose(poses.apply_inverse(points)[index], back, atol=1e-5)
    own = rng.normal(size=(7, 20, 3)).astype(np.float32)
    np.testing.assert_allclose(poses.apply(own)[3], poses.similarity(3).apply(own[3]), atol=1e-5)


def test_starting_rotations_leave_no_gap(rng):
    points = rng.normal(size=(50, 3))
    starts = starting_poses(points, np.zeros((2, 3)), top=1.0, height=1.0, scales=np.array([0.5, 1.0]), rotations=150)
    assert len(starts) == 600
    for rotation in Rotation.from_quat(rng.normal(size=(200, 4))).as_matrix():
        assert min(rotation_angle(rotation, start) for start in starts.rotation[:150]) < 45


def test_a_starting_pose_brings_the_top_to_the_top_and_the_slab_below_it_to_the_anchor(rng):
    head = rng.uniform([-0.4, 0, -0.4], [0.4, 1, 0.4], (5000, 3))
    body = rng.uniform([-2, -3, -1], [2, 0, 3], (5000, 3))
    turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    starts = starting_poses(
        np.concatenate([head, body]) @ turn,
        np.array([[0.1, 0.0, 0.2]]),
        top=1.0,
        height=0.9,
        scales=np.array([1.0]),
        rotations=1000,
    )
    upright = np.argmin([rotation_angle(turn, rotation) for rotation in starts.rotation])
    middle = starts.similarity(int(upright)).apply(np.array([[0, 0.5, 0]]) @ turn)
    np.testing.assert_allclose(middle, [[0.1, 0.5, 0.2]], atol=0.25)


def test_the_search_finds_a_body_without_symmetry(rng):
    template = snowman(rng)
    truth = Similarity(1.3, Rotation.from_quat(rng.normal(size=4)).as_matrix(), np.ones(3))
    scan = OrientedCloud(truth.inverse().apply(template.points), template.normals @ truth.rotation)
    weights = np.ones(len(template.points))
    search = PoseSearch(scan, template, weights=weights, score_weights=weights, scale_range=(0.5, 3.0), rng=rng)
    top, centre = float(template.points[:, 1].max()), template.points.mean(axis=0)
    starts = starting_poses(scan.points, centre[None], top=top, height=2.0, scales=np.array([1.0, 1.5]), rotations=100)
    poses, scores = search.run(starts)
    assert len(poses) == 50
    assert (np.diff(scores) <= 0).all()
    best = poses.similarity(0)
    assert best.angle_to(truth) < 10
    assert best.scale == pytest.approx(truth.scale, rel=0.05)


def test_the_overlap_score_is_the_geometric_mean_of_two_shares():
    far = 1e6
    score = overlap_score(
        np.array([0.0, 0.0, far, far]),
        np.ones(4),
        np.array([True, True, True, False]),
        np.array([0.0, far, 0.0]),
        np.array([1.0, 1.0, 0.5]),
        np.array([3.0, 1.0, 2.0]),
        width=0.1,
    )
    assert score == pytest.approx(np.sqrt(2 / 3 * (3 + 2 * 0.5) / 6))


def test_a_distance_of_one_width_covers_half():
    one = np.array([0.04])
    score = overlap_score(one, np.ones(1), np.ones(1, bool), one, np.ones(1), np.ones(1), width=0.2)
    assert score == pytest.approx(0.5)


def test_distinct_poses_keep_the_first_of_each_kind():
    turns = Rotation.from_rotvec(np.outer([0, 10, 25, 0, 100], [0, 1, 0]), degrees=True).as_matrix()
    poses = Poses(np.array([1, 1, 1, 1.5, 1.0]), turns, np.arange(15.0).reshape(5, 3))
    kept = distinct_poses(poses, angle=20.0, count=3)
    np.testing.assert_array_equal(kept.translation[:, 0], [0, 6, 9])
