import numpy as np
import pytest
import trimesh

from implicit3dmm.geometry.laplacian import cotangent_laplacian, mean_curvature
from implicit3dmm.geometry.mesh import Mesh


def ball(radius: float) -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return Mesh(np.asarray(sphere.vertices), np.asarray(sphere.faces))


def sheet(rng: np.random.Generator, n: int = 9) -> tuple[Mesh, np.ndarray]:
    """A flat sheet of uneven triangles, and which of its vertices are not on its edge."""
    x, y = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    number = np.arange(n * n).reshape(n, n)
    a, b, c, d = (v.ravel() for v in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    inner = ((x > 0) & (x < n - 1) & (y > 0) & (y < n - 1)).ravel()
    places = np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], axis=1)
    places[:, :2] += inner[:, None] * rng.uniform(-0.2, 0.2, (n * n, 2))
    return Mesh(places, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])), inner


@pytest.mark.parametrize("radius", [0.5, 3.0])
def test_a_ball_has_the_curvature_of_its_radius(radius):
    np.testing.assert_allclose(mean_curvature(ball(radius)), 1 / radius, rtol=0.01)


def test_a_hollow_has_negative_curvature():
    inside_out = Mesh(ball(2.0).vertices, ball(2.0).faces[:, ::-1])
    np.testing.assert_allclose(mean_curvature(inside_out), -0.5, rtol=0.01)


def test_linear_values_on_a_plane_have_no_laplacian():
    mesh, inner = sheet(np.random.default_rng(0))
    laplacian, areas = cotangent_laplacian(mesh)
    np.testing.assert_allclose((laplacian @ mesh.vertices)[inner], 0, atol=1e-12)
    bowl = np.square(mesh.vertices).sum(axis=1)  # whose Laplacian is 4
    assert (laplacian @ bowl)[inner].sum() == pytest.approx(4 * areas[inner].sum(), rel=0.1)
    np.testing.assert_allclose(mean_curvature(mesh)[inner], 0, atol=1e-12)


def test_it_is_symmetric_and_its_areas_make_up_the_surface():
    mesh = ball(1.7)
    laplacian, areas = cotangent_laplacian(mesh)
    assert abs(laplacian - laplacian.T).max() < 1e-12
    np.testing.assert_allclose(laplacian @ np.ones(len(mesh.vertices)), 0, atol=1e-12)
    assert areas.sum() == pytest.approx(mesh.face_areas().sum())
