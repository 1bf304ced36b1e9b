import subprocess
import sys

import numpy as np
import pytest
import trimesh

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.distance import (
    BACKENDS,
    distance_to_surface,
    signed_distance,
    winding_number,
)
from implicit3dmm.geometry.mesh import Mesh

HALF = np.array([0.5, 0.3, 0.7])


def box_mesh():
    box = trimesh.creation.box(2 * HALF)
    return Mesh(box.vertices, box.faces)


def open_box():
    """The box without the lid at the highest z."""
    mesh = box_mesh()
    return mesh.with_faces(mesh.face_normals()[:, 2] < 0.5)


def box_distance(points):
    beyond = np.abs(points) - HALF
    return np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0)


@pytest.fixture
def points(rng):
    return rng.uniform(-1.2, 1.2, (5000, 3))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_signed_distance_of_a_box_is_exact(points):
    result = signed_distance(points, box_mesh())
    np.testing.assert_allclose(result.distance, box_distance(points), atol=1e-12)
    np.testing.assert_allclose(result.winding, box_distance(points) < 0, atol=2e-3)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_unit_and_place_of_the_mesh_do_not_matter(points, scale):
    here = signed_distance(points, box_mesh())
    offset = np.array([300.0, -500.0, 100.0]) * scale
    mesh = Mesh(box_mesh().vertices * scale + offset, box_mesh().faces)
    there = signed_distance(points * scale + offset, mesh)
    np.testing.assert_allclose(there.distance, here.distance * scale, atol=1e-9 * scale)


def test_float32_points_that_are_not_contiguous_are_accepted(points):
    reversed_points = points.astype(np.float32)[::-1]
    result = signed_distance(reversed_points, box_mesh())
    np.testing.assert_allclose(result.distance, box_distance(reversed_points), atol=1e-6)


def test_open_mesh_keeps_the_full_distance_and_says_where_signs_are_unsure(points):
    result = signed_distance(points, open_box())
    unsigned = distance_to_surface(points, open_box()).distance
    np.testing.assert_array_equal(np.abs(result.distance), unsigned)
    sure = np.abs(result.winding - 0.5) > 0.1
    near_lid = np.abs(points[:, 2] - HALF[2]) < 0.5
    assert (sure | near_lid).all()
    below = points[:, 2] < 0
    np.testing.assert_array_equal((result.distance < 0)[below], (box_distance(points) < 0)[below])


def test_winding_number_of_a_reversed_box_is_negative(points):
    mesh = box_mesh()
    winding = winding_number(points, Mesh(mesh.vertices, mesh.faces[:, ::-1]))
    np.testing.assert_allclose(winding, -1.0 * (box_distance(points) < 0), atol=2e-3)


def test_projection_lies_on_its_face_at_its_distance(points):
    mesh = box_mesh()
    projection = distance_to_surface(points, mesh)
    np.testing.assert_allclose(np.linalg.norm(projection.point - points, axis=1), projection.distance)
    corners = mesh.vertices[mesh.faces[projection.face, 0]]
    normals = mesh.face_normals()[projection.face]
    np.testing.assert_allclose(((projection.point - corners) * normals).sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.abs(box_distance(projection.point)), 0, atol=1e-12)


def test_unknown_backend_lists_the_known_ones(points):
    with pytest.raises(InputError, match=r"unknown distance backend 'exact'; known are libigl, mesh-to-sdf"):
        signed_distance(points, box_mesh(), backend="exact")


@pytest.mark.parametrize("function", [signed_distance, distance_to_surface])
def test_point_cloud_is_refused(points, function):
    with pytest.raises(InputError, match="the mesh has no faces"):
        function(points, Mesh(points))


@pytest.mark.parametrize("error", [ImportError("Unable to load OpenGL library\nsecond line"), OSError("x")])
def test_missing_opengl_is_said_in_one_line(points, monkeypatch, error):
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "mesh_to_sdf":
                raise error

    monkeypatch.delitem(sys.modules, "mesh_to_sdf", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(InputError, match="install libgl1") as refused:
        signed_distance(points, box_mesh(), backend="mesh-to-sdf")
    assert "\n" not in str(refused.value)


def test_mesh_to_sdf_is_not_imported_by_the_module():
    assert "mesh-to-sdf" in BACKENDS
    code = "import sys, implicit3dmm.geometry.distance; sys.exit('mesh_to_sdf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mesh_to_sdf_agrees_within_its_error_and_is_repeatable(points):
    pytest.importorskip("mesh_to_sdf", exc_type=ImportError, reason="needs OpenGL libraries")
    first, second = (signed_distance(points[:500], box_mesh(), backend="mesh-to-sdf") for _ in range(2))
    np.testing.assert_allclose(first.distance, box_distance(points[:500]), atol=0.01)
    np.testing.assert_array_equal(first.distance, second.distance)
