"""The closed cage of a head: the polygons of an open skin, and of the films and the cap that close it.

The skin ends at the base of the neck, inside the lips and at the lid margins. A film of a few rows of quads
joins the two lips and each pair of lids; two shrunken rings and a centre cap the neck. What comes out is one
closed surface of genus 0 with the same faces for every head; `closing.py` places its added vertices.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from implicit3dmm.heads.closing import Closing, Film
from implicit3dmm.heads.subdivision import Polygons

FILM_ROWS = 3

Ring = Sequence[int]


@dataclass(frozen=True)
class Openings:
    """The rings of vertices where a skin ends, each walked in the direction of a polygon that fills it."""

    neck: Ring
    mouth: Ring
    """Starts in the middle of the upper lip; twice an odd number of vertices."""
    left_eye: Ring
    """Starts at the inner corner and goes on along the lower lid; an even number of vertices."""
    right_eye: Ring
    """The mirror image of the left one, with any start."""


@dataclass(frozen=True)
class Cage:
    """A closed cage.

    Its vertices are numbered skin first, then the mouth film, the left and the right eye film, the two rings
    of the neck cap and its centre.
    """

    closing: Closing
    parts: dict[str, Polygons]
    """Faces of "skin", "mouth_film", "eye_film_L", "eye_film_R" and "neck_cap", counter-clockwise."""
    mirror: Int[np.ndarray, " v"]
    """The vertex across the midline."""

    @property
    def faces(self) -> Polygons:
        """All faces, the skin's first."""
        return [face for part in self.parts.values() for face in part]


def close_skin(faces: Polygons, openings: Openings, mirror: Int[np.ndarray, " s"]) -> Cage:
    """Closes an open skin.

    Args:
        faces: polygons of the skin, counter-clockwise, over the vertices 0 to s - 1.
        openings: where it ends.
        mirror: the skin vertex across the midline.
    """
    ring = list(openings.left_eye)
    half = len(ring) // 2
    lids, corners = (ring[:half:-1], ring[1:half]), np.array([ring[0], ring[half]])
    chains = [_lip_chains(list(openings.mouth)), lids, tuple(mirror[list(lid)] for lid in lids)]
    films = _number_films(chains, len(mirror))
    mouth, left, right = films
    size, first = len(openings.neck), int(right.inner.max()) + 1
    centre = first + 2 * size
    rings = (list(openings.neck), [*range(first, first + size)], [*range(first + size, centre)])
    parts = {
        "skin": faces,
        "mouth_film": _facing(openings.mouth, _film_quads(mouth) + _film_ends(mouth)),
        "eye_film_L": _facing(ring, _film_quads(left) + _corner_fans(left, corners)),
        "eye_film_R": _facing(openings.right_eye, _film_quads(right) + _corner_fans(right, mirror[corners])),
        "neck_cap": _facing(openings.neck, _cap_faces(rings, centre)),
    }
    neck = (*(np.array(vertices) for vertices in rings), centre)
    closing = Closing(len(mirror), centre + 1, mouth, (left, right), neck)
    return Cage(closing, parts, _cage_mirror(mirror, films, rings, centre))


def edges_of(polygon: Ring) -> list[tuple[int, int]]:
    """The directed edges of a polygon or ring."""
    return list(zip(polygon, [*polygon[1:], polygon[0]], strict=True))


def boundary_rings(faces: Polygons) -> list[list[int]]:
    """The rings of edges with one face each, walked in the direction of a polygon that would fill them."""
    directed = {edge for face in faces for edge in edges_of(face)}
    after = {b: a for a, b in sorted(directed) if (b, a) not in directed}
    rings = []
    while after:
        ring = [next(iter(after))]
        while (vertex := after.pop(ring[-1])) != ring[0]:
            ring.append(vertex)
        rings.append(ring)
    return rings


def _lip_chains(ring: list[int]) -> tuple[list[int], list[int]]:
    """Upper and lower lip, from one side to the other; the ring starts in the middle of the upper one."""
    quarter = len(ring) // 4
    return ring[-quarter:] + ring[: quarter + 1], ring[quarter + 1 : -quarter][::-1]


def _number_films(chains: Iterable[tuple[Ring, Ring]], first: int) -> list[Film]:
    """Films between upper and lower chains, their inner vertices numbered from `first` on."""
    films = []
    for upper, lower in chains:
        assert len(upper) == len(lower), "the chains of a film pair up"
        inner = first + np.arange(len(upper) * FILM_ROWS).reshape(-1, FILM_ROWS)
        films.append(Film(np.array(upper), np.array(lower), inner))
        first += inner.size
    return films


def _film_columns(film: Film) -> Polygons:
    """For each vertex of the upper chain, the column of vertices from it down to the lower chain."""
    return [tuple(column) for column in np.column_stack([film.upper, film.inner, film.lower]).tolist()]


def _film_quads(film: Film) -> Polygons:
    """The quads between the columns of a film."""
    return [
        (left[row], right[row], right[row + 1], left[row + 1])
        for left, right in itertools.pairwise(_film_columns(film))
        for row in range(FILM_ROWS + 1)
    ]


def _film_ends(film: Film) -> Polygons:
    """One polygon at each end of a film whose chains meet in an edge, as the lips do."""
    columns = _film_columns(film)
    return [columns[0], columns[-1][::-1]]


def _corner_fans(film: Film, corners: Int[np.ndarray, " 2"]) -> Polygons:
    """Triangles at both ends of a film whose chains meet in a vertex, as the lids do."""
    (first, last), columns = corners.tolist(), _film_columns(film)
    return [
        triangle
        for row in range(FILM_ROWS + 1)
        for triangle in (
            (first, columns[0][row], columns[0][row + 1]),
            (last, columns[-1][row + 1], columns[-1][row]),
        )
    ]


def _cap_faces(rings: tuple[Ring, Ring, Ring], centre: int) -> Polygons:
    """Quads between the neck ring and its two shrunken copies, and triangles to the centre."""
    quads = [
        (a, b, d, c)
        for outer, inner in itertools.pairwise(rings)
        for (a, b), (c, d) in zip(edges_of(outer), edges_of(inner), strict=True)
    ]
    return quads + [(a, b, centre) for a, b in edges_of(rings[-1])]


def _facing(ring: Ring, faces: Polygons) -> Polygons:
    """`faces`, all turned round where they run against the direction in which they should fill the ring."""
    wanted = set(edges_of(ring))
    agrees = any(edge in wanted for face in faces for edge in edges_of(face))
    return faces if agrees else [face[::-1] for face in faces]


def _cage_mirror(
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
