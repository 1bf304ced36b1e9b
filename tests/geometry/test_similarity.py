import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.similarity import Similarity, fit_similarity, rotation_angle


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def random_similarity(rng):
    return Similarity(rng.uniform(0.01, 50), Rotation.from_quat(rng.normal(size=4)).as_matrix(), rng.normal(0, 30, 3))


def assert_same(a, b, tolerance=1e-9):
    np.testing.assert_allclose(a.matrix(), b.matrix(), rtol=tolerance, atol=tolerance * (1 + b.scale))


def test_apply_agrees_with_the_homogeneous_matrix(rng):
    transform, points = random_similarity(rng), rng.normal(size=(5, 7, 3))
    homogeneous = np.concatenate([points, np.ones((5, 7, 1))], axis=-1)
    expected = np.einsum("ij,bnj->bni", transform.matrix(), homogeneous)[..., :3]
    np.testing.assert_allclose(transform.apply(points), expected, rtol=1e-12, atol=1e-9)


def test_inverse_and_composition_are_those_of_the_matrices(rng):
    a, b = random_similarity(rng), random_similarity(rng)
    np.testing.assert_allclose(a.inverse().matrix(), np.linalg.inv(a.matrix()), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(a.compose(b).matrix(), a.matrix() @ b.matrix(), rtol=1e-9, atol=1e-9)
    assert_same(a.compose(a.inverse()), Similarity.identity())


def test_normals_are_turned_but_not_scaled(rng):
    transform, normals = random_similarity(rng), rng.normal(size=(20, 3))
    turned = transform.apply_to_normals(normals)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(normals, axis=1))
    moved = transform.apply(normals) - transform.apply(np.zeros(3))
    np.testing.assert_allclose(transform.scale * turned, moved, rtol=1e-9, atol=1e-9)


def test_a_matrix_is_read_back_and_its_rounding_removed(rng):
    transform = random_similarity(rng)
    assert_same(Similarity.from_matrix(transform.matrix()), transform)
    read = Similarity.from_matrix(np.round(transform.matrix(), 3))
    np.testing.assert_allclose(read.rotation @ read.rotation.T, np.eye(3), atol=1e-12)
    assert read.angle_to(transform) < 0.1


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(3),
        np.diag([1.0, 1.0, -1.0, 1.0]),
        np.diag([1.0, 1.1, 1.0, 1.0]),
        np.zeros((4, 4)) + np.diag([0.0, 0, 0, 1]),
        np.full((4, 4), np.nan),
        np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [3, 2, 1, 1]]),
        np.array([[1.0, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
    ids=["shape", "mirror", "stretch", "zero", "nan", "transposed", "shear"],
)
def test_a_matrix_that_is_no_similarity_is_refused(matrix):
    with pytest.raises(InputError, match=r".+; .+; .+"):
        Similarity.from_matrix(matrix)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.5, 90.0, 179.9, 180.0])
def test_the_angle_between_rotations_keeps_its_digits(angle, rng):
    base = Rotation.from_quat(rng.normal(size=4))
    axis = rng.normal(size=3)
    turned = Rotation.from_rotvec(np.radians(angle) * axis / np.linalg.norm(axis)) * base
    assert rotation_angle(base.as_matrix(), turned.as_matrix()) == pytest.approx(angle, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("count", [3, 4, 200])
def test_a_known_similarity_is_recovered(count, rng):
    transform, source = random_similarity(rng), rng.normal(size=(count, 3))
    assert_same(fit_similarity(source, transform.apply(source)), transform)


def test_a_rotation_is_recovered_where_the_scale_is_held(rng):
    motion = Similarity(1.0, Rotation.from_quat(rng.normal(size=4)).as_matrix(), rng.normal(size=3))
    source = rng.normal(size=(50, 3))
    assert_same(fit_similarity(source, motion.apply(source), with_scale=False), motion)
    assert fit_similarity(source, 3 * source, with_scale=False).scale == 1.0


def test_points_without_weight_do_not_count(rng):
    transform, source = random_similarity(rng), rng.normal(size=(40, 3))
    target = transform.apply(source)
    target[:15] += 100 * rng.normal(size=(15, 3))
    assert_same(fit_similarity(source, target, weights=np.r_[np.zeros(15), np.full(25, 3.0)]), transform)


def test_an_integer_weight_is_a_repeated_point(rng):
    source, target, weights = rng.normal(size=(9, 3)), rng.normal(size=(9, 3)), rng.integers(1, 5, 9)
    repeated = fit_similarity(np.repeat(source, weights, axis=0), np.repeat(target, weights, axis=0))
    assert_same(fit_similarity(source, target, weights=weights.astype(float)), repeated)


def test_the_result_is_the_least_squares_optimum(rng):
    source, weights = rng.normal(size=(30, 3)), rng.uniform(0.1, 2, 30)
    target = random_similarity(rng).apply(source) + rng.normal(0, 5, (30, 3))

    def loss(parameters):
        moved = parameters[0] * source @ Rotation.from_rotvec(parameters[1:4]).as_matrix().T + parameters[4:]
        return weights @ ((moved - target) ** 2).sum(1)

    fit = fit_similarity(source, target, weights=weights)
    start = np.r_[fit.scale, Rotation.from_matrix(fit.rotation).as_rotvec(), fit.translation]
    assert minimize(loss, start, method="BFGS").fun >= loss(start) * (1 - 1e-9)


@pytest.mark.parametrize("flat", [False, True])
def test_mirrored_input_gives_a_proper_rotation(flat, rng):
    source = rng.normal(size=(30, 3)) * [1, 1, 0 if flat else 1]
    fit = fit_similarity(source, source * [-1, 1, 1])
    assert np.linalg.det(fit.rotation) == pytest.approx(1)


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((0, 3)),
        np.eye(3)[:2],
        np.ones((10, 3)),
        np.linspace(0, 1, 10)[:, None] * [1, 2, 3] + 1000,
        np.full((4, 3), np.nan),
    ],
    ids=["empty", "two", "one place", "line", "nan"],
)
@pytest.mark.parametrize("swap", [False, True])
def test_degenerate_points_are_refused(source, swap, rng):
    target = rng.normal(size=source.shape)
    with pytest.raises(InputError, match=r".+; .+; .+"):
        fit_similarity(*((target, source) if swap else (source, target)))


def test_too_few_weighted_points_are_refused(rng):
    points = rng.normal(size=(10, 3))
    with pytest.raises(InputError, match="2 point pairs"):
        fit_similarity(points, points, weights=np.r_[1.0, 1.0, np.zeros(8)])
