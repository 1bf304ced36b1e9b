"""Spirals over a mesh: the order in which SpiralNet++ reads a vertex and those around it."""

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.geometry.mesh import Mesh

UP = (0.0, 1.0, 0.0)
"""Towards the first neighbour: up in the canonical frame."""


def spirals(mesh: Mesh, length: int, *, towards: tuple[float, float, float] = UP) -> Int[np.ndarray, "v s"]:
    """Each vertex, then its neighbours, then theirs, counter-clockwise seen from outside (Gong et al. 2019, Eqn 2).

    The paper's first neighbour is arbitrary. Here it is the one that lies most in one direction, so that neighbouring
    vertices, and the weights that they share, start alike.

    Args:
        mesh: with faces that look outwards; open or closed, of any number of pieces.
        length: vertices of a spiral. One that finds fewer in its piece of the mesh is filled up with its own vertex.
        towards: the direction of the first neighbour.
    """
    turns = _turns(mesh)
    firsts = _first_neighbours(mesh, np.asarray(towards))
    table = np.repeat(np.arange(len(mesh.vertices))[:, None], length, axis=1)
    for vertex, first in firsts.items():
        members = _spiral(vertex, first, length, turns)
        table[vertex, : len(members)] = members
    return table


def _spiral(vertex: int, first: int, length: int, turns: list[dict[int, int]]) -> list[int]:
    members, starts = [vertex], [first]
    seen = {vertex}
    for member, start in zip(members, starts, strict=False):  # both grow
        for neighbour in _around(turns[member], start):
            if neighbour not in seen:
                seen.add(neighbour)
                members.append(neighbour)
                # Counter-clockwise from where it was reached, the ring before comes first, then the next one in turn.
                starts.append(member)
        if len(members) >= length:
            break
    return members[:length]


def _around(turn: dict[int, int], first: int) -> list[int]:
    """The neighbours of a vertex from the first one on; where triangles are missing, the rest fan by fan."""
    ring = {}
    ends = turn.keys() - set(turn.values())
    for start in (first, *sorted(ends), *turn):
        neighbour = start
        while neighbour is not None and neighbour not in ring:
            ring[neighbour] = None
            neighbour = turn.get(neighbour)
    return list(ring)


def _turns(mesh: Mesh) -> list[dict[int, int]]:
    """For each vertex: which neighbour follows which, counter-clockwise, in a triangle."""
    turns = [{} for _ in mesh.vertices]
    for a, b, c in mesh.faces.tolist():
        turns[a][b], turns[b][c], turns[c][a] = c, a, b
    return turns


def _first_neighbours(mesh: Mesh, towards: Float[np.ndarray, "3"]) -> dict[int, int]:
    """The neighbour of each vertex that lies most in a direction; of equal ones the lowest."""
    sides = np.unique(mesh.faces[:, [0, 1, 1, 2, 2, 0, 1, 0, 2, 1, 0, 2]].reshape(-1, 2), axis=0)
    steps = mesh.vertices[sides[:, 1]] - mesh.vertices[sides[:, 0]]
    rise = steps @ towards / np.maximum(np.linalg.norm(steps, axis=1), np.finfo(float).tiny)
    order = np.lexsort((sides[:, 1], -rise, sides[:, 0]))
    vertices, places = np.unique(sides[order, 0], return_index=True)
    return dict(zip(vertices.tolist(), sides[order[places], 1].tolist(), strict=True))
