"""Describes the vertices of another topology by those of a template: regions, anchors, rigid vertices."""

import numpy as np
from jaxtyping import Float, Int, UInt8

from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.heads.template import ANCHORS, REGIONS, HeadTemplate, anchor_mirror

RIGID_REGIONS = ("nose", "eye_L", "eye_R", "cheek_L", "cheek_R", "forehead", "cranium")
SUBNASALE = 33
"""The landmark between nose and upper lip."""


def mirrored_regions() -> UInt8[np.ndarray, " 12"]:
    """The label of each region's counterpart across the midline, by label."""
    swapped = [name[:-1] + {"L": "R", "R": "L"}[name[-1]] if name[-2:-1] == "_" else name for name in REGIONS]
    return np.array([REGIONS.index(name) for name in swapped], dtype=np.uint8)


def transfer_regions(
    template: HeadTemplate, vertices: Float[np.ndarray, "v 3"], mirror: Int[np.ndarray, " v"]
) -> UInt8[np.ndarray, " v"]:
    """Gives each vertex the region of the nearest vertex of `template`.

    The labels of the subject's left are carried over to the right, so that they are symmetric.

    Args:
        template: a head with regions.
        vertices: another average head, laid over `template`, canonical units.
        mirror: its vertex across the midline.
    """
    _, nearest = NearestNeighbours(template.vertices).query(vertices)
    labels = template.regions[nearest]
    right = vertices[:, 0] < vertices[mirror, 0]
    return np.where(right, mirrored_regions()[labels[mirror]], labels)


def transfer_anchors(
    template: HeadTemplate, vertices: Float[np.ndarray, "v 3"], mirror: Int[np.ndarray, " v"]
) -> Int[np.ndarray, " 39"]:
    """Moves the anchors of `template` to the nearest vertices, pairs to mirrored pairs.

    A left anchor goes to the nearest vertex on the subject's left and its counterpart to the vertex across;
    a midline anchor goes to the nearest vertex on the midline.

    Args:
        template: a head with anchors.
        vertices: candidates on another average head, laid over `template`, canonical units.
        mirror: the candidate across the midline.
    """
    places = template.vertices[template.anchors]
    counterpart = anchor_mirror()
    midline = counterpart == np.arange(len(ANCHORS))
    left = ~midline & (np.arange(len(ANCHORS)) % 2 == 1)
    anchors = np.empty(len(ANCHORS), dtype=np.int64)
    on_midline = mirror == np.arange(len(mirror))
    anchors[midline] = _nearest(places[midline], vertices, on_midline)
    anchors[left] = _nearest(places[left], vertices, ~on_midline & (vertices[:, 0] > 0))
    anchors[counterpart[left]] = mirror[anchors[left]]
    return anchors


def rigid_vertices(
    vertices: Float[np.ndarray, "v 3"], regions: UInt8[np.ndarray, " v"], landmarks: Int[np.ndarray, " 68"]
) -> Int[np.ndarray, " r"]:
    """The vertices that fix the canonical frame: of the rigid regions, those above the subnasale.

    Args:
        vertices: an average head, y up.
        regions: label of each vertex.
        landmarks: vertices of the 68 iBUG landmarks.
    """
    above = vertices[:, 1] > vertices[landmarks[SUBNASALE], 1]
    return np.flatnonzero(above & np.isin(regions, [REGIONS.index(name) for name in RIGID_REGIONS]))


def _nearest(
    places: Float[np.ndarray, "n 3"], vertices: Float[np.ndarray, "v 3"], allowed: np.ndarray
) -> Int[np.ndarray, " n"]:
    candidates = np.flatnonzero(allowed)
    _, nearest = NearestNeighbours(vertices[candidates]).query(places)
    return candidates[nearest]
