import numpy as np
import pytest
import trimesh

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.simplification import simplify, surface_weights


def ball(centre: float = 0.0) -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions=3)
    return Mesh(np.asarray(sphere.vertices) + centre, np.asarray(sphere.faces))


def bowl(n: int = 15) -> Mesh:
    """An open, uneven sheet."""
    rng = np.random.default_rng(0)
    x, y = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij")) / n + rng.uniform(0, 0.3 / n, (2, n, n))
    number = np.arange(n * n).reshape(n, n)
    a, b, c, d = (v.ravel() for v in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return Mesh(np.stack([x.ravel(), y.ravel(), (x**2 + y**2).ravel()], axis=1), faces)


def pair() -> Mesh:
    one, other = ball(), ball(5.0)
    return Mesh(
        np.concatenate([one.vertices, other.vertices]), np.concatenate([one.faces, other.faces + len(one.vertices)])
    )


@pytest.mark.parametrize("make", [ball, bowl, pair])
@pytest.mark.parametrize("factor", [2, 4, 7])
def test_a_mesh_of_any_kind_is_brought_to_exactly_that_many_of_its_own_vertices(make, factor):
    fine = make()
    count = -(-len(fine.vertices) // factor)
    coarse = simplify(fine, count)
    assert len(np.unique(coarse.kept)) == len(coarse.mesh.vertices) == count
    np.testing.assert_array_equal(coarse.mesh.vertices, fine.vertices[coarse.kept])
    np.testing.assert_array_equal(np.unique(coarse.mesh.faces), np.arange(count))
    assert coarse.mesh.is_watertight() == fine.is_watertight()


def test_linear_functions_survive_the_way_to_a_coarser_mesh_and_back():
    fine = ball()
    coarse = simplify(fine, 161)
    corners, weights = surface_weights(fine.vertices, coarse.mesh)
    np.testing.assert_allclose(weights.sum(1), 1)
    assert weights.min() >= 0
    values = fine.vertices @ np.random.default_rng(0).normal(size=(3, 5)) + 2.0
    back = (values[coarse.kept][corners] * weights[..., None]).sum(1)
    np.testing.assert_allclose(back[coarse.kept], values[coarse.kept], atol=1e-12)
    # What is left is how far the coarse surface lies below the fine one.
    sagitta = np.linalg.norm((fine.vertices[coarse.kept][corners] * weights[..., None]).sum(1) - fine.vertices, axis=1)
    assert sagitta.max() < 0.08
    assert np.abs(back - values).mean() < 0.03 * values.std()


def test_equal_meshes_are_simplified_alike():
    one, other = simplify(bowl(), 40), simplify(bowl(), 40)
    np.testing.assert_array_equal(one.kept, other.kept)
    np.testing.assert_array_equal(one.mesh.faces, other.mesh.faces)


@pytest.mark.parametrize("count", [3, 642, 700])
def test_a_count_that_is_no_simplification_is_refused(count):
    with pytest.raises(InputError, match=f"{count} vertices asked of a mesh of 642; expected at least 4 and fewer"):
        simplify(ball(), count)


def test_a_mesh_that_cannot_become_so_small_is_refused():
    corner = trimesh.creation.icosahedron()
    two = np.concatenate([corner.faces, corner.faces + 12])
    with pytest.raises(InputError, match="24 vertices cannot be brought to 5"):
        simplify(Mesh(np.concatenate([corner.vertices, corner.vertices + 9]), two), 5)
