"""The canonical frame: right-handed, x to the subject's left, y up, z out of the face, 1 unit = 200 mm.

Each subject is brought into it by one similarity, found on the rigid vertices of its neutral face, so that
size is kept beside the shape and not in it. A head fits in the unit ball.
"""

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.geometry.similarity import Similarity, fit_similarity

UNIT_MM = 200.0
"""Millimetres that one canonical unit stands for on the average adult."""


def canonical_similarity(
    neutral: Float[np.ndarray, "v 3"], rigid: Int[np.ndarray, " r"], reference: Float[np.ndarray, "r 3"]
) -> Similarity:
    """Similarity from a subject's own millimetres to the canonical frame.

    Args:
        neutral: vertices of the subject's neutral head, mm.
        rigid: vertices that expressions and the neck do not move.
        reference: where these vertices lie on the average adult, canonical units.

    Returns:
        The least-squares similarity; its scale is in canonical units per millimetre, about 1 / 200.
    """
    return fit_similarity(neutral[rigid], reference)


def canonical_to_mm(distance: float | np.ndarray, similarity: Similarity) -> float | np.ndarray:
    """Canonical distances as the subject's own millimetres.

    `similarity` leads from millimetres to the canonical frame.
    """
    return distance / similarity.scale
