"""Colour spaces: sRGB as pictures store it, linear light as lamps add up, and OKLab as eyes tell apart.

OKLab is Ottosson's perceptual colour space (2020); equal distances in it look about equally large.
"""

import numpy as np
from jaxtyping import Float

_LINEAR_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_CONES_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def srgb_to_linear(srgb: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Linear light of sRGB values, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """sRGB values of linear light, cut to [0, 1] (IEC 61966-2-1)."""
    light = np.clip(linear, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def linear_to_oklab(linear: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """OKLab lightness, green-red and blue-yellow of linear light."""
    return np.cbrt(linear @ _LINEAR_TO_CONES.T) @ _CONES_TO_OKLAB.T


def oklab_to_linear(oklab: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Linear light of OKLab colours; outside [0, 1] where a screen cannot show them."""
    return (oklab @ np.linalg.inv(_CONES_TO_OKLAB).T) ** 3 @ np.linalg.inv(_LINEAR_TO_CONES).T
