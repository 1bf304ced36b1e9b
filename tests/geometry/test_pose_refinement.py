import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from implicit3dmm.geometry.alignment_target import AlignmentTarget
from implicit3dmm.geometry.pointcloud import OrientedCloud, estimate_normals, thin_points
from implicit3dmm.geometry.pose_refinement import FINE, ROUGH, heights_over, refine_pose
from implicit3dmm.geometry.similarity import Similarity

# A blob whose shape has two modes: f(direction) = base + c0 * first + c1 * second, all smooth on the sphere.
FIRST, SECOND = np.array([1.0, 0.4, 0.0]), np.array([0.0, -0.6, 0.8])


def blob(directions, coefficients):
    x, y, z = directions.T
    reach = 0.5 + 0.08 * x * y + 0.1 * z**3 + 0.06 * x * z * z + 0.05 * np.sin(3 * y)
    bumps = np.stack([np.sin(2 * directions @ FIRST) * x, np.cos(3 * directions @ SECOND) * y])
    return reach + 0.02 * np.tensordot(coefficients, bumps, axes=1)


def hair_on(rays):
    return (rays[:, 1] > 0.3) | (rays[:, 2] < -0.5)


def directions(count, rng):
    points = rng.normal(size=(20 * count, 3))
    points = thin_points(points / np.linalg.norm(points, axis=1, keepdims=True), count, rng=rng)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def target(modes, rng):
    rays = directions(3000, rng)
    points = rays * blob(rays, np.zeros(2))[:, None]
    normals = estimate_normals(points)
    normals *= np.sign((normals * rays).sum(axis=1, keepdims=True))
    cosine = (normals * rays).sum(axis=1)
    scaled = np.stack([cosine * (blob(rays, mode) - blob(rays, np.zeros(2))) for mode in np.eye(2)])
    face = rays[:, 2] > 0.3
    return AlignmentTarget(points, normals, face, rays[:, 1] < -0.8, hair_on(rays), scaled[:modes])


def scan(coefficients, truth, rng, *, hair=0.0, keep=lambda rays: np.ones(len(rays), bool), noise=0.0):
    rays = directions(3000, rng)
    rays = rays[keep(rays)]
    reach = blob(rays, np.array(coefficients)) + hair * hair_on(rays)
    points = rays * reach[:, None]
    points = truth.inverse().apply(points + rng.normal(0, 1, points.shape) * noise)
    return OrientedCloud(points, estimate_normals(points))


def start_near(truth, rng):
    axis = rng.normal(size=3)
    turn = Rotation.from_rotvec(np.radians(15) * axis / np.linalg.norm(axis)).as_matrix()
    return Similarity(1.08, turn, np.array([0.03, -0.02, 0.04])).compose(truth)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def truth(rng):
    return Similarity(0.8, Rotation.from_quat(rng.normal(size=4)).as_matrix(), rng.normal(size=3))


def test_pose_and_shape_are_found_together(rng, truth):
    found = refine_pose(
        scan([1.5, -1.0], truth, rng),
        target(2, rng),
        start_near(truth, rng),
        refinement=ROUGH,
        scale_range=(0.1, 9.0),
        rng=rng,
    )
    assert found.similarity.angle_to(truth) < 1
    assert found.similarity.scale == pytest.approx(truth.scale, rel=0.01)
    np.testing.assert_allclose(found.coefficients, [1.5, -1.0], atol=0.3)
    assert found.residual < 0.003
    assert found.inlier_share == 1


def test_a_rigid_template_fits_another_shape_worse(rng, truth):
    other = scan([2.0, -1.5], truth, rng)
    fits = [
        refine_pose(
            other, target(modes, rng), start_near(truth, rng), refinement=ROUGH, scale_range=(0.1, 9.0), rng=rng
        )
        for modes in (0, 2)
    ]
    assert fits[0].coefficients.shape == (0,)
    assert fits[1].score > fits[0].score
    assert fits[1].similarity.angle_to(truth) < fits[0].similarity.angle_to(truth)


def test_the_scale_stays_in_its_range(rng, truth):
    found = refine_pose(
        scan([0, 0], truth, rng),
        target(2, rng),
        start_near(truth, rng),
        refinement=ROUGH,
        scale_range=(0.85, 0.9),
        rng=rng,
    )
    assert found.similarity.scale == pytest.approx(0.85)


def test_hair_is_left_out_of_the_pose_and_its_thickness_is_told(rng, truth):
    head = target(2, rng)
    hairy = scan([0.5, 0.5], truth, rng, hair=0.08)
    options = {"refinement": FINE, "scale_range": (0.1, 9.0), "rng": rng}
    near = Similarity(1.03, np.eye(3), np.full(3, 0.01)).compose(truth)
    bare, full = (refine_pose(hairy, head, near, bare=bare, **options) for bare in (True, False))
    assert bare.similarity.scale == pytest.approx(truth.scale, rel=0.01)
    assert abs(np.log(full.similarity.scale / truth.scale)) > 3 * abs(np.log(bare.similarity.scale / truth.scale))
    assert np.median(heights_over(hairy, head, bare, head.hair)) == pytest.approx(0.08, rel=0.1)
    bald = scan([0.5, 0.5], truth, rng)
    found = refine_pose(bald, head, near, bare=True, **options)
    assert abs(np.median(heights_over(bald, head, found, head.hair))) < 0.005


def test_places_that_a_scan_does_not_show_are_left_out(rng, truth):
    head = target(2, rng)
    face = scan([0, 0], truth, rng, keep=lambda rays: (rays[:, 2] > 0.6) & (rays[:, 1] < 0))
    found = refine_pose(face, head, truth, refinement=FINE, scale_range=(0.79, 0.81), rng=rng, bare=True)
    assert len(heights_over(face, head, found, head.hair)) < head.hair.sum() / 2


@pytest.mark.parametrize("part", ["whole", "half"])
def test_noise_hardly_shrinks_a_scan(part, rng, truth):
    keep = (lambda rays: rays[:, 2] > 0) if part == "half" else (lambda rays: np.ones(len(rays), bool))
    head = target(2, rng)
    noisy = [scan([0, 0], truth, rng, keep=keep, noise=0.01) for _ in range(4)]
    found = [refine_pose(each, head, truth, refinement=FINE, scale_range=(0.1, 9.0), rng=rng) for each in noisy]
    assert np.mean([fit.similarity.scale for fit in found]) == pytest.approx(truth.scale, rel=0.012)
