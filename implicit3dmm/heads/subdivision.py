"""Catmull-Clark subdivision of a closed polygon cage as one sparse matrix (Catmull and Clark, 1978)."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

Polygons = list[tuple[int, ...]]


@dataclass(frozen=True)
class Subdivision:
    """One Catmull-Clark step.

    New vertices are numbered cage vertices first, then one for each edge, then one for each face, so that an
    index into the cage names the same vertex after the step.
    """

    matrix: scipy.sparse.csr_matrix
    """(new vertices, cage vertices): new positions are `matrix @ cage`."""
    quads: Int[np.ndarray, "q 4"]
    edges: dict[tuple[int, int], int]
    """(lower, higher) cage vertex of an edge -> its number."""
    faces: Polygons

    def apply(self, cage: Float[np.ndarray, "b v 3"]) -> Float[np.ndarray, "b w 3"]:
        """Subdivides a batch of cages."""
        batch, count, _ = cage.shape
        columns = np.ascontiguousarray(cage.transpose(1, 0, 2)).reshape(count, -1)
        return np.ascontiguousarray((self.matrix @ columns).reshape(-1, batch, 3).transpose(1, 0, 2))

    def mirror(self, cage_mirror: Int[np.ndarray, " v"]) -> Int[np.ndarray, " w"]:
        """Mirror map of the new vertices, from the cage's (an involution that maps faces to faces)."""
        count, edge_count = len(cage_mirror), len(self.edges)
        to = cage_mirror.tolist()
        face_number = {frozenset(face): i for i, face in enumerate(self.faces)}
        edges = [self.edges[_edge(to[a], to[b])] + count for a, b in self.edges]
        faces = [face_number[frozenset(to[v] for v in face)] + count + edge_count for face in self.faces]
        return np.array([*to, *edges, *faces])


def catmull_clark(faces: Polygons, vertex_count: int) -> Subdivision:
    """Builds the step for a closed cage.

    Args:
        faces: polygons (three or more corners), consistently oriented; every edge belongs to two of them.
        vertex_count: number of cage vertices.
    """
    edges: dict[tuple[int, int], int] = {}
    edge_faces: dict[int, list[int]] = defaultdict(list)
    vertex_faces: dict[int, list[int]] = defaultdict(list)
    for number, face in enumerate(faces):
        for a, b in zip(face, face[1:] + face[:1], strict=True):
            edge_faces[edges.setdefault(_edge(a, b), len(edges))].append(number)
            vertex_faces[a].append(number)
    assert all(len(pair) == 2 for pair in edge_faces.values()), "the cage is not closed"

    face_matrix = _matrix([[(v, 1 / len(face)) for v in face] for face in faces], vertex_count)
    edge_matrix = _matrix([[(a, 0.25), (b, 0.25)] for a, b in edges], vertex_count)
    edge_matrix += _matrix([[(f, 0.25) for f in edge_faces[e]] for e in range(len(edges))], len(faces)) @ face_matrix

    vertex_edges: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for edge in edges:
        vertex_edges[edge[0]].append(edge)
        vertex_edges[edge[1]].append(edge)
    # A vertex of valence n: (n - 3)/n itself, 2/n the mean of its edge midpoints, 1/n the mean of its face points.
    valence = np.array([len(vertex_edges[v]) for v in range(vertex_count)])
    midpoints = _matrix(
        [[(end, 1 / n**2) for edge in vertex_edges[v] for end in edge] for v, n in enumerate(valence)], vertex_count
    )
    around = _matrix([[(f, 1 / n**2) for f in vertex_faces[v]] for v, n in enumerate(valence)], len(faces))
    vertex_matrix = scipy.sparse.diags((valence - 3) / valence) + midpoints + around @ face_matrix

    matrix = scipy.sparse.vstack([vertex_matrix, edge_matrix, face_matrix]).tocsr()
    return Subdivision(matrix.astype(np.float32), _quads(faces, edges, vertex_count), edges, faces)


def triangulate(quads: Int[np.ndarray, "q 4"]) -> Int[np.ndarray, "t 3"]:
    """Two triangles for each quad, cut from its first to its third corner."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], axis=1).reshape(-1, 3)


def _quads(faces: Polygons, edges: dict[tuple[int, int], int], vertex_count: int) -> Int[np.ndarray, "q 4"]:
    quads = []
    for number, face in enumerate(faces):
        centre = vertex_count + len(edges) + number
        for before, corner, after in zip(face[-1:] + face[:-1], face, face[1:] + face[:1], strict=True):
            ahead = vertex_count + edges[_edge(corner, after)]
            behind = vertex_count + edges[_edge(before, corner)]
            quads.append((corner, ahead, centre, behind))
    return np.array(quads)


def _edge(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _matrix(rows: list[list[tuple[int, float]]], columns: int) -> scipy.sparse.csr_matrix:
    row = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    column, weight = np.array([entry for r in rows for entry in r]).T
    return scipy.sparse.csr_matrix((weight, (row, column.astype(int))), shape=(len(rows), columns))
