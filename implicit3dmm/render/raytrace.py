"""Triangle meshes seen through a camera: one ray per sample, cast by Embree."""

import math

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.render.camera import Camera
from implicit3dmm.render.fragments import Fragments, mix

_SHORT = 1e-6
"""Vertex normals whose mixture is shorter than this cancel."""


def trace_mesh(mesh: Mesh, camera: Camera, *, size: tuple[int, int], antialias: int) -> Fragments:
    """The surface that a picture of the mesh shows, with smooth normals and exact silhouettes.

    Args:
        mesh: with faces.
        camera: where from.
        size: width and height of the picture, pixels.
        antialias: samples along each side of a pixel.

    Raises:
        InputError: embreex is not installed.
    """
    vertices = camera.to_view(mesh.vertices)
    columns, rows = camera.sample_window(mesh.vertices, size, antialias)
    origins, directions = _rays(camera, float(vertices[:, 2].max()), columns, rows, size=size, antialias=antialias)
    hits = _scene(vertices, mesh.faces).run(origins, directions, output=1)
    ray = np.flatnonzero(hits["primID"] >= 0)
    u, v = hits["u"][ray], hits["v"][ray]
    corners, weights = mesh.faces[hits["primID"][ray]], np.stack([1 - u - v, u, v], axis=1)
    inside = np.einsum("ij,ij->i", hits["Ng"][ray], directions[ray]) > 0
    normals = _smooth_normals(camera.turn(mesh.vertex_normals()), corners, weights, hits["Ng"][ray])
    normals[inside] *= -1
    return Fragments(
        size=size,
        antialias=antialias,
        pitch=camera.pixel_pitch(size),
        column=columns[ray % len(columns)],
        row=rows[ray // len(columns)],
        vertices=corners,
        weights=weights,
        normals=normals,
        depth=origins[ray, 2] + hits["tfar"][ray] * directions[ray, 2],
        inside=inside,
    )


def _rays(
    camera: Camera,
    nearest: float,
    columns: Int[np.ndarray, " w"],
    rows: Int[np.ndarray, " h"],
    *,
    size: tuple[int, int],
    antialias: int,
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Origins and directions, in the camera's frame, of the rays through the samples of a window."""
    pitch = camera.pixel_pitch(size)
    x = ((columns + 0.5) / antialias - size[0] / 2) * pitch
    y = (size[1] / 2 - (rows + 0.5) / antialias) * pitch
    plane = np.zeros((len(rows), len(columns), 3), dtype=np.float32)
    plane[..., 0], plane[..., 1] = x, y[:, None]
    plane = plane.reshape(-1, 3)
    if math.isinf(camera.distance):
        origins = plane + np.float32([0, 0, nearest + pitch])
        return origins, np.broadcast_to(np.float32([0, 0, -1]), plane.shape).copy()
    origins = np.broadcast_to(np.float32([0, 0, camera.distance]), plane.shape).copy()
    return origins, plane - origins


def _scene(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]):
    """Embree's search structure over the triangles."""
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        raise InputError(
            "pictures of meshes need the package embreex, which cannot be imported; "
            "it comes as a wheel: pip install embreex"
        ) from None
    scene = EmbreeScene(robust=True)
    TriangleMesh(scene, vertices.astype(np.float32), faces.astype(np.int32))
    return scene


def _smooth_normals(
    vertex_normals: Float[np.ndarray, "v 3"],
    corners: Int[np.ndarray, "m 3"],
    weights: Float[np.ndarray, "m 3"],
    geometric: Float[np.ndarray, "m 3"],
) -> Float[np.ndarray, "m 3"]:
    """Vertex normals mixed at the hits, unit length; the triangle's own where they cancel."""
    normals = mix(vertex_normals.astype(np.float32), corners, weights)
    squares = np.einsum("ij,ij->i", normals, normals)
    lost = np.flatnonzero(squares < _SHORT**2)
    normals[lost] = geometric[lost]
    squares[lost] = np.einsum("ij,ij->i", geometric[lost], geometric[lost])
    return normals / np.sqrt(squares)[:, None]
