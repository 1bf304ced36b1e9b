"""Values of a field on a grid of cubic cells, everywhere or near a level set alone."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from implicit3dmm.errors import InputError

ScalarField = Callable[[Float32[np.ndarray, "n 3"]], Float[np.ndarray, " n"]]
"""A function of points, negative inside; the value at a point must not depend on the other points."""

BLOCK_SIZES = (32, 16, 8, 4, 2)
"""Edges of the boxes that are tested, coarse to fine, in cells; each divides the one before."""

_INDEX_BLOCK = 1 << 21


@dataclass(frozen=True)
class Grid:
    """Cubic cells in a box; the point of integer index i lies at origin + i * step."""

    origin: Float[np.ndarray, "3"]
    step: float
    cells: tuple[int, int, int]

    @classmethod
    def over(cls, bounds: Float[np.ndarray, "2 3"], resolution: int) -> "Grid":
        """The grid from the lowest corner of a box, with `resolution` cells along its longest side.

        Raises:
            InputError: the box is empty or not finite, or the resolution is below 1.
        """
        low, high = np.asarray(bounds, dtype=np.float64)
        if not (np.isfinite(bounds).all() and (high > low).all()):
            raise InputError(f"the bounds are {low} to {high}; a box with low < high is expected; correct them")
        if resolution < 1:
            raise InputError(f"the resolution is {resolution}; at least 1 cell is expected; raise it")
        step = float((high - low).max()) / resolution
        # A side of a whole number of cells must not gain one by rounding.
        cells = np.ceil((high - low) / step * (1.0 - 1e-12)).astype(int)
        return cls(low, step, (int(cells[0]), int(cells[1]), int(cells[2])))

    @property
    def points(self) -> tuple[int, int, int]:
        """Number of grid points along each axis."""
        return (self.cells[0] + 1, self.cells[1] + 1, self.cells[2] + 1)

    def positions(self, indices: Float[np.ndarray, "n 3"] | Int[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Positions of integer or fractional grid indices, computed from the index alone: no drift."""
        return self.origin + indices * self.step


class GridField:
    """A field on a grid: evaluated in chunks, counted, and refused where it is not finite."""

    def __init__(self, sdf: ScalarField, grid: Grid, chunk: int):
        self.grid = grid
        self.evaluations = 0
        self._sdf = sdf
        self._chunk = chunk

    def at(self, indices: Float[np.ndarray, "n 3"] | Int[np.ndarray, "n 3"]) -> Float32[np.ndarray, " n"]:
        """Values at grid indices, which may be fractions."""
        values = np.empty(len(indices), dtype=np.float32)
        for start in range(0, len(indices), self._chunk):
            points = self.grid.positions(indices[start : start + self._chunk]).astype(np.float32)
            part = np.asarray(self._sdf(points))
            assert part.shape == (len(points),), f"the field gave {part.shape} for {len(points)} points"
            values[start : start + self._chunk] = part
        self.evaluations += len(indices)
        bad = ~np.isfinite(values)
        if bad.any():
            place = self.grid.positions(indices[bad][:1])[0]
            raise InputError(
                f"the field is not finite at {bad.sum()} of {len(values)} points, the first is"
                f" {place.round(4).tolist()}; finite distances are expected; check the weights and codes"
            )
        return values


def fill_densely(field: GridField, volume: Float32[np.ndarray, "x y z"]) -> None:
    """Fills all but the outermost layer of `volume`."""
    points = field.grid.points
    values = np.empty(points, dtype=np.float32)
    flat = values.ravel()
    # Indices of a few million points at a time: those of the whole grid would take six times its memory.
    for start in range(0, flat.size, _INDEX_BLOCK):
        places = np.arange(start, min(start + _INDEX_BLOCK, flat.size))
        flat[places] = field.at(np.stack(np.unravel_index(places, points), axis=1))
    volume[1:-1, 1:-1, 1:-1] = values


def fill_narrow_band(
    field: GridField, volume: Float32[np.ndarray, "x y z"], *, level: float, lipschitz: float
) -> tuple[Bool[np.ndarray, "x y z"], float]:
    """Fills all but the outermost layer of `volume`, exactly near the surface and coarsely elsewhere.

    Returns:
        Which cells may hold surface, each marked at its highest corner, and the largest slope seen.
    """
    band = _narrow_band(field, level=level, lipschitz=lipschitz)
    size, last = BLOCK_SIZES[-1], field.grid.points
    xs, ys, zs = (np.minimum(np.arange(n), n - 2) // size for n in last)
    for layer, x in zip(volume[1:-1, 1:-1, 1:-1], xs, strict=True):
        layer[:] = band.coarse[x][np.ix_(ys, zs)]
    needed = np.zeros(volume.shape, dtype=bool)
    _mark(needed, band.boxes + 1, offsets=range(size + 1), last=last)
    _reuse(band, needed, volume)
    places = np.flatnonzero(needed)
    volume.ravel()[places] = field.at(np.stack(np.unravel_index(places, volume.shape), axis=1) - 1)
    mask = np.zeros(volume.shape, dtype=bool)
    _mark(mask, band.boxes + 1, offsets=range(1, size + 1), last=last)
    for axis in range(3):
        np.moveaxis(mask, axis, 0)[[1, -1]] = True
    return mask, band.steepest


@dataclass(frozen=True, eq=False)
class _Band:
    """What is left when boxes without surface are dropped.

    Attributes:
        boxes: lowest cells of the boxes of the smallest size that may hold surface.
        coarse: a value for each box of the smallest size, from the last box around it that was evaluated.
        steepest: largest slope of the field seen, from a box's centre to those of its parts.
        known: grid indices of the box centres that are grid points.
        values: of the field there.
    """

    boxes: Int[np.ndarray, "m 3"]
    coarse: Float32[np.ndarray, "i j k"]
    steepest: float
    known: Int[np.ndarray, "p 3"]
    values: Float32[np.ndarray, " p"]


def _narrow_band(field: GridField, *, level: float, lipschitz: float) -> _Band:
    """Halves boxes and drops those without surface."""
    cells, step = np.array(field.grid.cells), field.grid.step
    lows = _boxes_over(cells, BLOCK_SIZES[0])
    coarse = np.zeros(-(-cells // BLOCK_SIZES[0]), dtype=np.float32)
    steepest, known, parents = 0.0, [], None
    for size, part_size in zip(BLOCK_SIZES, (*BLOCK_SIZES[1:], None), strict=True):
        highs = np.minimum(lows + size, cells)
        centres = 0.5 * (lows + highs)
        values = field.at(centres)
        coarse[tuple((lows // size).T)] = values
        on_grid = (centres == np.floor(centres)).all(axis=1)
        known.append((centres[on_grid].astype(np.int64), values[on_grid]))
        if parents is not None:
            steepest = max(steepest, _steepest(centres, values, *parents) / step)
        keep = np.abs(values - level) <= lipschitz * 0.5 * step * np.linalg.norm(highs - lows, axis=1)
        lows, centres, values = lows[keep], centres[keep], values[keep]
        if part_size is not None:
            lows, owners = _parts(lows, size, part_size, cells)
            parents = centres[owners], values[owners]
            coarse = _repeated(coarse, size // part_size, -(-cells // part_size))
    indices, known_values = (np.concatenate(column) for column in zip(*known, strict=True))
    return _Band(lows, coarse, steepest, indices, known_values)


def _parts(
    lows: Int[np.ndarray, "m 3"], size: int, part_size: int, cells: Int[np.ndarray, "3"]
) -> tuple[Int[np.ndarray, "p 3"], Int[np.ndarray, " p"]]:
    """Lowest cells of the boxes' parts that lie on the grid, and which box each is a part of."""
    parts = lows[:, None] + _boxes_over(np.full(3, size), part_size)
    owners, which = np.nonzero((parts < cells).all(axis=2))
    return parts[owners, which], owners


def _reuse(band: _Band, needed: Bool[np.ndarray, "x y z"], volume: Float32[np.ndarray, "x y z"]) -> None:
    """Takes over the needed points that are known already, so that none is evaluated twice."""
    places = np.ravel_multi_index(tuple((band.known + 1).T), volume.shape)
    wanted = needed.ravel()[places]
    volume.ravel()[places[wanted]] = band.values[wanted]
    needed.ravel()[places[wanted]] = False


def _boxes_over(cells: Int[np.ndarray, "3"], size: int) -> Int[np.ndarray, "m 3"]:
    """Lowest cells of the boxes of edge `size` that cover `cells`."""
    return np.indices(-(-cells // size)).reshape(3, -1).T * size


def _steepest(
    centres: Float[np.ndarray, "m 3"],
    values: Float32[np.ndarray, " m"],
    parent_centres: Float[np.ndarray, "m 3"],
    parent_values: Float32[np.ndarray, " m"],
) -> float:
    """The largest slope from a box's centre to those of its parts, a cell."""
    lengths = np.linalg.norm(centres - parent_centres, axis=1)
    apart = lengths > 0.0
    return float((np.abs(values - parent_values)[apart] / lengths[apart]).max(initial=0.0))


def _repeated(
    values: Float32[np.ndarray, "i j k"], times: int, shape: Int[np.ndarray, "3"]
) -> Float32[np.ndarray, "x y z"]:
    """Each value `times` along every axis, cut to `shape`."""
    for axis in range(3):
        values = values.repeat(times, axis=axis).take(range(shape[axis]), axis=axis)
    return values


def _mark(
    marks: Bool[np.ndarray, "x y z"],
    lows: Int[np.ndarray, "m 3"],
    *,
    offsets: range,
    last: tuple[int, int, int],
) -> None:
    """Marks lows + offsets along every axis, but nothing beyond `last`."""
    _, ny, nz = marks.shape
    xs, ys, zs = ([np.minimum(lows[:, axis] + d, last[axis]) for d in offsets] for axis in range(3))
    flat = marks.ravel()
    for x, y, z in itertools.product(xs, ys, zs):
        flat[(x * ny + y) * nz + z] = True
