import sys

import numpy as np
import pytest
import trimesh

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.render.camera import camera_for_points, camera_from_view
from implicit3dmm.render.raytrace import trace_mesh

BOX = np.array([[-1.0, -1, -1], [1, 1, 1]])


def sphere(subdivisions=5, radius=1.0, centre=(0, 0, 0)):
    ball = trimesh.creation.icosphere(subdivisions, radius)
    return Mesh(ball.vertices + centre, ball.faces)


def triangle_soup(count=40, seed=3):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-1, 1, (count, 1, 3)) + rng.normal(0, 0.3, (count, 3, 3))
    return Mesh(corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3))


def nearest_by_hand(mesh, camera, size, antialias):
    """Nearest triangle under each sample, or -1, by solving for each pair of a sample and a triangle."""
    nearest = np.full((size[1] * antialias, size[0] * antialias), -1)
    pitch = camera.pixel_pitch(size)
    eye = camera.target + camera.distance * camera.axes[2]
    for row, column in np.ndindex(*nearest.shape):
        x = ((column + 0.5) / antialias - size[0] / 2) * pitch
        y = (size[1] / 2 - (row + 0.5) / antialias) * pitch
        direction = camera.target + x * camera.axes[0] + y * camera.axes[1] - eye
        best = np.inf
        for index, (a, b, c) in enumerate(mesh.vertices[mesh.faces]):
            u, v, t = np.linalg.solve(np.stack([b - a, c - a, -direction], axis=1), eye - a)
            if u >= 0 and v >= 0 and u + v <= 1 and 0 < t < best:
                best, nearest[row, column] = t, index
    return nearest


def test_the_nearest_triangle_is_found_as_by_hand():
    mesh, size, antialias = triangle_soup(), (24, 20), 2
    camera = camera_for_points("three_quarter", mesh.vertices)
    seen = trace_mesh(mesh, camera, size=size, antialias=antialias)
    found = np.full((40, 48), -1)
    found[seen.row, seen.column] = seen.vertices[:, 0] // 3
    np.testing.assert_array_equal(found, nearest_by_hand(mesh, camera, size, antialias))


@pytest.mark.parametrize("field_of_view", [0.0, 12.0])
def test_the_silhouette_of_a_sphere_has_its_area(field_of_view):
    camera = camera_from_view("profile", BOX, field_of_view=field_of_view)
    seen = trace_mesh(sphere(), camera, size=(200, 240), antialias=3)
    # From a distance d, a unit sphere covers a disc of radius d / sqrt(d^2 - 1) in its central plane.
    radius = 1.0 if field_of_view == 0 else 1 / np.sqrt(1 - 1 / camera.distance**2)
    area = len(seen.depth) / 9 * camera.pixel_pitch((200, 240)) ** 2
    assert area == pytest.approx(np.pi * radius**2, rel=2e-3)


@pytest.mark.parametrize("field_of_view", [0.0, 12.0])
def test_normals_depth_and_weights_are_those_of_the_sphere(field_of_view):
    mesh = sphere(centre=(3, -2, 5))
    camera = camera_for_points("three_quarter", mesh.vertices, field_of_view=field_of_view)
    seen = trace_mesh(mesh, camera, size=(90, 90), antialias=2)
    points = camera.to_view(seen.interpolate(mesh.vertices))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(seen.depth, points[:, 2], atol=5e-5)
    np.testing.assert_allclose(seen.normals, points, atol=5e-3)
    assert not seen.inside.any()
    column, row, _ = camera.project(seen.interpolate(mesh.vertices), (90, 90)).T * 2
    np.testing.assert_allclose(column, seen.column + 0.5, atol=1e-3)
    np.testing.assert_allclose(row, seen.row + 0.5, atol=1e-3)


def test_the_back_of_a_surface_is_marked_and_its_normals_turned():
    mesh = sphere()
    seen = trace_mesh(
        Mesh(mesh.vertices, mesh.faces[:, ::-1]), camera_from_view("front", BOX), size=(40, 40), antialias=1
    )
    assert seen.inside.all()
    assert (seen.normals[:, 2] > -0.05).all()


def test_a_vertex_whose_normals_cancel_takes_the_faces_own():
    two_sided = Mesh(np.array([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 1]]))
    seen = trace_mesh(two_sided, camera_from_view("front", BOX), size=(20, 20), antialias=1)
    assert len(seen.depth) > 0
    np.testing.assert_allclose(np.abs(seen.normals), np.broadcast_to([0, 0, 1], seen.normals.shape), atol=1e-6)


@pytest.mark.parametrize(
    "mesh",
    [sphere(2, centre=(50, 0, 0)), Mesh(np.eye(3), np.zeros((0, 3), dtype=int))],
    ids=["aside", "no faces"],
)
def test_what_is_not_in_the_picture_gives_no_fragments(mesh):
    seen = trace_mesh(mesh, camera_from_view("front", BOX), size=(20, 20), antialias=2)
    assert len(seen.depth) == len(seen.normals) == 0


def test_without_embreex_the_refusal_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex.rtcore_scene", None)
    with pytest.raises(InputError, match="pip install embreex"):
        trace_mesh(sphere(1), camera_from_view("front", BOX), size=(20, 20), antialias=1)
