"""Ink on pictures: text, lines and areas, drawn large and reduced so that their edges are smooth."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

PAPER: Color = (244, 244, 245)
"""Background of every picture and figure: a light neutral grey."""
INK: Color = (45, 48, 54)
FAINT_INK: Color = (118, 122, 130)
RULE: Color = (218, 219, 222)

_ENLARGEMENT = 3
# Pillow's own font lacks these.
_SUBSTITUTES = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "×": "x", "≤": "<=", "≥": ">=", "→": "->", "µ": "u", "σ": "sigma"}
)


class Canvas:
    """A picture to draw on; lengths are in pixels of the finished picture, places from its upper left."""

    def __init__(self, size: tuple[int, int]):
        """Makes an empty sheet of `size` (width, height) pixels."""
        self._image = Image.new("RGB", (size[0] * _ENLARGEMENT, size[1] * _ENLARGEMENT), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[tuple[float, float]], *, color: Color = INK, width: float = 1.0) -> None:
        """A line through the points."""
        self._draw.line(_enlarged(points), fill=color, width=max(1, round(width * _ENLARGEMENT)), joint="curve")

    def area(self, corners: Sequence[tuple[float, float]], *, color: Color) -> None:
        """A filled polygon."""
        self._draw.polygon(_enlarged(corners), fill=color)

    def dot(self, centre: tuple[float, float], *, radius: float, color: Color) -> None:
        """A filled disc."""
        x, y = centre
        self._draw.ellipse(_enlarged([(x - radius, y - radius), (x + radius, y + radius)]), fill=color)

    def text(
        self,
        place: tuple[float, float],
        text: str,
        *,
        size: float = 14,
        color: Color = INK,
        anchor: str = "la",
    ) -> None:
        """Text at a place; `anchor` is Pillow's two letters: l, m, r across and a, m, s, d down."""
        font = _font(round(size * _ENLARGEMENT))
        self._draw.text(_enlarged([place])[0], _drawable(text), fill=color, font=font, anchor=anchor)

    def text_upright(self, place: tuple[float, float], text: str, *, size: float = 14, color: Color = INK) -> None:
        """Text that reads upwards, its middle line at the place."""
        width, height = round(text_width(text, size=size)) + 4, round(size * 1.5)
        label = Canvas((width, height))
        label.text((width / 2, height / 2), text, size=size, color=color, anchor="mm")
        corner = _enlarged([(place[0] - height / 2, place[1] - width / 2)])[0]
        self._image.paste(label._image.transpose(Image.Transpose.ROTATE_90), (round(corner[0]), round(corner[1])))

    def picture(self) -> UInt8[np.ndarray, "h w 3"]:
        """What has been drawn."""
        return np.array(self._image.reduce(_ENLARGEMENT))


def text_width(text: str, *, size: float = 14) -> float:
    """Width of a line of text, pixels."""
    return _font(round(size * _ENLARGEMENT)).getlength(_drawable(text)) / _ENLARGEMENT


def wrap(text: str, *, width: float, size: float = 14) -> list[str]:
    """The text's words in lines no wider than `width` pixels, except where one word is wider."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if text_width(longer, size=size) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


def _drawable(text: str) -> str:
    return text.translate(_SUBSTITUTES)


def _enlarged(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * _ENLARGEMENT, y * _ENLARGEMENT) for x, y in points]
