"""Perceptually even colour scales for errors, and the bar that explains them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from implicit3dmm.render.color_space import linear_to_srgb, oklab_to_linear
from implicit3dmm.render.drawing import Canvas, text_width
from implicit3dmm.render.ticks import limit_ticks, tick_labels

UNKNOWN = (0.72, 0.72, 0.73)
"""Colour of values that are not a number, sRGB."""

_COLORS = 256
_BAR_FONT = 14


@dataclass(frozen=True, eq=False)
class ColorScale:
    """Colours for the numbers between two limits; numbers beyond a limit take its colour.

    Attributes:
        low, high: the limits.
        table: (n, 3) sRGB colours in [0, 1], from low to high.
    """

    low: float
    high: float
    table: Float[np.ndarray, "n 3"]

    def __call__(self, values: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3"]:
        """sRGB colours in [0, 1]; a light grey where a value is not a number."""
        share = np.clip((np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low), 0, 1)
        place = np.nan_to_num(share) * (len(self.table) - 1)
        steps = np.arange(len(self.table))
        colors = np.stack([np.interp(place, steps, channel) for channel in self.table.T], axis=-1)
        return np.where(np.isnan(share)[..., None], UNKNOWN, colors)


def error_scale(limit: float) -> ColorScale:
    """Scale for errors from 0 (pale green) over yellow and red to `limit` (dark plum).

    Its steps are equally far apart in OKLab, and it only gets darker, so it survives a grey print.
    """
    t = np.linspace(0, 1, 2001)
    path = _path(0.955 - 0.62 * t**1.5, 0.03 + 0.14 * np.sin(0.86 * np.pi * t), 165 - 180 * t**0.7)
    return ColorScale(0.0, limit, _even_table(path))


def signed_scale(limit: float) -> ColorScale:
    """Scale from -limit (dark blue) through 0 (pale grey) to +limit (dark red), each side even in OKLab."""
    t = np.linspace(0, 1, 2001)
    lightness = 0.94 - 0.56 * t
    warm = _path(lightness, 0.190 * np.sin(0.75 * np.pi * t), 50 - 25 * t)
    cold = _path(lightness, 0.155 * np.sin(0.75 * np.pi * t), 240 + 25 * t)
    return ColorScale(-limit, limit, np.concatenate([_even_table(cold)[:0:-1], _even_table(warm)]))


def color_bar(scale: ColorScale, *, height: int, title: str = "mm") -> UInt8[np.ndarray, "h w 3"]:
    """An upright bar of the scale with its numbers; a pointed end stands for all that lies beyond.

    Args:
        scale: the colours.
        height: of the picture, pixels; at least 100.
        title: written above the bar, with the unit.
    """
    ticks = limit_ticks(scale.high)
    ticks = [-tick for tick in ticks[:0:-1]] * (scale.low < 0) + ticks
    labels = tick_labels(ticks)
    bar, thickness, tip = _BAR_FONT * 0.5, 18, 12
    widest = max(text_width(label, size=_BAR_FONT) for label in labels)
    width = round(max(bar + thickness + 8 + widest, bar + text_width(title, size=_BAR_FONT)) + _BAR_FONT)
    top, bottom = 2.2 * _BAR_FONT + tip, height - _BAR_FONT - (tip if scale.low < 0 else 0)
    canvas = Canvas((width, height))
    canvas.text((bar, 2), title, size=_BAR_FONT)
    _draw_gradient(canvas, scale, left=bar, right=bar + thickness, top=top, bottom=bottom, tip=tip)
    for tick, label in zip(ticks, labels, strict=True):
        y = bottom - (tick - scale.low) / (scale.high - scale.low) * (bottom - top)
        canvas.line([(bar + thickness, y), (bar + thickness + 4, y)])
        canvas.text((bar + thickness + 8, y), label, size=_BAR_FONT, anchor="lm")
    return canvas.picture()


def _draw_gradient(
    canvas: Canvas, scale: ColorScale, *, left: float, right: float, top: float, bottom: float, tip: float
) -> None:
    """The bar itself, in slices of a third of a pixel, and its pointed ends."""
    edges = np.linspace(bottom, top, round(bottom - top) * 3 + 1)
    middles = np.linspace(scale.low, scale.high, 2 * len(edges) - 1)[1::2]
    colors = [tuple(map(int, color)) for color in np.rint(scale(middles) * 255)]
    for low, high, color in zip(edges[:-1], edges[1:], colors, strict=True):
        canvas.area([(left, low), (right, low), (right, high), (left, high)], color=color)
    middle = (left + right) / 2
    canvas.area([(left, top), (right, top), (middle, top - tip)], color=colors[-1])
    if scale.low < 0:
        canvas.area([(left, bottom), (right, bottom), (middle, bottom + tip)], color=colors[0])


def _path(
    lightness: Float[np.ndarray, " n"], chroma: Float[np.ndarray, " n"], hue: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 3"]:
    """OKLab colours of lightness, chroma and hue (degrees)."""
    angle = np.radians(hue)
    return np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=-1)


def _even_table(path: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "c 3"]:
    """sRGB colours in equal steps along a path in OKLab."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    places = np.linspace(0, length[-1], _COLORS)
    oklab = np.stack([np.interp(places, length, channel) for channel in path.T], axis=-1)
    return linear_to_srgb(oklab_to_linear(oklab))
