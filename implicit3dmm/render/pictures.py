"""Pictures side by side with labels, and as files."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from implicit3dmm.errors import InputError
from implicit3dmm.files import atomic_path
from implicit3dmm.render.drawing import INK, PAPER, Canvas, Color, wrap

Picture = UInt8[np.ndarray, "_ _ 3"]

LINE_HEIGHT = 1.5
"""Height of a line of text, in font sizes."""


def strip(images: Sequence[Picture], labels: Sequence[str] = (), *, gap: int = 8, font_size: float = 16) -> Picture:
    """Pictures in one row, each with its label above; see `grid`."""
    return grid([images], column_labels=labels, gap=gap, font_size=font_size)


def grid(
    rows: Sequence[Sequence[Picture]],
    *,
    column_labels: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    gap: int = 8,
    font_size: float = 16,
) -> Picture:
    """Pictures in rows and columns on the common background, each in the middle of its cell.

    A column is as wide as its widest picture, a row as high as its highest; labels take 1.5 font sizes.

    Args:
        rows: the pictures, (h, w, 3) of 8 bits; a row may be shorter than the others.
        column_labels: one above each column, or none.
        row_labels: one to the left of each row, turned upwards, or none.
        gap: between pictures, pixels.
        font_size: of the labels, pixels.

    Raises:
        InputError: there is no picture, one is not (h, w, 3) of 8 bits, or the labels do not fit in number.
    """
    _check(rows, column_labels=column_labels, row_labels=row_labels)
    columns = max(len(row) for row in rows)
    widths = [max(row[k].shape[1] for row in rows if k < len(row)) for k in range(columns)]
    heights = [max((picture.shape[0] for picture in row), default=0) for row in rows]
    label_height = round(font_size * LINE_HEIGHT)
    lefts = list(accumulate([w + gap for w in widths], initial=label_height if row_labels else 0))
    tops = list(accumulate([h + gap for h in heights], initial=label_height if column_labels else 0))
    sheet = _sheet(width=lefts[-1] - gap, height=tops[-1] - gap)
    for k, label in enumerate(column_labels):
        _paste(sheet, _label(label, length=widths[k], font_size=font_size), left=lefts[k], top=0)
    for r, row in enumerate(rows):
        if row_labels:
            upright = np.rot90(_label(row_labels[r], length=heights[r], font_size=font_size))
            _paste(sheet, upright, left=0, top=tops[r])
        for k, picture in enumerate(row):
            left, top = (widths[k] - picture.shape[1]) // 2, (heights[r] - picture.shape[0]) // 2
            _paste(sheet, picture, left=lefts[k] + left, top=tops[r] + top)
    return sheet


def stack(pictures: Sequence[Picture], *, gap: int = 8) -> Picture:
    """Pictures below each other, flush left, on the common background."""
    tops = list(accumulate([picture.shape[0] + gap for picture in pictures], initial=0))
    sheet = _sheet(width=max(picture.shape[1] for picture in pictures), height=tops[-1] - gap)
    for picture, top in zip(pictures, tops, strict=False):
        _paste(sheet, picture, left=0, top=top)
    return sheet


def with_margin(picture: Picture, margin: int) -> Picture:
    """The picture with `margin` pixels of the common background on each side."""
    sheet = _sheet(width=picture.shape[1] + 2 * margin, height=picture.shape[0] + 2 * margin)
    _paste(sheet, picture, left=margin, top=margin)
    return sheet


def text_block(paragraphs: Sequence[str], *, width: int, font_size: float = 15, color: Color = INK) -> Picture:
    """Paragraphs of text, their lines broken to `width` pixels."""
    lines = [line for paragraph in paragraphs for line in wrap(paragraph, width=width, size=font_size)]
    step = font_size * LINE_HEIGHT
    canvas = Canvas((width, max(1, round(step * len(lines)))))
    for index, line in enumerate(lines):
        canvas.text((0, (index + 0.5) * step), line, size=font_size, color=color, anchor="lm")
    return canvas.picture()


def write_png(path: str | Path, picture: UInt8[np.ndarray, "h w c"]) -> None:
    """Writes a picture of 3 or, with transparency, 4 channels; whole or not at all.

    Args:
        path: the file, with any suffix.
        picture: (h, w, 3) or (h, w, 4), 8 bits a channel.

    Raises:
        InputError: the array is no such picture, or the file cannot be written.
    """
    if picture.ndim != 3 or picture.shape[2] not in (3, 4) or picture.dtype != np.uint8 or picture.size == 0:
        raise InputError(
            f"an array {picture.shape} of {picture.dtype} is no picture; expected (h, w, 3) or (h, w, 4) of uint8"
        )
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def _check(rows: Sequence[Sequence[Picture]], *, column_labels: Sequence[str], row_labels: Sequence[str]) -> None:
    pictures = [picture for row in rows for picture in row]
    if not pictures:
        raise InputError("no pictures were given to put together; expected at least one")
    for picture in pictures:
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise InputError(f"a picture is {picture.shape} of {picture.dtype}; expected (h, w, 3) of uint8")
    columns = max(len(row) for row in rows)
    for what, labels, count in (("column", column_labels, columns), ("row", row_labels, len(rows))):
        if labels and len(labels) != count:
            raise InputError(f"{len(labels)} {what} labels were given for {count} {what}s; expected one for each")


def _label(text: str, *, length: int, font_size: float) -> Picture:
    height = round(font_size * LINE_HEIGHT)
    canvas = Canvas((length, height))
    canvas.text((length / 2, height * 0.45), text, size=font_size, anchor="mm")
    return canvas.picture()


def _sheet(*, width: int, height: int) -> Picture:
    return np.full((height, width, 3), PAPER, dtype=np.uint8)


def _paste(sheet: Picture, picture: Picture, *, left: int, top: int) -> None:
    sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
