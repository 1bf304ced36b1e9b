"""The parts of a head that figures are given for."""

import numpy as np
from jaxtyping import Bool

from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.template import FACE_REGIONS, REGIONS, HeadTemplate

HEADLINE = "neck_masked"
"""Where a single figure stands for a head: the neck's length and cut are no part of anybody's likeness."""

WIDE_PARTS = (HEADLINE, "whole_head", "face")
"""Parts that every table gives."""

PARTS = (*WIDE_PARTS, *REGIONS)
"""Names of the parts, the headline first."""


LANDMARKS_OF = {"lips": slice(48, 68), "eyelids": slice(36, 48)}
"""iBUG landmarks along the edges that expressions move most."""
REACH_MM = 6.0
"""Vertices of the average adult so near to a landmark belong to its edge."""


def moving_parts(template: HeadTemplate) -> dict[str, Bool[np.ndarray, " v"]]:
    """Masks of the template's vertices along the lips and the eyelids."""
    masks = {}
    for name, landmarks in LANDMARKS_OF.items():
        places = NearestNeighbours(template.vertices[template.landmarks[landmarks]])
        masks[name] = places.query(template.vertices)[0] * UNIT_MM < REACH_MM
    return masks


def head_parts(template: HeadTemplate) -> dict[str, Bool[np.ndarray, " v"]]:
    """Masks of the template's vertices for each of `PARTS`.

    "neck_masked" is everything but the neck and the cap that closes it, "whole_head" is everything, "face"
    the eight regions from chin to forehead; the 12 regions part the head.
    """
    neck = template.in_regions("neck")
    wide = {
        "neck_masked": ~neck,
        "whole_head": np.ones_like(neck),
        "face": template.in_regions(*FACE_REGIONS),
    }
    return wide | {name: template.in_regions(name) for name in REGIONS}
