import numpy as np

from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.mesh_models.pca_solver import POSE, _barycentric, _linearised, _moved

STEP = 1e-5


def test_slopes_are_those_of_finite_differences(model):
    """Of the distances in the scan's unit, wherever the closest place stays on its triangle."""
    basis = model.basis[:, :6].astype(np.float64)
    coefficients = np.array([0.5, -1.0, 0.3, 0.0, 1.0, -0.4])
    start = model.mean.ravel() + basis @ coefficients
    on_mean = sample_surface(Mesh(start.reshape(-1, 3), model.skin), 500, rng=np.random.default_rng(0))
    points = on_mean.points + 0.004 * on_mean.normals

    def residual(change: np.ndarray) -> np.ndarray:
        vertices = start + basis @ change[POSE:]
        pose = _moved(change[:POSE])
        return _linearised(Mesh(vertices.reshape(-1, 3), model.skin), basis, pose.apply(points)).residual / pose.scale

    rows = _linearised(Mesh(start.reshape(-1, 3), model.skin), basis, points)
    for column in range(POSE + 6):
        change = np.zeros(POSE + 6)
        change[column] = STEP
        slope = (residual(change) - residual(-change)) / (2 * STEP)
        wrong = np.abs(slope - rows.jacobian[:, column]) > 0.02 * np.abs(slope).max()
        assert wrong.mean() < 0.1, column


def test_a_large_step_is_cut_short():
    move = _moved(np.full(POSE, 10.0))
    assert move.scale < 1.2
    assert move.angle_to(Similarity.identity()) < 25
    assert np.abs(move.translation).max() <= 0.2


def test_shares_make_the_place_and_a_flat_triangle_has_even_ones():
    surface = Mesh(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]), np.array([[0, 1, 2], [0, 0, 3]]))
    places = np.array([[0.2, 0.3, 0.0], [0.0, 0.0, 0.0]])
    shares = _barycentric(surface, surface.faces, places)
    np.testing.assert_allclose(shares, [[0.5, 0.2, 0.3], [1 / 3, 1 / 3, 1 / 3]])
