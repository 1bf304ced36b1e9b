"""What a head is: one closed topology with its regions, landmarks, anchors, mirror map and rigid part."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from implicit3dmm.geometry.mesh import Mesh

REGIONS = (
    "nose", "mouth", "eye_L", "eye_R", "cheek_L", "cheek_R",
    "chin", "forehead", "ear_L", "ear_R", "cranium", "neck",
)  # fmt: skip
"""The 12 surface regions, in the order of their labels. L and R are the subject's."""

FACE_REGIONS = ("nose", "mouth", "eye_L", "eye_R", "cheek_L", "cheek_R", "chin", "forehead")

ANCHOR_PAIRS = (
    "mouth_corner", "cheek_back", "jaw_side", "cheek", "brow", "eye_inner", "eye_outer", "nose_ala",
    "jaw_angle", "temple", "ear", "forehead_side", "crown", "occiput", "nape", "neck_back",
)  # fmt: skip
ANCHOR_MIDLINE = ("neck_front", "nose_tip", "lower_lip", "upper_lip", "nasion", "glabella", "chin")
ANCHORS = (*(f"{name}_{side}" for name in ANCHOR_PAIRS for side in "RL"), *ANCHOR_MIDLINE)
"""The 39 anchors paired as in NPHM: 16 pairs, the even one always on the subject's right, then 7 on the midline."""

ANCHOR_GROUPS = {
    "nose": ("nose_ala", "nose_tip", "nasion"),
    "mouth": ("mouth_corner", "lower_lip", "upper_lip"),
    "eyes": ("eye_inner", "eye_outer"),
    "ears": ("ear",),
    "chin": ("chin", "jaw_side"),
    "forehead": ("brow", "glabella", "forehead_side", "temple"),
    "cheeks": ("cheek", "cheek_back", "jaw_angle"),
    "cranium": ("crown", "occiput"),
    "neck": ("nape", "neck_back", "neck_front"),
}
"""The regions that can be edited one by one, as groups of anchors; each anchor belongs to one."""

PARTS = ("nose", "eyes", "mouth")
"""The groups that can be grafted from one head into another."""
REMAINDER = "rem"
"""What is left of a head: the part that the others are grafted into."""
ALL_PARTS = (*PARTS, REMAINDER)
"""The parts that make up a composite head."""

_GROUP_REGIONS = {
    "eyes": ("eye_L", "eye_R"),
    "ears": ("ear_L", "ear_R"),
    "cheeks": ("cheek_L", "cheek_R"),
}
"""Regions of the surface that a group of anchors shapes, where there is not one of the same name."""

_LEFT_ANCHORS = (
    (0.121, -0.169, 0.518),  # mouth_corner
    (0.299, 0.080, 0.369),  # cheek_back
    (0.132, -0.325, 0.428),  # jaw_side
    (0.247, -0.048, 0.430),  # cheek
    (0.162, 0.303, 0.513),  # brow
    (0.089, 0.155, 0.479),  # eye_inner
    (0.205, 0.163, 0.442),  # eye_outer
    (0.059, -0.051, 0.544),  # nose_ala
    (0.243, -0.229, 0.308),  # jaw_angle
    (0.301, 0.173, 0.354),  # temple
    (0.356, 0.092, 0.051),  # ear
    (0.201, 0.478, 0.406),  # forehead_side
    (0.179, 0.659, 0.069),  # crown
    (0.215, 0.311, -0.333),  # occiput
    (0.185, -0.114, -0.175),  # nape
    (0.319, -0.534, -0.210),  # neck_back
)
_MIDLINE_ANCHORS = (
    (0.000, -0.454, 0.232),  # neck_front
    (0.000, 0.005, 0.621),  # nose_tip
    (0.000, -0.205, 0.571),  # lower_lip
    (0.000, -0.115, 0.591),  # upper_lip
    (0.000, 0.175, 0.531),  # nasion
    (0.000, 0.348, 0.534),  # glabella
    (0.000, -0.355, 0.495),  # chin
)


def average_anchors() -> Float[np.ndarray, "39 3"]:
    """Where the anchors lie on the average adult of the built-in heads, canonical units, mirror symmetric."""
    left = np.array(_LEFT_ANCHORS)
    pairs = np.stack([left * (-1, 1, 1), left], axis=1).reshape(-1, 3)
    return np.concatenate([pairs, np.array(_MIDLINE_ANCHORS)])


def anchor_group(name: str) -> tuple[int, ...]:
    """Indices of the anchors of a group.

    Args:
        name: a key of `ANCHOR_GROUPS`; with "_L" or "_R", only the group's anchors on that side of the subject.

    Raises:
        KeyError: there is no such group.
    """
    group, side = _side(name)
    stems = ANCHOR_GROUPS[group]
    return tuple(
        i for i, anchor in enumerate(ANCHORS) if _side(anchor)[0] in stems and (not side or anchor.endswith(side))
    )


def group_regions(name: str) -> tuple[str, ...]:
    """The surface regions, of `REGIONS`, that the anchors of `anchor_group(name)` shape.

    Half a midline region has no label of its own: "nose_L" gives the whole nose.
    """
    group, side = _side(name)
    regions = _GROUP_REGIONS.get(group, (group,))
    return tuple(region for region in regions if len(regions) == 1 or region.endswith(side))


def _side(name: str) -> tuple[str, str]:
    """The name without its side, and its side: "_L", "_R" or nothing."""
    return (name[:-2], name[-2:]) if name.endswith(("_L", "_R")) else (name, "")


def anchor_mirror() -> Int[np.ndarray, " 39"]:
    """Index of each anchor's counterpart across the midline; a midline anchor is its own."""
    pairs = np.arange(2 * len(ANCHOR_PAIRS)).reshape(-1, 2)[:, ::-1].ravel()
    return np.concatenate([pairs, np.arange(2 * len(ANCHOR_PAIRS), len(ANCHORS))])


@dataclass(frozen=True)
class HeadTemplate:
    """A closed head topology (watertight, genus 0) and what is known of its vertices."""

    vertices: Float[np.ndarray, "v 3"]
    """The average adult, canonical units."""
    triangles: Int[np.ndarray, "t 3"]
    quads: Int[np.ndarray, "q 4"] | None
    cap: Bool[np.ndarray, " t"]
    """The triangles that close the neck, where no scan has a surface."""
    regions: UInt8[np.ndarray, " v"]
    """Index into `REGIONS` for each vertex."""
    landmarks: Int[np.ndarray, " 68"]
    """Vertices of the 68 iBUG landmarks."""
    anchors: Int[np.ndarray, " 39"]
    """Vertices of `ANCHORS`."""
    mirror: Int[np.ndarray, " v"]
    """The vertex across the midline, an involution."""
    rigid: Int[np.ndarray, " r"]
    """Vertices that fix the canonical frame: neither expression nor neck moves them."""
    reference: Float[np.ndarray, "r 3"]
    """Where the rigid vertices lie on the average adult, canonical units."""

    @property
    def mesh(self) -> Mesh:
        """The average adult as a mesh, canonical units."""
        return Mesh(self.vertices, self.triangles)

    @property
    def skin(self) -> Mesh:
        """The average adult without the cap of the neck, canonical units."""
        return Mesh(self.vertices, self.triangles[~self.cap])

    def in_regions(self, *names: str) -> Bool[np.ndarray, " v"]:
        """Mask of the vertices whose region is one of `names`."""
        return np.isin(self.regions, [REGIONS.index(name) for name in names])
