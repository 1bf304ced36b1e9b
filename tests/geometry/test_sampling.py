import numpy as np
import pytest
import trimesh

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import sample_surface


def sphere_mesh(subdivisions=3):
    sphere = trimesh.creation.icosphere(subdivisions=subdivisions)
    return Mesh(sphere.vertices, sphere.faces)


def uneven_mesh():
    """A long strip of triangles whose areas grow a thousandfold, with empty ones between and at the end."""
    x = np.concatenate([[0], np.cumsum(np.geomspace(1e-3, 1, 50))])
    vertices = np.stack([np.repeat(x, 2), np.tile([0.0, 1.0], len(x)), np.zeros(2 * len(x))], axis=1)
    first = np.arange(0, 2 * len(x) - 2, 2)
    faces = np.concatenate([np.stack([first, first + 2, first + 1], axis=1), [[0, 0, 1], [3, 3, 3]]])
    return Mesh(vertices, faces)


def test_samples_lie_on_their_faces():
    mesh = sphere_mesh()
    samples = sample_surface(mesh, 5000, rng=np.random.default_rng(0))
    corners = mesh.vertices[mesh.faces[samples.faces]]
    np.testing.assert_allclose(np.einsum("nk,nkd->nd", samples.barycentric, corners), samples.points)
    np.testing.assert_allclose(samples.barycentric.sum(axis=1), 1)
    assert samples.barycentric.min() >= 0
    np.testing.assert_array_equal(samples.normals, mesh.face_normals()[samples.faces])


@pytest.mark.parametrize("mesh", [sphere_mesh(), uneven_mesh()])
def test_each_face_gets_its_share_of_the_area_to_within_two(mesh):
    count = 20_000
    samples = sample_surface(mesh, count, rng=np.random.default_rng(1))
    areas = mesh.face_areas()
    expected = count * areas / areas.sum()
    counts = np.bincount(samples.faces, minlength=len(areas))
    assert np.abs(counts - expected).max() < 2
    assert counts[areas == 0].sum() == 0


def test_samples_are_uniform_within_a_face():
    triangle = Mesh(np.eye(3), np.array([[0, 1, 2]]))
    barycentric = sample_surface(triangle, 200_000, rng=np.random.default_rng(2)).barycentric
    np.testing.assert_allclose(barycentric.mean(axis=0), 1 / 3, atol=2e-3)
    np.testing.assert_allclose(barycentric.var(axis=0), 1 / 18, atol=5e-4)
    # A quarter of the area lies in each of the corners' halves and in the middle.
    np.testing.assert_allclose((barycentric > 0.5).mean(axis=0), 0.25, atol=4e-3)


def test_smooth_normals_follow_the_sphere_more_closely():
    mesh = sphere_mesh()
    rng = np.random.default_rng(3)
    smooth = sample_surface(mesh, 2000, rng=rng, smooth_normals=True)
    outwards = smooth.points / np.linalg.norm(smooth.points, axis=1, keepdims=True)
    flat_error = 1 - (mesh.face_normals()[smooth.faces] * outwards).sum(axis=1)
    smooth_error = 1 - (smooth.normals * outwards).sum(axis=1)
    assert smooth_error.max() < 0.1 * flat_error.max()
    np.testing.assert_allclose(np.linalg.norm(smooth.normals, axis=1), 1)


def test_equal_seeds_give_equal_samples():
    one, same, other = (sample_surface(sphere_mesh(), 100, rng=np.random.default_rng(s)) for s in (5, 5, 6))
    np.testing.assert_array_equal(one.points, same.points)
    assert not np.array_equal(one.points, other.points)


def test_no_samples_are_no_samples():
    assert sample_surface(sphere_mesh(), 0, rng=np.random.default_rng(0)).points.shape == (0, 3)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (Mesh(np.eye(3)), "has no faces"),
        (Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), "have no area"),
    ],
)
def test_what_has_no_surface_is_refused(mesh, message):
    with pytest.raises(InputError, match=message):
        sample_surface(mesh, 10, rng=np.random.default_rng(0))
