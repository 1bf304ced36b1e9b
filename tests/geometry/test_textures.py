import logging
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from PIL import Image

from implicit3dmm.geometry.mesh import Mesh, read_mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.geometry.textures import Texture, joined, plain

PICTURE = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)
"""Red and green above blue and yellow."""
SQUARE = """
mtllib {library}
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0 0 1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl skin
f 1/1 2/2 3/3 4/4
usemtl plain
f 1/1 2/2 5/3
f 1 4 5
"""
MATERIALS = """
newmtl skin
Kd 0.1 0.1 0.1
map_Kd -s 1 1 1 -o 0 0 a picture.png
newmtl plain
Kd 0.2 0.4 1.0
"""


@pytest.fixture
def square(tmp_path):
    """An OBJ file of a square with a picture on it, its library and the picture, in one folder."""
    Image.fromarray(PICTURE.repeat(8, 0).repeat(8, 1)).save(tmp_path / "a picture.png")
    (tmp_path / "my head.mtl").write_text(MATERIALS)
    path = tmp_path / "head.obj"
    path.write_text(SQUARE.format(library="my head.mtl"))
    return path


def test_a_pixels_centre_has_its_colour_and_between_two_it_is_mixed():
    uv = np.array([[[0.25, 0.75], [0.75, 0.75], [0.25, 0.25]]])
    texture = Texture((PICTURE,), np.zeros(1, int), uv)
    faces, weights = np.zeros(4, int), np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0]])
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 0]]
    np.testing.assert_array_equal(texture.colors_at(faces, weights), expected)
    shifted = replace(texture, uv=uv + np.array([3, -2]))
    np.testing.assert_array_equal(shifted.colors_at(faces, weights), expected)


def test_pictures_of_obj_materials_lie_on_their_faces(square):
    mesh = read_mesh(square)
    assert len(mesh.faces) == 4
    assert mesh.texture is not None
    # Near the lower right corner, near the upper left one, on the plain material, without a place in the picture.
    weights = np.array([[0.2, 0.6, 0.2], [0.2, 0.2, 0.6], [0.2, 0.6, 0.2], [0.2, 0.6, 0.2]])
    expected = [[255, 255, 0], [255, 0, 0], [51, 102, 255], [255, 255, 255]]
    np.testing.assert_array_equal(mesh.texture.colors_at(np.arange(4), weights), expected)
    assert mesh.colors.shape == (5, 3)


def test_the_texture_follows_the_faces(square):
    mesh = read_mesh(square)
    moved = mesh.transformed(Similarity(2.0, np.eye(3), np.ones(3)))
    assert moved.texture is mesh.texture
    part = mesh.with_faces(np.array([False, True, False, True]))
    np.testing.assert_array_equal(part.texture.uv, mesh.texture.uv[[1, 3]])
    np.testing.assert_array_equal(part.texture.picture, mesh.texture.picture[[1, 3]])


@pytest.mark.parametrize(
    ("broken", "said"),
    [("library", "materials"), ("picture", "does not lie"), ("damaged", "cannot be read"), ("words", "")],
)
def test_a_scan_is_read_without_a_texture_that_is_not_there(square, caplog, broken, said):
    match broken:
        case "library":
            (square.parent / "my head.mtl").unlink()
        case "picture":
            (square.parent / "a picture.png").unlink()
        case "damaged":
            (square.parent / "a picture.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
        case "words":
            (square.parent / "my head.mtl").write_text("newmtl skin\nKd red\nmap_Kd\n")
            said = "does not lie"
    with caplog.at_level(logging.WARNING):
        mesh = read_mesh(square)
    assert (mesh.texture, mesh.colors) == (None, None)
    assert len(mesh.faces) == 4
    assert said in caplog.text


def test_a_library_from_another_machine_finds_its_picture_beside_it(square):
    (square.parent / "my head.mtl").write_text("newmtl skin\nmap_Kd C:\\scans\\today\\a picture.png\n")
    assert read_mesh(square).texture is not None


def textured_ball(color):
    ball = trimesh.creation.icosphere(subdivisions=1)
    uv = np.full((len(ball.vertices), 2), 0.5)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (4, 4), color))
    ball.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return ball


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_textures_of_gltf_scenes_are_read_part_by_part(tmp_path, suffix):
    white = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[250, 240, 230, 255])
    white.visual = trimesh.visual.TextureVisuals(material=material)
    scene = trimesh.Scene([textured_ball((10, 200, 30)), white])
    path = tmp_path / f"scene{suffix}"
    if suffix == ".glb":
        path.write_bytes(scene.export(file_type="glb"))
    else:
        for name, content in scene.export(file_type="gltf").items():
            (tmp_path / name.replace("model.gltf", path.name)).write_bytes(content)
    mesh = read_mesh(path)
    centres = np.full((len(mesh.faces), 3), 1 / 3)
    colors = {tuple(color) for color in mesh.texture.colors_at(np.arange(len(mesh.faces)), centres).tolist()}
    assert colors == {(10, 200, 30), (250, 240, 230)}


def test_the_picture_of_a_gltf_is_not_upside_down(tmp_path):
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(PICTURE.repeat(8, 0).repeat(8, 1)))
    visual = trimesh.visual.TextureVisuals(uv=corners[:, :2], material=material)
    part = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    (tmp_path / "a.glb").write_bytes(part.export(file_type="glb"))
    mesh = read_mesh(tmp_path / "a.glb")
    face = int(np.flatnonzero((mesh.vertices[mesh.faces] == [0, 1, 0]).all(2).any(1))[0])
    weights = np.where((mesh.vertices[mesh.faces[face]] == [0, 1, 0]).all(1), 0.6, 0.2)[None]
    np.testing.assert_array_equal(mesh.texture.colors_at(np.array([face]), weights), [[255, 0, 0]])


def test_joined_textures_keep_each_faces_colour():
    one = Texture((plain((1, 2, 3)),), np.zeros(2, int), np.zeros((2, 3, 2)))
    two = Texture((plain((4, 5, 6)), plain((7, 8, 9))), np.array([1, 0]), np.zeros((2, 3, 2)))
    both = joined([one, two])
    colors = both.colors_at(np.arange(4), np.full((4, 3), 1 / 3))
    np.testing.assert_array_equal(colors, [[1, 2, 3], [1, 2, 3], [7, 8, 9], [4, 5, 6]])


def test_a_mesh_made_by_hand_needs_no_texture():
    assert Mesh(np.eye(3), np.array([[0, 1, 2]])).texture is None
