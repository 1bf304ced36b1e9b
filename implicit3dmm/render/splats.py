"""Point clouds seen through a camera: small discs in the tangent planes, hidden by a depth buffer."""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.render.camera import Camera
from implicit3dmm.render.fragments import Fragments

_PLANE_NEIGHBOURS = 12
_RADIUS_NEIGHBOUR = 6
_RADIUS_PROBES = 20_000
_LARGEST_DISC = 0.012
"""Radius of a disc at most, as a share of the picture's larger side: few points stay points."""
_SMALLEST_DISC = 0.7
"""Radius of a disc at least, pixels."""
_STEEPEST = 0.2
"""Cosine of the steepest slope, against the line of sight, that a disc is given."""
_NEAREST_DEPTH = 0.9
"""Points beyond this share of the viewer's distance are at the lens or behind it: not drawn."""
_EMPTY = np.uint64(2**64 - 1)
_DEPTH_STEPS = 2**32 - 2


def splat_points(cloud: Mesh, camera: Camera, *, size: tuple[int, int], antialias: int) -> Fragments:
    """The surface that a picture of a point cloud shows: a disc for each point, nearer discs on top.

    A point without a normal gets one from the plane through its neighbours, turned to the viewer. The discs
    reach as far as the sixth neighbour does in the median, within limits in pixels; this leaves 1 in 400
    places (exp(-6)) of an evenly sampled surface uncovered.

    Args:
        cloud: the points; faces, if any, are not looked at.
        camera: where from.
        size: width and height of the picture, pixels.
        antialias: samples along each side of a pixel.
    """
    normals, inside = _normals_towards_viewer(cloud, camera)
    places = camera.project(cloud.vertices, size)
    shown = np.flatnonzero(places[:, 2] < _NEAREST_DEPTH * camera.distance)
    places = places[shown]
    step = camera.pixel_pitch(size) / antialias
    radii = disc_radius(cloud.vertices) * camera.magnification(places[:, 2]) / step
    column, row, disc, depth = _nearest_discs(
        places * [antialias, antialias, 1 / step],
        normals[shown],
        np.clip(radii, _SMALLEST_DISC * antialias, _LARGEST_DISC * max(size) * antialias),
        grid=(size[0] * antialias, size[1] * antialias),
    )
    point = shown[disc]
    return Fragments(
        size=size,
        antialias=antialias,
        pitch=camera.pixel_pitch(size),
        column=column,
        row=row,
        vertices=point[:, None],
        weights=np.ones((len(point), 1), dtype=np.float32),
        normals=normals[point],
        depth=(depth * step).astype(np.float32),
        inside=inside[point],
    )


def disc_radius(points: Float[np.ndarray, "n 3"]) -> float:
    """Median distance to the sixth neighbour, of at most 20,000 of the points."""
    probes = points[:: max(1, len(points) // _RADIUS_PROBES)]
    neighbours = min(_RADIUS_NEIGHBOUR + 1, len(points))
    distances, _ = NearestNeighbours(points).query(probes, k=neighbours)
    return float(np.median(distances.reshape(len(probes), -1)[:, -1]))


def plane_normals(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Unit normals, of arbitrary sign, of the planes through each point's 12 nearest (itself included)."""
    count = min(_PLANE_NEIGHBOURS, len(points))
    _, indices = NearestNeighbours(points).query(points, k=count)
    patches = points[indices.reshape(len(points), count)]
    patches = patches - patches.mean(axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(patches.transpose(0, 2, 1) @ patches)
    return vectors[:, :, 0]


def _normals_towards_viewer(cloud: Mesh, camera: Camera) -> tuple[Float[np.ndarray, "n 3"], Bool[np.ndarray, " n"]]:
    """Unit normals in the camera's frame, and whether the cloud's own normal looks away from the viewer."""
    given = np.zeros_like(cloud.vertices) if cloud.normals is None else cloud.normals
    missing = ~given.any(axis=1)
    if missing.any():
        given = np.where(missing[:, None], plane_normals(cloud.vertices), given)
    view = camera.to_view(cloud.vertices)
    sight = np.array([0.0, 0.0, 1.0]) if math.isinf(camera.distance) else [0.0, 0.0, camera.distance] - view
    normals = camera.turn(given)
    away = (normals * sight).sum(axis=1) < 0
    normals = np.where(away[:, None], -normals, normals).astype(np.float32)
    return normals, away & ~missing


def _nearest_discs(
    places: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    radii: Float[np.ndarray, " n"],
    *,
    grid: tuple[int, int],
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"], Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Depth buffer of discs over a grid of samples.

    Args:
        places: column, row and depth (larger is nearer) of the centres, all in steps of the grid.
        normals: of the discs, towards the viewer: right, up, near.
        radii: in steps of the grid.
        grid: columns and rows.

    Returns:
        Column, row, disc and depth of each sample that a disc covers, row by row.
    """
    reach = math.ceil(radii.max(initial=0)) + 1
    near = np.flatnonzero(np.all((places[:, :2] > -reach) & (places[:, :2] < np.add(grid, reach)), axis=1))
    if len(near) == 0:
        return (*np.zeros((3, 0), dtype=np.int64), np.zeros(0))
    places, normals, radii = places[near], normals[near], radii[near]
    farthest, nearest = places[:, 2].min() - reach, places[:, 2].max() + reach
    depth_step = (nearest - farthest) / _DEPTH_STEPS

    # The border takes what falls outside the picture. A key is a depth, then a disc: the least one wins,
    # and of equal depths the disc with the lower number.
    stride, border = grid[0] + 4 * reach, 2 * reach
    buffer = np.full(stride * (grid[1] + 4 * reach), _EMPTY)
    corner = np.floor(places[:, :2]).astype(np.int64) + border
    home = corner[:, 1] * stride + corner[:, 0]
    for row, column, disc, depth in _disc_samples(places, normals, radii, reach=reach):
        keys = (((nearest - depth) / depth_step).astype(np.uint64) << np.uint64(32)) | disc.astype(np.uint64)
        np.minimum.at(buffer, home[disc] + (row * stride + column), keys)

    buffer = buffer.reshape(-1, stride)[border : border + grid[1], border : border + grid[0]]
    rows, columns = np.nonzero(buffer != _EMPTY)
    keys = buffer[rows, columns]
    disc = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return columns, rows, near[disc], nearest - (keys >> np.uint64(32)) * depth_step


def _disc_samples(
    places: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    radii: Float[np.ndarray, " n"],
    *,
    reach: int,
) -> Iterator[tuple[int, int, Int[np.ndarray, " k"], Float[np.ndarray, " k"]]]:
    """For each place of a sample relative to a disc's own: the discs that cover it there, and their depth.

    A disc is the part of the tangent plane that lies within its radius in space, so it looks like an
    ellipse from the side and neighbouring discs meet where their planes do.
    """
    to_sample = (np.floor(places[:, :2]) + 0.5 - places[:, :2]).astype(np.float32)
    slopes = (normals[:, :2] / np.maximum(normals[:, 2:], _STEEPEST) * [-1, 1]).astype(np.float32)
    squares = (radii**2).astype(np.float32)
    for row in range(-reach, reach + 1):
        y = to_sample[:, 1] + np.float32(row)
        for column in range(-reach, reach + 1):
            x = to_sample[:, 0] + np.float32(column)
            rise = slopes[:, 0] * x + slopes[:, 1] * y
            disc = np.flatnonzero(x * x + y * y + rise * rise <= squares)
            if len(disc) > 0:
                yield row, column, disc, places[disc, 2] + rise[disc]
