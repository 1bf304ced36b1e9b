"""Small line charts: losses over the steps of a training, figures of a table."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from implicit3dmm.errors import InputError
from implicit3dmm.render.drawing import FAINT_INK, RULE, Canvas, Color, text_width
from implicit3dmm.render.pictures import Picture
from implicit3dmm.render.ticks import linear_ticks, log_ticks, tick_labels

_COLORS: tuple[Color, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (90, 90, 90),
)
"""Okabe and Ito's colours (2008), which colour-blind readers tell apart; an eighth series begins again."""
_FONT = 14
_TITLE_FONT = 18
_LINE = 24
_FEW = 40
"""A series of at most so many points shows them as dots."""

Points = Float[np.ndarray, "n 2"]


@dataclass(frozen=True)
class _Axis:
    """One direction of a chart: values from `low` to `high` fall on pixels from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def place(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Pixels of values."""
        scale = np.log10 if self.log else np.asarray
        low, high = scale(self.low), scale(self.high)
        return self.start + (scale(values) - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Round values to write beside the axis."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def plot_curves(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    log_y: bool = False,
    size: tuple[int, int] = (800, 480),
) -> Picture:
    """A line chart with axes, round ticks and a legend.

    Args:
        series: (x, y) of equal length by name; a line is broken where a value is not finite, or, on a
            logarithmic axis, not positive.
        title: above the chart.
        xlabel, ylabel: what the axes show, with the unit.
        log_y: whether the y axis is logarithmic.
        size: width and height of the picture, pixels.

    Returns:
        (h, w, 3) picture.

    Raises:
        InputError: x and y of a series differ in length, or no series has a point that can be shown.
    """
    lines = {name: _points(name, *pair, log_y=log_y) for name, pair in series.items()}
    shown = np.concatenate([np.zeros((0, 2)), *(line[np.isfinite(line).all(axis=1)] for line in lines.values())])
    if len(shown) == 0:
        raise InputError(
            f"the {len(lines)} series of {title!r} hold no point to show; expected finite values"
            + (", positive ones for the logarithmic axis" if log_y else "")
        )
    canvas = Canvas(size)
    legend = _legend_rows(list(lines), width=size[0] - 32)
    top = 16 + _TITLE_FONT * 1.6 + _LINE * len(legend) + 8
    y = _Axis(*_limits(shown[:, 1], log=log_y), start=size[1] - 2.6 * _LINE, stop=top, log=log_y)
    widest = max(text_width(label, size=_FONT) for label in tick_labels(y.ticks()) or [""])
    x = _Axis(*_span(shown[:, 0]), start=20 + _LINE + widest, stop=size[0] - 28)
    canvas.text((16, 12), title, size=_TITLE_FONT)
    _draw_legend(canvas, legend, top=16 + _TITLE_FONT * 1.6)
    _draw_axes(canvas, x, y, xlabel=xlabel, ylabel=ylabel)
    for index, line in enumerate(lines.values()):
        _draw_line(canvas, line, x, y, color=_COLORS[index % len(_COLORS)])
    return canvas.picture()


def _points(name: str, x: ArrayLike, y: ArrayLike, *, log_y: bool) -> Points:
    """The series as points, with NaN where y cannot be shown."""
    x, y = np.asarray(x, dtype=np.float64).ravel(), np.asarray(y, dtype=np.float64).ravel()
    if len(x) != len(y):
        raise InputError(f"the series {name!r} has {len(x)} x and {len(y)} y values; expected as many of each")
    return np.stack([x, np.where((y > 0) | (not log_y), y, np.nan)], axis=1)


def _span(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Lowest and highest value, apart even where all are equal."""
    low, high = float(values.min()), float(values.max())
    apart = max(abs(low), 1.0) * 0.5 if high - low <= 1e-12 * max(abs(low), abs(high)) else 0.0
    return low - apart, high + apart


def _limits(values: Float[np.ndarray, " n"], *, log: bool) -> tuple[float, float]:
    """Limits of the y axis, with some air above and below; a linear axis keeps a zero that is near."""
    low, high = _span(np.log10(values) if log else values)
    air = 0.05 * (high - low)
    if log:
        return 10 ** (low - air), 10 ** (high + air)
    return (0.0 if 0 <= low < 0.3 * high else low - air), high + air


def _legend_rows(names: list[str], *, width: float) -> list[list[tuple[float, int, str]]]:
    """Rows of legend entries (left edge, index, name) no wider than `width`; none for one nameless series."""
    rows: list[list[tuple[float, int, str]]] = []
    right = width
    for index, name in enumerate(names):
        needed = 30 + text_width(name, size=_FONT) + 22
        if right + needed > width:
            rows.append([])
            right = 0.0
        rows[-1].append((right, index, name))
        right += needed
    return rows if names != [""] else []


def _draw_legend(canvas: Canvas, rows: list[list[tuple[float, int, str]]], *, top: float) -> None:
    for number, row in enumerate(rows):
        y = top + _LINE * (number + 0.5)
        for left, index, name in row:
            canvas.line([(16 + left, y), (38 + left, y)], color=_COLORS[index % len(_COLORS)], width=2.5)
            canvas.text((46 + left, y), name, size=_FONT, anchor="lm")


def _draw_axes(canvas: Canvas, x: _Axis, y: _Axis, *, xlabel: str, ylabel: str) -> None:
    for height, label in zip(y.place(np.array(y.ticks())), tick_labels(y.ticks()), strict=True):
        canvas.line([(x.start, height), (x.stop, height)], color=RULE)
        canvas.text((x.start - 8, height), label, size=_FONT, color=FAINT_INK, anchor="rm")
    for across, label in zip(x.place(np.array(x.ticks())), tick_labels(x.ticks()), strict=True):
        canvas.line([(across, y.start), (across, y.start + 5)], color=FAINT_INK)
        canvas.text((across, y.start + 9), label, size=_FONT, color=FAINT_INK, anchor="ma")
    canvas.line([(x.start, y.start), (x.stop, y.start)], color=FAINT_INK)
    canvas.text(((x.start + x.stop) / 2, y.start + 1.15 * _LINE), xlabel, size=_FONT, anchor="ma")
    canvas.text_upright((14, (y.start + y.stop) / 2), ylabel, size=_FONT)


def _draw_line(canvas: Canvas, line: Points, x: _Axis, y: _Axis, *, color: Color) -> None:
    """The series in unbroken pieces, and its points where they are few."""
    places = np.stack([x.place(line[:, 0]), y.place(line[:, 1])], axis=1)
    known = np.isfinite(places).all(axis=1)
    starts = np.flatnonzero(np.diff(known.astype(np.int8), prepend=0))
    for piece in np.split(places, starts):
        if len(piece) and np.isfinite(piece[0]).all():
            canvas.line([tuple(place) for place in piece], color=color, width=2.0)
    if known.sum() <= _FEW:
        for place in places[known]:
            canvas.dot(tuple(place), radius=3.5, color=color)
