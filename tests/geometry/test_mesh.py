import numpy as np
import pytest
import trimesh

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh, check_scan, mesh_from_arrays, thin, unit_vectors
from implicit3dmm.geometry.mesh_arrays import MeshArrays
from implicit3dmm.geometry.similarity import Similarity


def from_trimesh(mesh):
    return Mesh(mesh.vertices, mesh.faces)


def cube():
    return from_trimesh(trimesh.creation.box((1, 2, 3)))


def sphere(subdivisions=3):
    return from_trimesh(trimesh.creation.icosphere(subdivisions=subdivisions))


def two_pieces():
    """A small sphere of many faces beside a large one of few, and a vertex that no face uses."""
    many, few = sphere(3), sphere(1)
    vertices = np.concatenate([0.1 * many.vertices + 5, few.vertices, [[9.0, 9, 9]]])
    colors = np.repeat(np.uint8([[1, 1, 1], [2, 2, 2]]), [len(many.vertices), len(few.vertices) + 1], axis=0)
    return Mesh(vertices, np.concatenate([many.faces, few.faces + len(many.vertices)]), vertices, colors)


def test_arrays_get_the_documented_types():
    colors = np.full((3, 3), 7, dtype=np.uint8)[:, ::-1]
    mesh = Mesh(np.eye(3, dtype=np.float32)[::-1], np.array([[0, 1, 2]], dtype=np.int32), np.eye(3), colors)
    for array, dtype in ((mesh.vertices, np.float64), (mesh.faces, np.int64), (mesh.colors, np.uint8)):
        assert array.dtype == dtype
        assert array.flags.c_contiguous


def test_box_has_the_areas_normals_and_volume_of_a_box():
    mesh = cube()
    assert mesh.face_areas().sum() == pytest.approx(22)
    assert mesh.volume() == pytest.approx(6)
    np.testing.assert_allclose(mesh.bounds(), [[-0.5, -1, -1.5], [0.5, 1, 1.5]])
    centres = mesh.vertices[mesh.faces].mean(axis=1)
    assert ((mesh.face_normals() * centres).sum(axis=1) > 0).all()
    np.testing.assert_allclose(np.abs(mesh.face_normals()).max(axis=1), 1)


def test_volume_does_not_lose_digits_far_away():
    far = Mesh(cube().vertices + 1e8, cube().faces)
    assert far.volume() == pytest.approx(6, rel=1e-6)


def test_vertex_normals_are_area_weighted_unit_and_zero_without_faces():
    mesh = sphere()
    np.testing.assert_allclose((mesh.vertex_normals() * mesh.vertices).sum(axis=1), 1, atol=2e-3)
    weighted = np.zeros_like(mesh.vertices)
    for face, normal, area in zip(mesh.faces, mesh.face_normals(), mesh.face_areas(), strict=True):
        weighted[face] += normal * area
    np.testing.assert_allclose(mesh.vertex_normals(), unit_vectors(weighted), atol=1e-12)
    lonely = Mesh(np.vstack([mesh.vertices, [0, 0, 0]]), mesh.faces)
    np.testing.assert_array_equal(lonely.vertex_normals()[-1], 0)


@pytest.mark.parametrize(
    ("mesh", "euler"),
    [(sphere(), 2), (from_trimesh(trimesh.creation.torus(1, 0.3)), 0), (two_pieces(), 4)],
)
def test_closed_meshes_are_watertight_with_their_euler_number(mesh, euler):
    assert mesh.is_watertight()
    assert mesh.euler_number() == euler


def test_open_inconsistent_and_doubled_meshes_are_not_watertight():
    mesh = sphere(1)
    flipped = mesh.faces.copy()
    flipped[0] = flipped[0, ::-1]
    for faces in (mesh.faces[1:], flipped, np.concatenate([mesh.faces, mesh.faces]), mesh.faces[:0]):
        assert not Mesh(mesh.vertices, faces).is_watertight()
    assert Mesh(mesh.vertices, mesh.faces[1:]).euler_number() == 1


def test_largest_component_has_the_largest_area_and_only_its_vertices():
    kept = two_pieces().largest_component()
    np.testing.assert_allclose(kept.vertices, sphere(1).vertices)
    np.testing.assert_array_equal(kept.faces, sphere(1).faces)
    np.testing.assert_allclose(kept.normals, kept.vertices)
    assert (kept.colors == 2).all()
    assert np.bincount(two_pieces().face_components()).tolist() == [1280, 80]


def test_transformed_mesh_keeps_unit_normals_and_scales_its_volume():
    ball = sphere()
    mesh = Mesh(ball.vertices, ball.faces, ball.vertices, np.ones(ball.vertices.shape, dtype=np.uint8))
    angle = 0.4
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    moved = mesh.transformed(Similarity(3.0, rotation, np.array([1.0, 2, 3])))
    np.testing.assert_allclose(moved.vertices, 3 * mesh.vertices @ rotation.T + [1, 2, 3])
    np.testing.assert_allclose(moved.normals, mesh.vertices @ rotation.T)
    assert moved.volume() == pytest.approx(27 * mesh.volume())
    np.testing.assert_array_equal(moved.colors, mesh.colors)


def test_thinned_mesh_is_a_repeatable_part_of_its_vertices():
    mesh = sphere(4)
    thinned, same, other = (thin(mesh, 500, rng=np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert thinned.vertices.shape == (500, 3)
    assert thinned.faces is None
    np.testing.assert_array_equal(thinned.vertices, same.vertices)
    assert not np.array_equal(thinned.vertices, other.vertices)
    assert len(np.unique(np.concatenate([thinned.vertices, mesh.vertices]), axis=0)) == len(mesh.vertices)
    np.testing.assert_allclose((thinned.normals * thinned.vertices).sum(axis=1), 1, atol=1e-3)


def test_small_mesh_is_not_thinned():
    mesh = sphere()
    assert thin(mesh, len(mesh.vertices), rng=np.random.default_rng(0)) is mesh


def rotated(points):
    rotation = np.linalg.qr(np.random.default_rng(9).normal(size=(3, 3)))[0]
    return points @ rotation.T + [3.0, -1.0, 2.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("axes", "message"), [(0, "in one place"), (1, "on one line"), (2, "in one plane")])
def test_flat_scans_are_refused_by_what_they_are(axes, message, unit, dtype):
    points = np.random.default_rng(0).normal(size=(500, 3)) * (np.arange(3) < axes)
    with pytest.raises(InputError, match=f"all 500 points of the scan lie {message}"):
        check_scan(Mesh((rotated(points) * unit).astype(dtype)))


def test_scans_of_few_points_are_refused():
    with pytest.raises(InputError, match="the scan has 99 points; at least 100 are needed"):
        check_scan(Mesh(np.random.default_rng(0).normal(size=(99, 3))))


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_shallow_scans_are_accepted_anywhere(offset):
    points = np.random.default_rng(0).normal(size=(100, 3)) * [1, 1, 0.01]
    check_scan(Mesh(points + offset))


POINTS = np.random.default_rng(0).normal(size=(200, 3))


def with_value(value, row):
    points = POINTS.copy()
    points[row, 1] = value
    return points


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (MeshArrays(with_value(np.nan, 17)), "scan: 1 of 200 points have NaN or infinite .* is point 17;"),
        (MeshArrays(with_value(-np.inf, 0)), "1 of 200 points have NaN or infinite"),
        (MeshArrays(with_value(1e13, 3)), r"scan has a coordinate of 1e\+13; at most 1e\+12"),
        (MeshArrays(POINTS.astype(complex)), "of type complex128; real numbers are expected"),
        (MeshArrays(POINTS > 0), "of type bool; real numbers"),
        (MeshArrays(POINTS.astype(object)), "of type object; real numbers"),
        (MeshArrays(POINTS[:, :2]), r"have shape \(200, 2\); \(n, 3\) is expected"),
        (MeshArrays(POINTS.ravel()), r"have shape \(600,\)"),
        (MeshArrays(POINTS[:0]), "scan has no points"),
        (MeshArrays(POINTS, np.array([[0, 1, 200]])), r"1 of 1 faces .* face 0: \[0, 1, 200\]; .* 0 to 199"),
        (MeshArrays(POINTS, np.array([[0, 1, 2], [0, -1, 2]])), "1 of 2 faces name vertices that do not"),
        (MeshArrays(POINTS, np.array([[0, 1, 2**64 - 1]], dtype=np.uint64)), "1 of 1 faces name"),
        (MeshArrays(POINTS, np.array([[0.0, 1, 2]])), "faces are of type float64; integers are expected"),
        (MeshArrays(POINTS, np.array([[0, 1, 2, 3]])), r"faces have shape \(1, 4\); \(f, 3\)"),
        (MeshArrays(POINTS, normals=POINTS[1:]), r"normals have shape \(199, 3\); \(200, 3\)"),
        (MeshArrays(POINTS, colors=POINTS[:, :1]), r"colours have shape \(200, 1\)"),
    ],
)
def test_unusable_arrays_are_refused_in_one_line(arrays, message):
    with pytest.raises(InputError, match=message) as error:
        mesh_from_arrays(arrays, source="scan")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int16, np.uint8, ">f4"])
def test_any_real_number_type_is_accepted(dtype):
    points = np.arange(30).reshape(10, 3).astype(dtype)
    np.testing.assert_array_equal(
        mesh_from_arrays(MeshArrays(points), source="").vertices, np.arange(30.0).reshape(10, 3)
    )


def test_normals_become_unit_or_zero():
    normals = np.array([[0, 0, 5.0], [np.nan, 0, 1], [np.inf, 0, 0], [0, 0, 0]])
    mesh = mesh_from_arrays(MeshArrays(POINTS[:4], normals=normals), source="")
    np.testing.assert_array_equal(mesh.normals, [[0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_colors_are_read_in_both_ranges_and_without_alpha():
    expected = np.uint8([[0, 128, 255]])
    for colors in ([[0, 128, 255, 9]], [[0.0, 0.502, 1.0]], [[0.0, 128.0, 255.0]]):
        mesh = mesh_from_arrays(MeshArrays(POINTS[:1], colors=np.array(colors)), source="")
        np.testing.assert_array_equal(mesh.colors, expected)


def test_empty_faces_mean_a_point_cloud():
    assert mesh_from_arrays(MeshArrays(POINTS, np.empty((0, 3), dtype=int)), source="").faces is None
