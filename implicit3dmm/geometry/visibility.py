"""What of a surface can be seen from a place."""

import igl
import numpy as np
from jaxtyping import Bool, Float

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh

NEARER = 1e-6
"""A hit counts as nearer than a point where it lies before it by more than this share of the point's distance."""


def visible_from(points: Float[np.ndarray, "n 3"], mesh: Mesh, eye: Float[np.ndarray, "3"]) -> Bool[np.ndarray, " n"]:
    """Which points of a surface can be seen from a place: no part of the mesh lies on the way.

    One ray is cast to each point, in double precision. Of a closed mesh, points on faces that look away are hidden.

    Args:
        points: on the mesh.
        mesh: with faces; all of it hides what is behind.
        eye: where from, outside the mesh.

    Raises:
        InputError: the mesh has no faces.
    """
    if mesh.faces is None:
        raise InputError("the mesh has no faces; a surface is needed to hide what is behind it; give a mesh")
    centre = mesh.bounds().mean(axis=0)
    vertices, start = mesh.vertices - centre, np.asarray(eye) - centre
    ways = np.ascontiguousarray(points - centre - start)
    tree = igl.AABB()
    tree.init(vertices, mesh.faces)
    _, reached, _ = tree.intersect_ray_first(vertices, mesh.faces, np.repeat(start[None], len(ways), axis=0), ways)
    return reached > 1 - NEARER
