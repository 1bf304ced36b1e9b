from collections import Counter

import numpy as np
import pytest

from implicit3dmm.heads.cage import Openings, boundary_rings, close_skin, edges_of


@pytest.fixture(scope="module")
def skin_faces(arrays, cage_faces):
    return cage_faces[: int((arrays["cage_face_tag"] == "skin").sum())]


@pytest.fixture(scope="module")
def openings(arrays, skin_faces, open_head) -> Openings:
    """The rings of the built-in skin, turned to their starts by where they lie."""
    skin = open_head[0][0]
    by_side = sorted(boundary_rings(skin_faces), key=lambda ring: skin[ring, 1].mean())
    neck, (right, mouth, left) = by_side[0], sorted(by_side[1:], key=lambda ring: skin[ring, 0].mean())
    lip = mouth.index(int(arrays["film0_upper"][len(arrays["film0_upper"]) // 2]))
    inner = min(range(len(left)), key=lambda i: skin[left[i], 0])
    return Openings(neck, mouth[lip:] + mouth[:lip], left[inner:] + left[:inner], right)


def test_rings_of_a_tube():
    tube = [(i, (i + 1) % 4, 4 + (i + 1) % 4, 4 + i) for i in range(4)]
    rings = boundary_rings(tube)
    assert sorted(sorted(ring) for ring in rings) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    directed = {edge for face in tube for edge in edges_of(face)}
    assert all((b, a) in directed for ring in rings for a, b in edges_of(ring)), "a filling face runs against them"


def test_a_closed_surface_has_no_ring(cage_faces):
    assert boundary_rings(cage_faces) == []


def test_the_built_in_skin_has_four(skin_faces):
    assert sorted(map(len, boundary_rings(skin_faces))) == [28, 28, 38, 42]


def test_closing_the_built_in_skin_gives_its_cage(arrays, cage_faces, skin_faces, openings):
    count = int(arrays["n_skin"])
    cage = close_skin(skin_faces, openings, arrays["mirror"][:count].astype(int))
    assert cage.closing.vertex_count == len(arrays["mirror"])
    films = count + 3 * (19 + 13 + 13)  # the cap's numbers depend on where its ring starts
    expected = {frozenset(face) for face in cage_faces if max(face) < films}
    assert {frozenset(face) for face in cage.faces if max(face) < films} == expected
    assert [len(part) for part in cage.parts.values()] == list(Counter(arrays["cage_face_tag"].tolist()).values())
    np.testing.assert_array_equal(cage.mirror[:films], arrays["mirror"][:films])
    for film, expected in zip((cage.closing.mouth, *cage.closing.eyes), range(3), strict=True):
        np.testing.assert_array_equal(film.upper, arrays[f"film{expected}_upper"])
        np.testing.assert_array_equal(film.lower, arrays[f"film{expected}_lower"])
        np.testing.assert_array_equal(film.inner, arrays[f"film{expected}_idx"])


def test_a_closed_cage_is_closed_oriented_and_mirrored(arrays, skin_faces, openings):
    cage = close_skin(skin_faces, openings, arrays["mirror"][: int(arrays["n_skin"])].astype(int))
    directed = Counter(edge for face in cage.faces for edge in edges_of(face))
    assert set(directed.values()) == {1}
    assert all((b, a) in directed for a, b in directed)
    assert cage.closing.vertex_count - len(directed) // 2 + len(cage.faces) == 2
    np.testing.assert_array_equal(cage.mirror[cage.mirror], np.arange(cage.closing.vertex_count))
    assert {frozenset(cage.mirror[list(face)].tolist()) for face in cage.faces} == set(map(frozenset, cage.faces))
