"""The closed cage of the MakeHuman head: cut out of the body along four rings of edges, then closed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.heads.cage import Openings, close_skin, edges_of

Arrays = dict[str, np.ndarray]

# Each opening by one edge of its ring, walked in the direction of a polygon that fills it: round the base of
# the neck; along the lips from the upper lip's middle; round the left lids from the inner corner to the lower
# lid. The right lids are their mirror image. The vertices of these rings have four edges each, so that one
# edge fixes its ring.
NECK_EDGE = (8151, 8150)
MOUTH_EDGE = (537, 538)
LEFT_EYE_EDGE = (7796, 7797)


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


def find_openings(mesh: BaseMesh) -> Openings:
    """Walks the rings of the four openings from the edge that each is known by."""
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
            (ahead,) = neighbours[ring[-1]] - beside[ring[-2], ring[-1]]  # straight on: on no face of this edge
            if ahead == first:
                return ring
            ring.append(ahead)

    inner, lower = LEFT_EYE_EDGE
    right_eye = walk(int(mesh.mirror[lower]), int(mesh.mirror[inner]))  # mirrored, so the other way round
    return Openings(walk(*NECK_EDGE), walk(*MOUTH_EDGE), walk(inner, lower), right_eye)


def head_faces(faces: Int[np.ndarray, "f 4"], openings: Openings) -> Int[np.ndarray, "h 4"]:
    """The faces that the four openings bound, in their order, found by growing from the neck upwards."""
    face_of = {edge: number for number, face in enumerate(faces.tolist()) for edge in edges_of(face)}
    closed = {(b, a) for ring in vars(openings).values() for a, b in edges_of(ring)}
    found, waiting = set(), [face_of[openings.neck[1], openings.neck[0]]]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += [face_of[b, a] for a, b in edges_of(faces[number].tolist()) if (a, b) not in closed]
    return faces[sorted(found)]


def close(
    skin_faces: Int[np.ndarray, "h 4"],
    skin: Int[np.ndarray, " s"],
    openings: Openings,
    mirror: Int[np.ndarray, " v"],
) -> Arrays:
    """Arrays of the closed cage: its faces, what each belongs to, its mirror map and its closing."""
    number = {vertex: i for i, vertex in enumerate(skin.tolist())}
    across = np.array([number[v] for v in mirror[skin].tolist()])
    faces = [tuple(number[v] for v in face) for face in skin_faces.tolist()]
    rings = {name: [number[v] for v in ring] for name, ring in vars(openings).items()}
    cage = close_skin(faces, Openings(**rings), across)
    return cage.closing.arrays() | {
        "cage_faces": np.array([face + (-1,) * (5 - len(face)) for face in cage.faces], dtype=np.int16),
        "cage_face_tag": np.array([tag for tag, part in cage.parts.items() for _ in part]),
        "mirror": cage.mirror.astype(np.int16),
    }
