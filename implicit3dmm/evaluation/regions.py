"""The parts of a head that figures are given for."""

import numpy as np
from jaxtyping import Bool

from implicit3dmm.heads.template import FACE_REGIONS, REGIONS, HeadTemplate

HEADLINE = "neck_masked"
"""Where a single figure stands for a head: the neck's length and cut are no part of anybody's likeness."""

WIDE_PARTS = (HEADLINE, "whole_head", "face")
"""Parts that every table gives."""

PARTS = (*WIDE_PARTS, *REGIONS)
"""Names of the parts, the headline first."""


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
