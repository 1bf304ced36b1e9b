import numpy as np
import pytest

from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.subdivision import catmull_clark, triangulate

# The cube's corner i has the bits of i as its coordinates, scaled to -1 and 1.
CUBE = 2.0 * np.array([[(i >> axis) & 1 for axis in range(3)] for i in range(8)]) - 1
CUBE_FACES = [(0, 4, 6, 2), (1, 3, 7, 5), (0, 1, 5, 4), (2, 6, 7, 3), (0, 2, 3, 1), (4, 5, 7, 6)]


def prism(corners: int) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Pyramid over a prism: valences 3, 4 and `corners`, faces of 3, 4 and `corners` corners."""
    angle = 2 * np.pi * np.arange(corners) / corners
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(corners)], axis=1)
    vertices = np.concatenate([ring, ring + np.array([0, 0, 1]), [(0.0, 0.0, 1.7)]])
    after = [(i + 1) % corners for i in range(corners)]
    sides = [(i, after[i], corners + after[i], corners + i) for i in range(corners)]
    roof = [(corners + i, corners + after[i], 2 * corners) for i in range(corners)]
    return vertices, [tuple(reversed(range(corners))), *sides, *roof]


def slow_twin(vertices: np.ndarray, faces: list[tuple[int, ...]]) -> tuple[dict, dict, list]:
    """New positions as Catmull and Clark give them, by vertex, by edge and by face."""
    centres = [vertices[list(face)].mean(0) for face in faces]
    around_edge, around_vertex = {}, {}
    for face, centre in zip(faces, centres, strict=True):
        for a, b in zip(face, (*face[1:], face[0]), strict=True):
            around_edge.setdefault(frozenset((a, b)), []).append(centre)
            around_vertex.setdefault(a, []).append(centre)
    edges = {edge: (vertices[list(edge)].sum(0) + np.sum(centres, axis=0)) / 4 for edge, centres in around_edge.items()}
    corners = {}
    for vertex, around in around_vertex.items():
        middles = [vertices[list(edge)].mean(0) for edge in edges if vertex in edge]
        n = len(middles)
        corners[vertex] = (np.mean(around, axis=0) + 2 * np.mean(middles, axis=0) + (n - 3) * vertices[vertex]) / n
    return corners, edges, centres


def all_new_positions(vertices, faces, subdivision) -> np.ndarray:
    corners, edges, centres = slow_twin(vertices, faces)
    return np.array(
        [corners[v] for v in range(len(vertices))] + [edges[frozenset(e)] for e in subdivision.edges] + centres
    )


SHAPES = {"cube": (CUBE, CUBE_FACES), "triangular": prism(3), "pentagonal": prism(5)}


@pytest.mark.parametrize("name", SHAPES)
def test_positions_are_those_of_the_slow_twin(name):
    vertices, faces = SHAPES[name]
    subdivision = catmull_clark(faces, len(vertices))
    np.testing.assert_allclose(
        subdivision.apply(vertices[None])[0], all_new_positions(vertices, faces, subdivision), atol=1e-6
    )


def test_the_head_agrees_with_the_slow_twin_around_a_few_vertices(cage_faces, closing, open_head):
    cage = closing.apply(*open_head)[0]
    new = catmull_clark(cage_faces, len(cage)).apply(cage[None])[0]
    for vertex in (0, 537, 3427, 3430, 3647):
        near = [face for face in cage_faces if vertex in face]
        ring = sorted({v for face in near for v in face})
        number = {v: i for i, v in enumerate(ring)}
        corners, _, _ = slow_twin(cage[ring], [tuple(number[v] for v in face) for face in near])
        np.testing.assert_allclose(new[vertex], corners[number[vertex]], atol=1e-6)


def test_a_cube_goes_where_the_rule_says():
    subdivision = catmull_clark(CUBE_FACES, 8)
    corners, edges, faces = np.split(subdivision.apply(CUBE[None])[0], [8, 20])
    np.testing.assert_allclose(corners, CUBE * 5 / 9, atol=1e-6)
    np.testing.assert_allclose(np.sort(np.abs(edges), axis=1), np.tile([0, 0.75, 0.75], (12, 1)), atol=1e-6)
    np.testing.assert_allclose(np.sort(np.abs(faces), axis=1), np.tile([0, 0, 1], (6, 1)), atol=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_the_new_surface_is_closed_and_keeps_its_side(name):
    vertices, faces = SHAPES[name]
    subdivision = catmull_clark(faces, len(vertices))
    mesh = Mesh(subdivision.apply(vertices[None])[0], triangulate(subdivision.quads))
    assert len(subdivision.quads) == sum(map(len, faces))
    assert mesh.is_watertight()
    assert mesh.euler_number() == 2
    assert mesh.volume() > 0


def test_space_is_carried_along():
    vertices, faces = prism(5)
    subdivision = catmull_clark(faces, len(vertices))
    rng = np.random.default_rng(0)
    matrix, shift = rng.normal(size=(3, 3)), rng.normal(size=3)
    np.testing.assert_allclose(
        subdivision.apply((vertices @ matrix + shift)[None]),
        subdivision.apply(vertices[None]) @ matrix + shift,
        atol=1e-6,
    )


def test_a_batch_is_its_members():
    vertices, faces = prism(4)
    batch = vertices + np.random.default_rng(1).normal(size=(3, 1, 3))
    subdivision = catmull_clark(faces, len(vertices))
    together = subdivision.apply(batch)
    for cage, new in zip(batch, together, strict=True):
        np.testing.assert_array_equal(subdivision.apply(cage[None])[0], new)


def test_the_mirror_map_follows():
    cage_mirror = np.arange(8) ^ 1  # the lowest bit is x
    subdivision = catmull_clark(CUBE_FACES, 8)
    mirror = subdivision.mirror(cage_mirror)
    new = subdivision.apply(CUBE[None])[0]
    np.testing.assert_array_equal(mirror[mirror], np.arange(26))
    np.testing.assert_allclose(new[mirror], new * (-1, 1, 1), atol=1e-6)


def test_an_open_cage_is_our_mistake():
    with pytest.raises(AssertionError, match="not closed"):
        catmull_clark(CUBE_FACES[1:], 8)
