"""Soft shadows in creases, from the depths of neighbouring pixels.

Horizon-based ambient occlusion (Bavoil, Sainz and Dimitrov, 2008): around each pixel, in several directions,
the highest horizon above the tangent plane says how much of the sky is hidden there.
"""

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

from implicit3dmm.render.fragments import Fragments

_DIRECTIONS = 10
_STEPS = 5
_REACH = 0.09
"""How far a shadow reaches, as a share of the picture's larger side."""
_FLAT = 0.16
"""Horizons lower than this (sine) come from the facets of a mesh, not from creases."""
_CONTRAST = 2.0
_SOFTNESS = 1.5
"""Blur of the shadows, pixels."""
_NOWHERE = np.float32(-1e9)


def sky_light(fragments: Fragments) -> Float[np.ndarray, "h w"]:
    """Light that the sky lends to each pixel's surface: 1 in the open, less in creases; 1 without surface."""
    light = np.ones(fragments.size[::-1], dtype=np.float32)
    if len(fragments.depth) == 0:
        return light
    window = tuple(
        slice(place.min() // fragments.antialias, place.max() // fragments.antialias + 1)
        for place in (fragments.row, fragments.column)
    )
    hidden = _hidden_sky(_pixel_depth(fragments)[window], reach=_REACH * max(fragments.size))
    light[window] = gaussian_filter((1 - hidden) ** _CONTRAST, _SOFTNESS, mode="constant", cval=1.0)
    return light


def _hidden_sky(depth: Float[np.ndarray, "h w"], *, reach: float) -> Float[np.ndarray, "h w"]:
    """Mean over the directions of the horizon's sine; depth and reach in pixels."""
    normals = _plane_normals(depth)
    hidden = np.zeros_like(depth)
    for angle in np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS):
        horizon = np.zeros_like(depth)
        for distance in np.geomspace(1.5, max(2.0, 0.8 * reach), _STEPS):
            down, right = round(distance * np.sin(angle)), round(distance * np.cos(angle))
            _raise_horizon(horizon, depth, normals, down=down, right=right, reach=reach)
        hidden += horizon
    return hidden / _DIRECTIONS


def _pixel_depth(fragments: Fragments) -> Float[np.ndarray, "h w"]:
    """Depth, in pixels, of one sample of each pixel; far away without surface."""
    width, height = fragments.size
    middle = fragments.antialias // 2
    column, row = fragments.column % fragments.antialias, fragments.row % fragments.antialias
    chosen = (column == middle) & (row == middle)
    depth = np.full(height * width, _NOWHERE)
    depth[fragments.pixel()[chosen]] = fragments.depth[chosen] / np.float32(fragments.pitch)
    return depth.reshape(height, width)


def _plane_normals(depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "3 h w"]:
    """Unit normals (down, right, near) of the depth's tangent planes.

    Of the slopes to the two neighbours the gentler one counts, so that none leaps over a silhouette.
    """
    surrounded = np.pad(depth, 1, constant_values=_NOWHERE)
    down = _gentler(np.diff(surrounded[:, 1:-1], axis=0), axis=0)
    right = _gentler(np.diff(surrounded[1:-1], axis=1), axis=1)
    normals = np.stack([-down, -right, np.ones_like(depth)])
    return normals / np.linalg.norm(normals, axis=0)


def _gentler(slopes: Float[np.ndarray, "p q"], *, axis: int) -> Float[np.ndarray, "h w"]:
    """The smaller in size of each two successive slopes."""
    before, after = (np.take(slopes, range(k, slopes.shape[axis] - 1 + k), axis=axis) for k in (0, 1))
    return np.where(np.abs(before) < np.abs(after), before, after)


def _raise_horizon(
    horizon: Float[np.ndarray, "h w"],
    depth: Float[np.ndarray, "h w"],
    normals: Float[np.ndarray, "3 h w"],
    *,
    down: int,
    right: int,
    reach: float,
) -> None:
    """Lifts `horizon` to what stands above the tangent plane one step aside, fading with distance."""
    rows, columns = _step_slices(depth.shape[0], down), _step_slices(depth.shape[1], right)
    here, there = (rows[0], columns[0]), (rows[1], columns[1])
    rise = depth[there] - depth[here]
    squares = rise * rise + np.float32(down * down + right * right)
    above = normals[0][here] * down + normals[1][here] * right + normals[2][here] * rise
    fade = np.maximum(1 - squares / np.float32(reach * reach), 0)
    np.maximum(horizon[here], (above / np.sqrt(squares) - np.float32(_FLAT)) * fade, out=horizon[here])


def _step_slices(length: int, step: int) -> tuple[slice, slice]:
    """Along one axis: the pixels that have a neighbour at this step, and those neighbours."""
    start = min(max(0, -step), length)
    stop = max(start, length - max(0, step))
    return slice(start, stop), slice(start + step, stop + step)
