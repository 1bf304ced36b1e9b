"""One picture of one mesh or point cloud, made on the CPU without a display."""

import numpy as np
from jaxtyping import Float, UInt8

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.render.camera import Camera
from implicit3dmm.render.color_space import linear_to_srgb, srgb_to_linear
from implicit3dmm.render.drawing import PAPER, Color
from implicit3dmm.render.fragments import Fragments
from implicit3dmm.render.occlusion import sky_light
from implicit3dmm.render.raytrace import trace_mesh
from implicit3dmm.render.shading import shade_clay, shade_colors
from implicit3dmm.render.splats import splat_points

_DATA_CREASES = 0.5
"""Exponent that weakens the shadows of creases on painted data, whose colours are to be read."""

_BLOCK = 8192


def render(
    mesh: Mesh,
    *,
    camera: Camera,
    size: tuple[int, int],
    vertex_colors: Float[np.ndarray, "v 3"] | None = None,
    antialias: int = 2,
    background: Color | None = PAPER,
) -> UInt8[np.ndarray, "h w c"]:
    """A shaded picture of a mesh, or of a point cloud as small discs.

    Equal input gives equal bytes.

    Args:
        mesh: in the camera's frame of reference, as a rule the canonical frame.
        camera: where from; see `camera_for_points`.
        size: width and height, pixels.
        vertex_colors: sRGB in [0, 1]; shown as they are where the surface faces the viewer, darker on
            slopes. Without them the surface is clay.
        antialias: samples along each side of a pixel.
        background: sRGB of 8 bits; None for a transparent one.

    Returns:
        (h, w, 3) picture, or (h, w, 4) with straight alpha where the background is transparent.

    Raises:
        InputError: the colours are not one for each vertex, or embreex, which draws meshes, is missing.
    """
    if vertex_colors is not None and vertex_colors.shape != mesh.vertices.shape:
        raise InputError(f"colours of shape {vertex_colors.shape} were given; expected {mesh.vertices.shape}")
    surface = visible_surface(mesh, camera=camera, size=size, antialias=antialias)
    return paint(surface, vertex_colors=vertex_colors, background=background)


def visible_surface(mesh: Mesh, *, camera: Camera, size: tuple[int, int], antialias: int = 2) -> Fragments:
    """What `render` sees of the mesh; several pictures of it can be painted from one look. Args as there."""
    if mesh.faces is None:
        return splat_points(mesh, camera, size=size, antialias=antialias)
    return trace_mesh(mesh, camera, size=size, antialias=antialias)


def paint(
    surface: Fragments,
    *,
    vertex_colors: Float[np.ndarray, "v 3"] | None = None,
    background: Color | None = PAPER,
) -> UInt8[np.ndarray, "h w c"]:
    """The picture of a visible surface; arguments and result as in `render`."""
    light = surface.pixel_means(_shade(surface, vertex_colors))
    if surface.vertices.shape[1] == 3:  # the rough surface of discs would be all creases
        light *= sky_light(surface)[..., None] ** (1.0 if vertex_colors is None else _DATA_CREASES)
    cover = surface.pixel_means(np.ones((len(surface.depth), 1), dtype=np.float32))
    if background is None:
        color = linear_to_srgb(light / np.where(cover > 0, cover, 1))
        return _to_bytes(np.concatenate([color, cover], axis=-1))
    return _to_bytes(linear_to_srgb(light + (1 - cover) * srgb_to_linear(np.float32(background) / 255)))


def _shade(surface: Fragments, vertex_colors: Float[np.ndarray, "v 3"] | None) -> Float[np.ndarray, "m 3"]:
    """Linear light of the samples, in blocks that stay in the processor's cache."""
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(surface.depth), _BLOCK)]
    light = np.empty_like(surface.normals)
    if vertex_colors is None:
        for block in blocks:
            light[block] = shade_clay(surface.normals[block], surface.inside[block])
    else:
        colors = surface.interpolate(srgb_to_linear(vertex_colors).astype(np.float32))
        for block in blocks:
            light[block] = shade_colors(surface.normals[block], surface.inside[block], colors[block])
    return light


def _to_bytes(values: Float[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
    return np.rint(values * 255).astype(np.uint8)
