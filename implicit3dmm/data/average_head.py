"""The average head that scans are aligned to, with the modes in which heads differ from it."""

from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int

from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.data.sources import open_source
from implicit3dmm.geometry.alignment import AlignmentTarget
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.heads.template import FACE_REGIONS, HeadTemplate

POINTS = 4000
HEADS = 150
HAIRLINE = 0.35
"""y above which hair may cover the forehead, canonical units: just over the brows."""
REACH = 0.15
"""Canonical units, 30 mm: heads of one pose and size differ by less from the average one."""
NECK_REACH = 0.06
"""Canonical units, 12 mm."""


def template() -> HeadTemplate:
    """The built-in head's template."""
    return open_source("makehuman").template


@cache
def alignment_target() -> AlignmentTarget:
    """Points of the average built-in head and how others lie beside it; the same at every call."""
    head = template()
    samples = sample_surface(head.skin, POINTS, rng=np.random.default_rng(0), smooth_normals=True)
    corners = head.skin.faces[samples.faces]
    # How far each sample moves along its normal, linear in the vertices: one row of weights for each corner.
    along = samples.barycentric[:, :, None] * samples.normals[:, None]
    displacements = np.stack(
        [
            np.einsum("mcx,mcx->m", along, (other.vertices - head.vertices)[corners])
            for other in generate(Recipe(seed=0, train=HEADS))
        ]
    )
    nearest = corners[np.arange(POINTS), samples.barycentric.argmax(1)]
    return AlignmentTarget.from_heads(
        samples.points,
        samples.normals,
        displacements,
        face=head.in_regions(*FACE_REGIONS)[nearest],
        neck=head.in_regions("neck")[nearest],
        hair=_under_hair(head)[nearest],
    )


def template_landmarks() -> Float[np.ndarray, "68 3"]:
    """The 68 iBUG landmarks of the average adult, canonical units."""
    head = template()
    return head.vertices[head.landmarks]


def near_neck(points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """Which points of the canonical frame lie nearest to the average adult's neck, or below it."""
    return template().in_regions("neck")[_nearest(points)[1]]


def on_head(points: Float[np.ndarray, "n 3"], *, hair: bool = False) -> Bool[np.ndarray, " n"]:
    """Which points of an aligned scan the model is to explain.

    A model ends at the base of the neck; shoulders, hair and clothes would pull it towards them. Left out are points
    further than `REACH` from the average head, points further than `NECK_REACH` from its neck, and two of three of the
    remaining neck points, because a neck bends with the posture, which identity codes are not for.

    Args:
        points: canonical.
        hair: whether hair covers the skull, as the alignment tells; points over the skull are then left out as well.
    """
    head = template()
    distance, vertex = _nearest(points)
    neck = head.in_regions("neck")[vertex]
    third = np.cumsum(neck) % 3 == 0
    kept = np.where(neck, (distance < NECK_REACH) & third, distance < REACH)
    return kept & ~_under_hair(head)[vertex] if hair else kept


def _nearest(points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Distance of each point to the average adult, and the vertex that it is nearest to."""
    return NearestNeighbours(template().vertices).query(points)


def _under_hair(head: HeadTemplate) -> Bool[np.ndarray, " v"]:
    """Which vertices hair may cover: the skull and the top of the forehead."""
    return head.in_regions("cranium") | (head.in_regions("forehead") & (head.vertices[:, 1] > HAIRLINE))
