"""Light on a surface, from lamps that travel with the viewer."""

import math

import numpy as np
from jaxtyping import Bool, Float

from implicit3dmm.render.color_space import srgb_to_linear

CLAY = (0.83, 0.735, 0.675)
"""Colour of a surface without colours of its own, sRGB."""

_INSIDE = (0.47, 0.49, 0.53)
_INSIDE_DIMMING = 0.45
_DATA_DARKEST = 0.4
"""Brightness of painted data where the surface is seen edge-on."""


def _unit(x: float, y: float, z: float) -> list[float]:
    length = math.sqrt(x * x + y * y + z * z)
    return [x / length, y / length, z / length]


# Camera's frame: x right, y up, z towards the viewer. A warm key from the upper left, a cool fill from the
# right, and a rim light from behind that parts the cheek and the neck from the background.
_LAMP_DIRECTIONS = np.array(
    [_unit(-0.55, 0.60, 0.70), _unit(0.85, 0.05, 0.55), _unit(0.45, 0.45, -0.75)], dtype=np.float32
)
_LAMP_COLORS = np.array([[0.930, 0.893, 0.837], [0.185, 0.202, 0.220], [0.350, 0.350, 0.350]], dtype=np.float32)
_SKY = np.array([0.180, 0.186, 0.190], dtype=np.float32)
_GROUND = np.array([0.128, 0.106, 0.093], dtype=np.float32)
_GLOSS = 0.07
_GLOSS_DIRECTION = np.array(_unit(*np.add(_unit(-0.55, 0.60, 0.70), [0, 0, 1])), dtype=np.float32)
_GLOSS_EXPONENT = 22


def shade_clay(normals: Float[np.ndarray, "m 3"], inside: Bool[np.ndarray, " m"]) -> Float[np.ndarray, "m 3"]:
    """Linear light from a matt clay surface with a faint gloss.

    Args:
        normals: unit, camera's frame, turned to the viewer.
        inside: where the back of the surface is seen, which is a dull grey.
    """
    light = np.maximum(normals @ _LAMP_DIRECTIONS.T, 0) @ _LAMP_COLORS
    light += normals[:, 1:2] * ((_SKY - _GROUND) / 2) + (_SKY + _GROUND) / 2
    light *= srgb_to_linear(np.float32(CLAY))
    light += _GLOSS * np.maximum(normals @ _GLOSS_DIRECTION, 0)[:, None] ** np.float32(_GLOSS_EXPONENT)
    light[inside] *= srgb_to_linear(np.float32(_INSIDE)) / srgb_to_linear(np.float32(CLAY))
    return light


def shade_colors(
    normals: Float[np.ndarray, "m 3"], inside: Bool[np.ndarray, " m"], colors: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "m 3"]:
    """Linear light from a surface painted with data: a lamp at the viewer's eye, so hues stay readable.

    What faces the viewer shows its colour unchanged; slopes darken to two fifths.

    Args:
        normals: unit, camera's frame, turned to the viewer.
        inside: where the back of the surface is seen, which is dimmed.
        colors: linear light.
    """
    brightness = _DATA_DARKEST + (1 - _DATA_DARKEST) * np.clip(normals[:, 2], 0, 1)
    brightness[inside] *= _INSIDE_DIMMING
    return colors * brightness[:, None]
