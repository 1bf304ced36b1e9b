"""Points spread evenly over a surface."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh, unit_vectors


@dataclass(frozen=True, eq=False)
class SurfaceSamples:
    """Points on a mesh and where on it they lie.

    Attributes:
        points: positions, in the unit of the mesh.
        normals: unit normals, outwards.
        faces: the face that each point lies on.
        barycentric: weights of the face's three corners, each in [0, 1], of sum 1.
    """

    points: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, " n"]
    barycentric: Float[np.ndarray, "n 3"]


def sample_surface(
    mesh: Mesh,
    count: int,
    *,
    rng: np.random.Generator,
    smooth_normals: bool = False,
    density: Float[np.ndarray, " f"] | None = None,
) -> SurfaceSamples:
    """Draws points uniformly by area, or with a density of each face, stratified over the faces.

    The area, laid out face after face, is cut into `count` equal stretches with one point at a random
    place in each. Every point is uniform on the surface, and the number of points on a face differs from
    its share of the area by less than two, so that figures taken from samples scatter less than with
    independent draws.

    Args:
        mesh: a mesh with faces.
        count: number of points.
        rng: source of the draws; equal seeds give equal samples.
        smooth_normals: interpolate the vertex normals instead of taking the normal of the face.
        density: points for a unit of area of each face, up to a common factor.

    Returns:
        The samples, ordered by face.

    Raises:
        InputError: the mesh has no faces, or they have no area.
    """
    if mesh.faces is None:
        raise InputError("the mesh has no faces; its surface is to be sampled; give a mesh, not a point cloud")
    areas = mesh.face_areas()
    cumulative = np.cumsum(areas if density is None else areas * density)
    if not cumulative[-1] > 0.0:
        raise InputError("all faces of the mesh have no area; a surface is expected; check the file's unit")
    places = (np.arange(count) + rng.random(count)) * (cumulative[-1] / max(count, 1))
    faces = _face_at(places, cumulative)
    barycentric = _uniform_barycentric(count, rng)
    points = interpolated(mesh.vertices, mesh.faces[faces], barycentric)
    if smooth_normals:
        normals = unit_vectors(interpolated(mesh.vertex_normals(), mesh.faces[faces], barycentric))
    else:
        normals = mesh.face_normals()[faces]
    return SurfaceSamples(points, normals, faces, barycentric)


def _face_at(places: Float[np.ndarray, " n"], cumulative: Float[np.ndarray, " f"]) -> Int[np.ndarray, " n"]:
    """The face that holds each place of the laid-out area; never one without area."""
    last = np.flatnonzero(np.diff(cumulative, prepend=0.0) > 0.0)[-1]
    return np.minimum(np.searchsorted(cumulative, places, side="right"), last)


def _uniform_barycentric(count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """Uniform on a triangle: the square's far half is folded back onto the near one."""
    u, v = rng.random((2, count))
    far = u + v > 1.0
    u[far], v[far] = 1.0 - u[far], 1.0 - v[far]
    return np.stack([1.0 - u - v, u, v], axis=1)


def interpolated(
    values: Float[np.ndarray, "v 3"], corners: Int[np.ndarray, "n 3"], barycentric: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """Values at places inside triangles, from those at their corners."""
    result = values[corners[:, 0]] * barycentric[:, :1]
    for corner in (1, 2):
        result += values[corners[:, corner]] * barycentric[:, corner : corner + 1]
    return result
