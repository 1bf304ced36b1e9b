"""What an edit did to a surface."""

import numpy as np
from jaxtyping import Float

from implicit3dmm.geometry.distance import signed_distance
from implicit3dmm.geometry.mesh import Mesh


def displacement_mm(edited: Mesh, before: Mesh, *, mm_per_unit: float) -> Float[np.ndarray, " v"]:
    """How far each vertex of `edited` lies from the surface before the edit, mm; positive where the edit added.

    Args:
        edited: any frame.
        before: closed, in the same frame.
        mm_per_unit: millimetres in a unit of that frame.
    """
    return signed_distance(edited.vertices, before).distance * mm_per_unit
