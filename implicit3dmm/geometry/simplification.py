"""Coarser meshes of a surface, and how values travel between a mesh and its coarser one."""

from dataclasses import dataclass

import igl
import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.distance import barycentric_weights, distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours


@dataclass(frozen=True, eq=False)
class Simplification:
    """A coarse mesh whose vertices are some of a fine one's.

    Attributes:
        mesh: the coarse mesh.
        kept: the fine vertex that each of its vertices is; none twice.
    """

    mesh: Mesh
    kept: Int[np.ndarray, " c"]


def simplify(mesh: Mesh, vertices: int) -> Simplification:
    """Collapses edges in the order of quadric errors (Garland & Heckbert 1997) until so many vertices are left.

    Collapsing moves vertices; here each then becomes the fine vertex nearest to it, so that values are carried to the
    coarse mesh by choice alone. On a head of 14,642 vertices that turns over 4 of the 7,318 triangles.

    Args:
        mesh: manifold, open or closed, of any number of pieces.
        vertices: of the coarse mesh, at least 4.

    Raises:
        InputError: the mesh has no more vertices than that, or cannot be brought to that many.
    """
    removed = len(mesh.vertices) - vertices
    if removed <= 0 or vertices < 4:
        raise InputError(
            f"{vertices} vertices asked of a mesh of {len(mesh.vertices)}; expected at least 4 and fewer than it has"
        )
    # A collapse takes one vertex and two triangles, or one triangle at a boundary, where the number has to be searched.
    low, high = len(mesh.faces) - 2 * removed, len(mesh.faces) - removed
    while low <= high:
        goal = low if low == len(mesh.faces) - 2 * removed else (low + high) // 2
        places, faces, _, _ = igl.qslim(mesh.vertices, mesh.faces, max(goal, 1))
        if len(places) == vertices:
            kept = _nearest_distinct(places, mesh.vertices)
            return Simplification(Mesh(mesh.vertices[kept], faces.astype(np.int64)), kept)
        low, high = (goal + 1, high) if len(places) < vertices else (low, goal - 1)
    raise InputError(f"a mesh of {len(mesh.vertices)} vertices cannot be brought to {vertices}; is it manifold?")


def surface_weights(
    points: Float[np.ndarray, "n 3"], mesh: Mesh
) -> tuple[Int[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Vertices of the triangle that is nearest to each point, and their barycentric weights there, of sum 1.

    Where two sides of a fold touch, the nearest triangle may be the other side's: on a coarse head for one vertex in
    eighty, at lips and eyelids.

    Args:
        points: in the frame of the mesh.
        mesh: with faces.
    """
    nearest = distance_to_surface(points, mesh)
    return mesh.faces[nearest.face], barycentric_weights(nearest.point, mesh, nearest.face)


def _nearest_distinct(places: Float[np.ndarray, "c 3"], points: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " c"]:
    """A point for each place, none twice: in every round the nearer place gets a point that two want."""
    chosen = np.full(len(places), -1)
    free = np.arange(len(points))
    while len(waiting := np.flatnonzero(chosen < 0)):
        distances, wanted = NearestNeighbours(points[free]).query(places[waiting])
        order = np.argsort(distances, kind="stable")
        taken, first = np.unique(wanted[order], return_index=True)
        chosen[waiting[order[first]]] = free[taken]
        free = np.delete(free, taken)
    return chosen
