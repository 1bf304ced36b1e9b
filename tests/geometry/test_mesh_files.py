import io
import logging
import pickle

import numpy as np
import pytest
import trimesh

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh, read_mesh, write_mesh

SUFFIXES = [".ply", ".obj", ".off", ".stl", ".glb"]


def sphere(subdivisions=2, **arrays):
    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    return Mesh(ball.vertices, ball.faces, **arrays)


def coloured_sphere():
    ball = sphere()
    colors = np.random.default_rng(0).integers(0, 256, ball.vertices.shape, dtype=np.uint8)
    return Mesh(ball.vertices, ball.faces, ball.vertices, colors)


def triangles(mesh):
    """The corners of each face: what a mesh is, whatever the order of its vertices."""
    return mesh.vertices[mesh.faces]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_meshes_come_back_as_they_were_written(tmp_path, suffix, unit):
    mesh = Mesh(sphere().vertices * unit, sphere().faces)
    write_mesh(tmp_path / f"a{suffix}", mesh)
    again = read_mesh(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(triangles(again), triangles(mesh), atol=1e-6 * unit)
    assert len(again.vertices) == len(mesh.vertices)
    assert again.is_watertight()
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off"])
def test_order_of_vertices_and_faces_is_kept(tmp_path, suffix):
    mesh = sphere()
    shuffled = Mesh(mesh.vertices, mesh.faces[np.random.default_rng(0).permutation(len(mesh.faces))])
    write_mesh(tmp_path / f"a{suffix}", shuffled)
    np.testing.assert_array_equal(read_mesh(tmp_path / f"a{suffix}").faces, shuffled.faces)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_colours_and_point_clouds_are_kept(tmp_path, suffix):
    mesh = coloured_sphere()
    for written in (mesh, Mesh(mesh.vertices, None, None, mesh.colors)):
        write_mesh(tmp_path / f"a{suffix}", written)
        again = read_mesh(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(again.colors, mesh.colors)
        assert (again.faces is None) == (written.faces is None)


def test_ply_keeps_normals_and_scalars_that_other_programs_can_read(tmp_path):
    mesh = coloured_sphere()
    confidence = np.linspace(0, 1, len(mesh.vertices))
    write_mesh(tmp_path / "a.ply", mesh, scalars={"confidence": confidence})
    np.testing.assert_allclose(read_mesh(tmp_path / "a.ply").normals, mesh.normals, atol=1e-7)
    other = trimesh.load(tmp_path / "a.ply", process=False)
    np.testing.assert_allclose(other.vertex_normals, mesh.normals, atol=1e-6)
    np.testing.assert_array_equal(other.visual.vertex_colors[:, :3], mesh.colors)
    read = other.metadata["_ply_raw"]["vertex"]["data"]["confidence"]
    np.testing.assert_allclose(read, confidence, atol=1e-7)


def test_ply_far_from_the_origin_keeps_a_millionth_of_the_size(tmp_path):
    mesh = Mesh(0.1 * sphere().vertices + [4e5, 5e6, 100], sphere().faces)
    write_mesh(tmp_path / "a.ply", mesh)
    np.testing.assert_allclose(read_mesh(tmp_path / "a.ply").vertices, mesh.vertices, rtol=0, atol=1e-7)


def ply_header(encoding, *lines):
    return "\n".join(["ply", f"format {encoding} 1.0", "comment by hand", *lines, "end_header\n"]).encode()


QUAD_AND_TRIANGLE = [[0, 1, 2], [0, 2, 3], [4, 5, 6]]
PLY_LINES = [
    "element vertex 7",
    "property float x",
    "property double y",
    "property float z",
    "property uchar red",
    "property uchar green",
    "property uchar blue",
    "element face 2",
    "property uchar quality",
    "property list uchar int vertex_indices",
]


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_with_mixed_polygons_is_read_in_all_encodings(tmp_path, encoding):
    rows = [(i, i**2, -i, i, 2 * i, 3 * i) for i in range(7)]
    faces = [(9, 4, 0, 1, 2, 3), (9, 3, 4, 5, 6)]
    if encoding == "ascii":
        body = "\n".join(" ".join(str(x) for x in row) for row in [*rows, *faces]).encode()
    else:
        order = "<" if "little" in encoding else ">"
        kinds = [("x", f"{order}f4"), ("y", f"{order}f8"), ("z", f"{order}f4"), ("rgb", "u1", 3)]
        body = np.array([(x, y, z, rgb) for x, y, z, *rgb in rows], dtype=kinds).tobytes()
        for face in faces:
            body += bytes(face[:2]) + np.array(face[2:], dtype=f"{order}i4").tobytes()
    mesh = read_mesh(write(tmp_path / "a.ply", ply_header(encoding, *PLY_LINES) + body))
    np.testing.assert_array_equal(mesh.vertices, [row[:3] for row in rows])
    np.testing.assert_array_equal(mesh.colors, [row[3:] for row in rows])
    np.testing.assert_array_equal(mesh.faces, QUAD_AND_TRIANGLE)


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_ply_of_another_program_is_read(tmp_path, encoding):
    ball = trimesh.creation.icosphere(subdivisions=2)
    ball.visual.vertex_colors = np.random.default_rng(0).integers(0, 256, (len(ball.vertices), 4))
    write(tmp_path / "a.ply", ball.export(file_type="ply", encoding=encoding, vertex_normal=True))
    mesh = read_mesh(tmp_path / "a.ply")
    np.testing.assert_allclose(mesh.vertices, ball.vertices, atol=1e-7)
    np.testing.assert_array_equal(mesh.faces, ball.faces)
    np.testing.assert_array_equal(mesh.colors, ball.visual.vertex_colors[:, :3])
    np.testing.assert_allclose(mesh.normals, ball.vertex_normals, atol=1e-6)


OBJ = """# a pyramid, with a texture seam, a quad, a backward index, colours and normals
mtllib none.mtl
o part
v 0 0 0 1 0 0
v 1 0 0 0 1 0
v 1 1 0 0 0 1
v 0 1 0 1 1 1  # a comment
v 0.5 0.5 1 0 0 0
vt 0 0
vt 1 1
vn 0 0 -2
vn 0 0 1
usemtl skin
f 4/1/1 3/2/1 2/1/1 1/2/1
f 1/1/2 2/2/2 5/1/2
f -4/1/2 3/2/2 -1/1/2
"""


def test_obj_keeps_its_vertices_and_understands_its_indices(tmp_path):
    mesh = read_mesh(write(tmp_path / "a.obj", OBJ))
    np.testing.assert_array_equal(mesh.vertices[[0, 4]], [[0, 0, 0], [0.5, 0.5, 1]])
    np.testing.assert_array_equal(mesh.faces, [[3, 2, 1], [3, 1, 0], [0, 1, 4], [1, 2, 4]])
    np.testing.assert_array_equal(mesh.colors[:4], [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])
    np.testing.assert_array_equal(mesh.normals[[3, 4]], [[0, 0, -1], [0, 0, 1]])


def test_obj_of_points_has_no_faces(tmp_path):
    mesh = read_mesh(write(tmp_path / "a.obj", "v 0 0 0\r\nv 1 2 3\r\nvn 0 0 1\r\nvn 0 2 0\r\n"))
    assert mesh.faces is None
    np.testing.assert_array_equal(mesh.normals, [[0, 0, 1], [0, 1, 0]])


def test_off_with_comments_colours_and_quads_is_read(tmp_path):
    text = "COFF # kind\n\n5 2 0\n" + "".join(f"{i} {i * i} 0 9 9 9 9\n" for i in range(5))
    mesh = read_mesh(write(tmp_path / "a.OFF", text + "4 0 1 2 3 255 0 0\n3 2 3 4\n"))
    np.testing.assert_array_equal(mesh.vertices[:, 1], [0, 1, 4, 9, 16])
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [0, 2, 3], [2, 3, 4]])
    one_line = read_mesh(write(tmp_path / "b.off", "OFF 3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2"))
    np.testing.assert_array_equal(one_line.faces, [[0, 1, 2]])


def test_text_stl_is_read_and_its_corners_merged(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=1)
    write(tmp_path / "a.stl", trimesh.exchange.stl.export_stl_ascii(ball))
    mesh = read_mesh(tmp_path / "a.stl")
    assert len(mesh.vertices) == len(ball.vertices)
    assert mesh.is_watertight()


def test_glb_scene_becomes_one_mesh_with_each_part_in_its_place(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=2)
    turn = trimesh.transformations.rotation_matrix(1.0, [0, 1, 0], [3, 0, 0])
    scene = trimesh.Scene()
    scene.add_geometry(ball, transform=np.diag([2.0, 2, 2, 1]))
    scene.add_geometry(trimesh.creation.box((1, 2, 3)), transform=turn)
    write(tmp_path / "a.glb", scene.export(file_type="glb"))
    mesh = read_mesh(tmp_path / "a.glb")
    assert mesh.is_watertight()
    assert mesh.volume() == pytest.approx(8 * ball.volume + 6, rel=1e-5)
    expected = scene.to_mesh().bounds
    np.testing.assert_allclose(mesh.bounds(), expected, atol=1e-6)


def test_glb_texture_becomes_vertex_colours(tmp_path):
    from PIL import Image

    ball = trimesh.creation.icosphere(subdivisions=1)
    image = Image.new("RGB", (4, 4), (10, 200, 30))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
    uv = np.full((len(ball.vertices), 2), 0.5)
    ball.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    write(tmp_path / "a.glb", ball.export(file_type="glb"))
    np.testing.assert_array_equal(read_mesh(tmp_path / "a.glb").colors[0], [10, 200, 30])


ROWS = np.random.default_rng(0).normal(size=(120, 6))


@pytest.mark.parametrize("separator", [" ", ", ", ",", ";", "\t", "   "])
@pytest.mark.parametrize("columns", [3, 6])
def test_xyz_is_read_with_any_separator(tmp_path, separator, columns):
    lines = [separator.join(f"{x:.9g}" for x in row[:columns]) for row in ROWS]
    mesh = read_mesh(write(tmp_path / "a.xyz", "# x y z\n" + "\n".join(lines)))
    np.testing.assert_allclose(mesh.vertices, ROWS[:, :3], rtol=1e-8)
    assert (mesh.normals is None) == (columns == 3)
    if columns == 6:
        expected = ROWS[:, 3:] / np.linalg.norm(ROWS[:, 3:], axis=1, keepdims=True)
        np.testing.assert_allclose(mesh.normals, expected, atol=1e-8)


def test_whole_numbers_behind_the_positions_are_colours(tmp_path):
    mesh = read_mesh(write(tmp_path / "a.xyz", "0.5 1 2 255 0 7\n1 2 3 4 5 6\n"))
    assert mesh.normals is None
    np.testing.assert_array_equal(mesh.colors, [[255, 0, 7], [4, 5, 6]])


@pytest.mark.parametrize("columns", [3, 6])
def test_npy_is_read(tmp_path, columns):
    np.save(tmp_path / "a.npy", np.asfortranarray(ROWS[:, :columns].astype(np.float32)))
    mesh = read_mesh(tmp_path / "a.npy")
    np.testing.assert_array_equal(mesh.vertices, ROWS[:, :3].astype(np.float32))
    assert (mesh.normals is None) == (columns == 3)


@pytest.mark.parametrize("key", ["points", "vertices"])
def test_npz_is_read_by_its_names(tmp_path, key):
    mesh = coloured_sphere()
    arrays = {key: mesh.vertices, "faces": mesh.faces.astype(np.uint16), "normals": mesh.normals}
    np.savez_compressed(tmp_path / "a.npz", colors=mesh.colors, other=np.array("text"), **arrays)
    again = read_mesh(tmp_path / "a.npz")
    np.testing.assert_array_equal(again.vertices, mesh.vertices)
    np.testing.assert_array_equal(again.faces, mesh.faces)
    np.testing.assert_allclose(again.normals, mesh.normals)
    np.testing.assert_array_equal(again.colors, mesh.colors)


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


OBJECTS = np.array([[1, 2, None]] * 200, dtype=object)
HUGE_HEADER = npy_bytes(ROWS[:, :3]).replace(b"(120, 3)", b"(1201201201, 3)")[:128] + bytes(64)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *[(f"a{s}", b"", "is empty") for s in (*SUFFIXES, ".xyz", ".npy", ".npz")],
        *[(f"a{s}", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "a whole|a PLY") for s in (*SUFFIXES, ".xyz")],
        *[(f"a{s}", b"<html>not found</html>\n", "a whole|a PLY") for s in (*SUFFIXES, ".xyz", ".npy", ".npz")],
        ("a.foo", b"x", r"unknown suffix '.foo'; known are .ply .obj .off .stl .glb .gltf .xyz .npy .npz"),
        ("noext", b"x", "unknown suffix ''"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 3\n", "no whole PLY header"),
        ("a.ply", ply_header("ascii", "element vertex three"), "the line 'element vertex three'"),
        ("a.ply", ply_header("ascii", "property float x"), "the line 'property float x'"),
        ("a.ply", ply_header("ascii", *PLY_LINES[:4]) + b"0 0 0\n" * 6, "not all of the 7 rows of 'vertex'"),
        ("a.ply", ply_header("ascii", *PLY_LINES[:4]) + b"0 0 x\n" * 7, "is not made of 3 numbers"),
        ("a.ply", ply_header("ascii", *PLY_LINES) + b"0 0 0 1 1 1\n" * 7 + b"9 nan", "'face' is not made"),
        ("a.ply", ply_header("binary_little_endian", *PLY_LINES[:4]) + bytes(111), "rows of 'vertex'"),
        ("a.ply", ply_header("ascii", "element vertex 1", "property int a") + b"1\n", "no x, y, z"),
        ("a.obj", b"v 0 0\nv 0 1\n", "2 numbers behind 'v'"),
        ("a.obj", b"v 0 0 0\nv 0 1 x\n", "could not convert string 'x'"),
        ("a.obj", b"v 0 0 0\nv 0 1 1\nf 1 2 9\n", r"1 of 1 faces .*\[0, 1, 8\]"),
        ("a.obj", b"v 0 0 0\nv 0 1 1\nf 1 2 a\n", "damaged or no OBJ"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n", "3 lines for 3 vertices and 1 faces"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4 0 1 2\n", "fewer corners than it says"),
        ("a.off", b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "a.off has no faces; a mesh is expected"),
        ("a.stl", bytes(84), "damaged or no STL"),
        ("a.xyz", b"# nothing\n\n", "no numbers"),
        ("a.xyz", b"1 2 3\n4 5\n", "number of columns changed"),
        ("a.xyz", b"1 2 3 4\n4 5 6 7\n", r"has shape \(2, 4\); \(n, 3\) or \(n, 6\)"),
        ("a.xyz", b"1 2 nan\n4 5 6\n", "1 of 2 points have NaN or infinite coordinates"),
        ("a.npy", npy_bytes(ROWS)[:-9], "damaged or no NPY"),
        ("a.npy", HUGE_HEADER, "damaged or no NPY"),
        ("a.npy", npy_bytes(OBJECTS), "holds an object array"),
        ("a.npy", pickle.dumps(ROWS), "damaged or no NPY"),
        ("a.npy", npy_bytes(ROWS[:, :4]), r"shape \(120, 4\)"),
        ("a.npy", npy_bytes(ROWS.astype(complex)), "type complex128"),
        ("a.npz", npz_bytes(points=OBJECTS), "holds an object array"),
        ("a.npz", npz_bytes(points=ROWS), r"have shape \(120, 6\)"),
        ("a.npz", npz_bytes(xyz=ROWS), "no array 'points' or 'vertices'"),
        ("a.npz", npz_bytes(points=ROWS[:, :3])[:-40], "damaged or no NPZ"),
        ("a.npz", npy_bytes(ROWS), "damaged or no NPZ"),
    ],
)
def test_unusable_files_are_refused_in_one_line_and_without_a_word_more(
    tmp_path, capfd, caplog, name, content, message
):
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match=message) as error:
        read_mesh(write(tmp_path / name, content))
    assert "\n" not in str(error.value)
    assert str(error.value).count(";") == 2
    assert error.value.__suppress_context__ or error.value.__context__ is None
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_mesh(tmp_path / "none.ply")
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(InputError, match="is not a file"):
        read_mesh(tmp_path / "folder.ply")


def file_contents(tmp_path):
    mesh = coloured_sphere()
    for suffix in SUFFIXES:
        write_mesh(tmp_path / f"whole{suffix}", mesh)
        yield suffix, (tmp_path / f"whole{suffix}").read_bytes()
    scene = trimesh.Scene([trimesh.creation.icosphere(subdivisions=1), trimesh.creation.box()])
    yield ".glb", scene.export(file_type="glb")
    yield ".ply", trimesh.creation.icosphere(subdivisions=1).export(file_type="ply", encoding="ascii")
    yield ".npy", npy_bytes(ROWS)
    yield ".npz", npz_bytes(points=mesh.vertices, faces=mesh.faces)


def test_no_damage_raises_anything_but_an_input_error(tmp_path):
    rng = np.random.default_rng(0)
    for suffix, whole in file_contents(tmp_path):
        for _ in range(25):
            truncated = whole[: rng.integers(1, len(whole))]
            flipped = bytearray(whole)
            for place in rng.integers(0, min(len(whole), 600), size=3):
                flipped[place] = rng.integers(0, 256)
            for damaged in (truncated, bytes(flipped)):
                try:
                    read_mesh(write(tmp_path / f"damaged{suffix}", damaged))
                except InputError:
                    continue
                # Only OBJ cannot tell that its end is missing.
                assert damaged is not truncated or suffix == ".obj"


def test_what_a_format_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    cloud = Mesh(sphere().vertices)
    for name, mesh, scalars in [
        ("a.stl", cloud, None),
        ("a.off", cloud, None),
        ("a.obj", sphere(), {"confidence": np.ones(len(cloud.vertices))}),
        ("a.xyz", cloud, None),
        ("missing/a.ply", cloud, None),
    ]:
        with pytest.raises(InputError) as error:
            write_mesh(tmp_path / name, mesh, scalars=scalars)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.ply"
    write_mesh(path, sphere())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="shape"):
        write_mesh(path, sphere(), scalars={"confidence": np.ones(3)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
