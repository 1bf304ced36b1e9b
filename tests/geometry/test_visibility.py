import numpy as np
import pytest
import trimesh

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.geometry.visibility import visible_from


def ball():
    made = trimesh.creation.icosphere(subdivisions=4)
    return Mesh(made.vertices, made.faces)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_of_a_ball_a_cap_is_seen(offset):
    mesh, eye = ball(), np.array([0.0, 0.0, 3.0])
    samples = sample_surface(mesh, 5000, rng=np.random.default_rng(0))
    moved = Mesh(mesh.vertices + offset, mesh.faces)
    seen = visible_from(samples.points + offset, moved, eye + offset)
    facing = np.einsum("ij,ij->i", samples.normals, eye - samples.points) > 0
    assert (seen == facing).mean() > 0.999
    assert seen.mean() == pytest.approx(0.5 * (1 - 1 / 3), abs=0.02)


def test_what_stands_in_the_way_hides():
    mesh = ball()
    points = sample_surface(mesh, 500, rng=np.random.default_rng(0)).points
    wall = np.array([[-9.0, -9, 2], [9, -9, 2], [0, 18, 2]])
    walled = Mesh(np.vstack([mesh.vertices, wall]), np.vstack([mesh.faces, [np.arange(3) + len(mesh.vertices)]]))
    assert not visible_from(points, walled, np.array([0.0, 0, 3])).any()
    assert visible_from(points, walled, np.array([0.0, 0, 1.5])).any()


def test_points_alone_hide_nothing_and_are_refused():
    with pytest.raises(InputError, match="the mesh has no faces"):
        visible_from(np.zeros((1, 3)), Mesh(np.eye(3)), np.ones(3))
