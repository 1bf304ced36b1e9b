"""The closed cage of the MakeHuman head: cut out of the body along four rings of edges, then closed.

The skin ends at the base of the neck, inside the lips and at the lid margins. A film of a few rows of quads
joins the two lips and each pair of lids; two shrunken rings and a centre cap the neck. What comes out is one
closed surface of genus 0 with the same faces for every head.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.heads.closing import Film

Arrays = dict[str, np.ndarray]
Faces = list[list[int]]

# Each opening by one edge of its ring, walked in the direction of a polygon that fills it: round the base of
# the neck; along the lips from the upper lip's middle; round the left lids from the inner corner to the lower
# lid. The right lids are their mirror image. The vertices of these rings have four edges each, so that one
# edge fixes its ring.
NECK_EDGE = (8151, 8150)
MOUTH_EDGE = (537, 538)
LEFT_EYE_EDGE = (7796, 7797)

FILM_ROWS = 3


@dataclass(frozen=True)
class BaseMesh:
    """The body of the base mesh and its eyeballs."""

    vertices: Float[np.ndarray, "v 3"]
    """Decimetres; x to the subject's left, y up, z forward."""
    faces: Int[np.ndarray, "f 4"]
    """The quads of the body's skin, a closed manifold."""
    eyeballs: tuple[Int[np.ndarray, " e"], Int[np.ndarray, " e"]]
    """Vertices of the left and the right eyeball."""
    mirror: Int[np.ndarray, " v"]
    """The vertex across the midline."""


@dataclass(frozen=True)
class Rings:
    """The rings of vertices where the head's skin ends, each in the direction of a polygon that fills it."""

    neck: list[int]
    mouth: list[int]
    left_eye: list[int]
    right_eye: list[int]


def find_rings(mesh: BaseMesh) -> Rings:
    """Walks the four rings from the edge that each is known by."""
    neighbours: dict[int, set[int]] = {}
    beside: dict[tuple[int, int], set[int]] = {}
    for face in mesh.faces.tolist():
        for a, b in edges_of(face):
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)
            for edge in ((a, b), (b, a)):
                beside.setdefault(edge, set()).update(face)

    def walk(first: int, second: int) -> list[int]:
        ring = [first, second]
        while True:
            (ahead,) = (
                neighbours[ring[-1]] - beside[ring[-2], ring[-1]]
            )  # straight on: on no face of this edge
            if ahead == first:
                return ring
            ring.append(ahead)

    inner, lower = LEFT_EYE_EDGE
    right_eye = walk(int(mesh.mirror[lower]), int(mesh.mirror[inner]))  # mirrored, so the other way round
    return Rings(walk(*NECK_EDGE), walk(*MOUTH_EDGE), walk(inner, lower), right_eye)


def head_faces(faces: Int[np.ndarray, "f 4"], rings: Rings) -> Int[np.ndarray, "h 4"]:
    """The faces that the four rings enclose, in their order, found by growing from the neck ring upwards."""
    face_of = {edge: number for number, face in enumerate(faces.tolist()) for edge in edges_of(face)}
    closed = {(b, a) for ring in vars(rings).values() for a, b in edges_of(ring)}
    found, waiting = set(), [face_of[rings.neck[1], rings.neck[0]]]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += [face_of[b, a] for a, b in edges_of(faces[number].tolist()) if (a, b) not in closed]
    return faces[sorted(found)]


def edges_of(polygon: list[int]) -> list[tuple[int, int]]:
    """The directed edges of a polygon or ring."""
    return list(zip(polygon, polygon[1:] + polygon[:1], strict=True))


def close(
    skin_faces: Int[np.ndarray, "h 4"],
    skin: Int[np.ndarray, " s"],
    rings: Rings,
    mirror: Int[np.ndarray, " v"],
) -> Arrays:
    """The closed cage: its faces, what each belongs to, its mirror map, and the vertices of films and cap.

    Cage vertices are numbered skin first, then the inner vertices of the mouth film, of the left and of the
    right eye film, the two rings of the neck cap, and its centre.
    """
    number = {vertex: i for i, vertex in enumerate(skin.tolist())}
    ring = Rings(*([number[v] for v in vertices] for vertices in vars(rings).values()))
    across = np.array([number[v] for v in mirror[skin].tolist()])
    lids = ring.left_eye[: len(ring.left_eye) // 2 : -1], ring.left_eye[1 : len(ring.left_eye) // 2]
    corners = [ring.left_eye[0], ring.left_eye[len(ring.left_eye) // 2]]
    films = number_films([lip_chains(ring.mouth), lids, tuple(across[list(lid)] for lid in lids)], len(skin))
    size = len(ring.neck)
    cap = films[-1].inner.max() + 1 + np.arange(2 * size + 1)
    cap_rings = ring.neck, cap[:size].tolist(), cap[size:-1].tolist()
    faces = {
        "skin": [[number[v] for v in face] for face in skin_faces.tolist()],
        "mouth_film": facing(ring.mouth, film_quads(films[0]) + film_ends(films[0])),
        "eye_film_L": facing(ring.left_eye, film_quads(films[1]) + corner_fans(films[1], corners)),
        "eye_film_R": facing(ring.right_eye, film_quads(films[2]) + corner_fans(films[2], across[corners])),
        "neck_cap": facing(ring.neck, cap_faces(cap_rings, int(cap[-1]))),
    }
    arrays = {
        "cage_faces": padded([face for part in faces.values() for face in part]),
        "cage_face_tag": np.array([tag for tag, part in faces.items() for _ in part]),
        "mirror": cage_mirror(across, films, cap_rings, int(cap[-1])).astype(np.int16),
        "neck_loop": np.array(cap_rings[0]),
        "neck_r1": np.array(cap_rings[1]),
        "neck_r2": np.array(cap_rings[2]),
        "neck_c": np.int32(cap[-1]),
    }
    for i, film in enumerate(films):
        arrays |= {f"film{i}_upper": film.upper, f"film{i}_lower": film.lower, f"film{i}_idx": film.inner}
    return arrays


def lip_chains(ring: list[int]) -> tuple[list[int], list[int]]:
    """Upper and lower lip, from one side to the other; the ring starts in the middle of the upper one."""
    quarter = len(ring) // 4
    return ring[-quarter:] + ring[: quarter + 1], ring[quarter + 1 : -quarter][::-1]


def number_films(chains: Iterable[tuple[list[int], list[int]]], first: int) -> list[Film]:
    """Films between upper and lower chains, their inner vertices numbered from `first` on."""
    films = []
    for upper, lower in chains:
        inner = first + np.arange(len(upper) * FILM_ROWS).reshape(-1, FILM_ROWS)
        films.append(Film(np.array(upper), np.array(lower), inner))
        first += inner.size
    return films


def film_columns(film: Film) -> Faces:
    """For each vertex of the upper chain, the column of vertices from it down to the lower chain."""
    return np.column_stack([film.upper, film.inner, film.lower]).tolist()


def film_quads(film: Film) -> Faces:
    """The quads between the columns of a film."""
    return [
        [left[row], right[row], right[row + 1], left[row + 1]]
        for left, right in itertools.pairwise(film_columns(film))
        for row in range(FILM_ROWS + 1)
    ]


def film_ends(film: Film) -> Faces:
    """One polygon at each end of a film whose chains meet in an edge, as the lips do."""
    columns = film_columns(film)
    return [columns[0], columns[-1][::-1]]


def corner_fans(film: Film, corners: Iterable[int]) -> Faces:
    """Triangles at both ends of a film whose chains meet in a vertex, as the lids do."""
    (first, last), columns = corners, film_columns(film)
    return [
        triangle
        for row in range(FILM_ROWS + 1)
        for triangle in (
            [int(first), columns[0][row], columns[0][row + 1]],
            [int(last), columns[-1][row + 1], columns[-1][row]],
        )
    ]


def cap_faces(rings: tuple[list[int], list[int], list[int]], centre: int) -> Faces:
    """Quads between the neck ring and its two shrunken copies, and triangles to the centre."""
    quads = [
        [a, b, d, c]
        for outer, inner in itertools.pairwise(rings)
        for (a, b), (c, d) in zip(edges_of(outer), edges_of(inner), strict=True)
    ]
    return quads + [[a, b, centre] for a, b in edges_of(rings[-1])]


def facing(ring: list[int], faces: Faces) -> Faces:
    """`faces`, all turned round where they run against the direction in which they should fill the ring."""
    wanted = set(edges_of(ring))
    agrees = any(edge in wanted for face in faces for edge in edges_of(face))
    return faces if agrees else [face[::-1] for face in faces]


def cage_mirror(
    across: Int[np.ndarray, " s"], films: list[Film], cap_rings: tuple[list[int], ...], centre: int
) -> Int[np.ndarray, " c"]:
    """Mirror map of the cage, from that of its skin."""
    mirror = np.concatenate([across, np.arange(len(across), centre + 1)])
    mouth, left, right = (film.inner for film in films)
    mirror[mouth], mirror[left], mirror[right] = mouth[::-1], right, left
    neck, *copies = cap_rings
    opposite = [neck.index(vertex) for vertex in across[neck].tolist()]
    for ring in copies:
        mirror[ring] = np.array(ring)[opposite]
    return mirror


def padded(faces: Faces) -> Int[np.ndarray, "f 5"]:
    """Polygons of up to five corners as rows, filled up with -1."""
    return np.array([face + [-1] * (5 - len(face)) for face in faces], dtype=np.int16)
