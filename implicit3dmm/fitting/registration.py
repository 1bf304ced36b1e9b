"""Carries the head template onto a fitted surface, so that every place that is known on the one is known on the other.

A fitted surface is a level set: its vertices do not say which of them is the tip of the nose. The template is deformed
along the principal components of the built-in heads until it lies on the surface, and then laid onto it. Nothing but
the surface is used, so that it serves the fits of every architecture; one with a template of its own knows better.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from implicit3dmm.data.average_head import template
from implicit3dmm.data.axes import gram_axes
from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.geometry.distance import barycentric_weights, distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.sampling import interpolated
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.template import FACE_REGIONS

HEADS = 320
"""Heads that the components are taken from."""
COMPONENTS = (10, 40, 120, 120)
"""How many components take part in each round; the first ones bring the others near."""
STEPS = 3
"""Gauss-Newton steps in a round."""
VERTICES = 2500
"""Template vertices whose distances are minimised, drawn once."""
FACE_SHARE = 3.0
"""How much likelier a vertex of the face is drawn than another; those of the neck never are."""
REACH = (0.06, 0.01)
"""Canonical units: distance beyond which a vertex loses its say, in the first round and in the last."""
NOISE = 0.002
"""Canonical units, 0.4 mm: how well the components describe a surface, which weighs distances against their spread."""
FACING = 0.5
"""Least cosine between the normals of a vertex and of the place that it is drawn to."""


class _Components(NamedTuple):
    """Built-in heads as a mean and independent motions."""

    mean: Float[np.ndarray, "v 3"]
    motions: Float[np.ndarray, "k v 3"]
    """Of the vertices with one standard deviation of each component, canonical units."""
    used: Int[np.ndarray, " m"]
    """The vertices whose distances count."""

    def head(self, shape: Float[np.ndarray, " c"]) -> Float[np.ndarray, "v 3"]:
        """The head with these first coefficients, standard deviations."""
        return self.mean + np.tensordot(shape.astype(np.float32), self.motions[: len(shape)], 1)


class _Surface(NamedTuple):
    """What the template is drawn to."""

    vertices: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    nearest: NearestNeighbours


class Registration(NamedTuple):
    """The template on a surface."""

    vertices: Float[np.ndarray, "v 3"]
    """Places on the surface in the order of the template's vertices, canonical units; the neck follows the rest."""
    coefficients: Float[np.ndarray, " c"]
    """Of the components, in standard deviations of the built-in heads: about normal for a head like them."""


def register_template(surface: Mesh) -> Registration:
    """The vertices of the built-in template, deformed along the components of its heads and laid onto a surface.

    Each step minimises sum w r^2 / NOISE^2 + |c|^2 over a similarity and the coefficients c, where r is the distance
    of a template vertex to the nearest place on the surface, along the surface's normal there, and w falls with the
    distance and is 0 where the two look into different directions.

    Args:
        surface: a fitted head in the canonical frame, its faces looking outwards.
    """
    components = _components()
    target = _Surface(surface.vertices, surface.vertex_normals(), NearestNeighbours(surface.vertices))
    pose, shape = Similarity.identity(), np.zeros(0)
    for count, reach in zip(COMPONENTS, np.geomspace(*REACH, len(COMPONENTS)), strict=True):
        shape = np.pad(shape, (0, count - len(shape)))
        for _ in range(STEPS):
            pose, shape = _step(components, target, pose, shape, reach)
    return Registration(distance_to_surface(pose.apply(components.head(shape)), surface).point, shape)


def register_head(
    surface: Mesh, at_rest: Float[np.ndarray, "n 3"], on_template: Float[np.ndarray, "n 3"] | None = None
) -> Registration:
    """The template on a fitted head, whatever its expression.

    It is laid onto the neutral head and carried along by the warp. Where the model has a template of its own, its
    correspondence counts: each vertex goes to the place that the deformation takes nearest to it.

    Args:
        surface: a fitted head in the canonical frame, its faces looking outwards.
        at_rest: where its vertices lie on the same head without the expression; see `extraction.at_rest`.
        on_template: where they lie on the model's template; see `extraction.on_template`.
    """
    rest = Mesh(at_rest, surface.faces)
    registration = register_template(rest)
    if on_template is not None:
        return registration._replace(vertices=_carried(template().vertices, Mesh(on_template, surface.faces), surface))
    if np.array_equal(at_rest, surface.vertices.astype(at_rest.dtype)):
        return registration
    return registration._replace(vertices=_carried(registration.vertices, rest, surface))


def registered_mesh(
    surface: Mesh, at_rest: Float[np.ndarray, "n 3"], on_template: Float[np.ndarray, "n 3"] | None = None
) -> Mesh:
    """The built-in head's vertices and faces, in its order, on a fitted head in the canonical frame.

    Args:
        surface: as `register_head` takes it.
        at_rest: as `register_head` takes it.
        on_template: as `register_head` takes it.
    """
    return Mesh(register_head(surface, at_rest, on_template).vertices, template().triangles)


def _carried(places: Float[np.ndarray, "v 3"], deformed: Mesh, surface: Mesh) -> Float[np.ndarray, "v 3"]:
    """The places of `surface` that lie on `deformed`, the same mesh elsewhere, nearest to some places."""
    nearest = distance_to_surface(places, deformed)
    weights = barycentric_weights(nearest.point, deformed, nearest.face)
    return interpolated(surface.vertices, surface.faces[nearest.face], weights)


def _step(
    components: _Components, target: _Surface, pose: Similarity, shape: Float[np.ndarray, " c"], reach: float
) -> tuple[Similarity, Float[np.ndarray, " c"]]:
    """One Gauss-Newton step of pose and coefficients."""
    vertices = pose.apply(components.head(shape))
    places = vertices[components.used]
    facing = Mesh(vertices, template().triangles).vertex_normals()[components.used]
    distance, index = target.nearest.query(places)
    normals = target.normals[index]
    residual = np.einsum("mx,mx->m", places - target.vertices[index], normals)
    weight = (np.einsum("mx,mx->m", facing, normals) > FACING) / np.square(1 + np.square(distance / reach))
    turned = normals @ pose.rotation * pose.scale
    motions = np.einsum("kmx,mx->mk", components.motions[: len(shape), components.used], turned)
    growth = np.einsum("mx,mx->m", places, normals)[:, None]
    columns = np.concatenate([np.cross(places, normals), normals, growth, motions], axis=1)
    matrix = columns.T @ (columns * weight[:, None]) / NOISE**2
    slope = columns.T @ (weight * residual) / NOISE**2
    matrix += np.diag(np.r_[np.full(7, 1e-3), np.ones(len(shape))])  # the pose is free, but never singular
    slope[7:] += shape
    change = -np.linalg.solve(matrix, slope)
    move = Similarity(float(np.exp(change[6])), Rotation.from_rotvec(change[:3]).as_matrix(), change[3:6])
    return move.compose(pose), shape + change[7:]


@cache
def _components() -> _Components:
    """The principal components, over the vertices that are used, of heads that no scan is tested on."""
    head = template()
    skin = np.flatnonzero(~head.in_regions("neck"))
    share = np.where(head.in_regions(*FACE_REGIONS)[skin], FACE_SHARE, 1.0)
    used = np.sort(np.random.default_rng(0).choice(skin, VERTICES, replace=False, p=share / share.sum()))
    heads = np.stack([other.vertices.astype(np.float32) for other in generate(Recipe(seed=0, train=HEADS))])
    mean = heads.mean(axis=0)
    heads -= mean
    left, _ = gram_axes(heads[:, used].reshape(HEADS, -1))
    mixing = left[:, : max(COMPONENTS)].T.astype(np.float32) / np.float32(np.sqrt(HEADS - 1))
    return _Components(mean, (mixing @ heads.reshape(HEADS, -1)).reshape(-1, *mean.shape), used)
