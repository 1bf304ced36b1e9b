"""Measurements of a head between anatomical points, as anthropometry defines them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull

from implicit3dmm.heads.template import ANCHORS, HeadTemplate


@dataclass(frozen=True)
class Measured:
    """One measurement of a head."""

    value: float
    """In the unit of the vertices."""
    vertices: Int[np.ndarray, " k"]
    """The vertices that it hangs on."""


Measure = Callable[[Float[np.ndarray, "v 3"], HeadTemplate], Measured]


def measure_head(vertices: Float[np.ndarray, "v 3"], template: HeadTemplate) -> dict[str, Measured]:
    """All of `MEASUREMENTS`, by name.

    Args:
        vertices: of a head in the order of the template's, upright as the canonical frame is, in any unit.
        template: what the vertices mean.
    """
    return {name: measure(vertices, template) for name, (measure, _) in MEASUREMENTS.items()}


def distance_between(vertices: Float[np.ndarray, "v 3"], one: int, other: int) -> Measured:
    """The straight distance between two vertices."""
    ends = np.array([one, other])
    return Measured(float(np.linalg.norm(np.subtract(*vertices[ends]))), ends)


def between_landmarks(one: int, other: int) -> Measure:
    """Measures the distance between two of the 68 iBUG landmarks."""
    return lambda vertices, template: distance_between(vertices, *template.landmarks[[one, other]])


def eye_distance(vertices: Float[np.ndarray, "v 3"], template: HeadTemplate) -> Measured:
    """Between the middles of the eyes, each halfway between its corners."""
    corners = template.landmarks[[36, 39, 42, 45]]
    right, left = vertices[corners[:2]].mean(axis=0), vertices[corners[2:]].mean(axis=0)
    return Measured(float(np.linalg.norm(left - right)), corners)


def head_breadth(vertices: Float[np.ndarray, "v 3"], template: HeadTemplate) -> Measured:
    """The largest breadth of the cranium, from one eurion to the other, straight across."""
    cranium = np.flatnonzero(template.in_regions("cranium"))
    across = vertices[cranium, 0]
    ends = cranium[[across.argmin(), across.argmax()]]
    return Measured(float(np.ptp(across)), ends)


def head_length(vertices: Float[np.ndarray, "v 3"], template: HeadTemplate) -> Measured:
    """From the glabella to the opisthocranion, the furthest place of the cranium on the midline."""
    return distance_between(vertices, glabella(template), opisthocranion(vertices, template))


def head_circumference(vertices: Float[np.ndarray, "v 3"], template: HeadTemplate) -> Measured:
    """A tape around the head through glabella and opisthocranion, level from side to side, the ears left out.

    A tape bridges hollows: it is the convex hull of the head's cut with the plane.
    """
    ends = np.array([glabella(template), opisthocranion(vertices, template)])
    forward = np.subtract(*vertices[ends])
    up = np.cross(forward, [1.0, 0.0, 0.0])
    up /= np.linalg.norm(up)
    skin = template.triangles[~template.in_regions("ear_L", "ear_R", "neck")[template.triangles].any(axis=1)]
    edges = skin[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    height = (vertices - vertices[ends[0]]) @ up
    low, high = edges[(height[edges[:, 0]] < 0) & (height[edges[:, 1]] >= 0)].T
    share = (height[low] / (height[low] - height[high]))[:, None]
    cut = vertices[low] * (1 - share) + vertices[high] * share
    flat = np.stack([cut[:, 0], cut @ np.cross(up, [1.0, 0.0, 0.0])], axis=1)
    return Measured(float(ConvexHull(flat).area), ends)  # the area of a hull in the plane is its perimeter


def nose_breadth(vertices: Float[np.ndarray, "v 3"], template: HeadTemplate) -> Measured:
    """Between the alaria, the outermost places of the wings of the nose."""
    ala = alare(template)
    return distance_between(vertices, ala, int(template.mirror[ala]))


def glabella(template: HeadTemplate) -> int:
    """The vertex between the brows."""
    return int(template.anchors[ANCHORS.index("glabella")])


def opisthocranion(vertices: Float[np.ndarray, "v 3"], template: HeadTemplate) -> int:
    """The vertex of the cranium on the midline that is furthest from the glabella."""
    midline = template.mirror == np.arange(len(template.mirror))
    back = np.flatnonzero(midline & template.in_regions("cranium"))
    return int(back[np.linalg.norm(vertices[back] - vertices[glabella(template)], axis=1).argmax()])


def alare(template: HeadTemplate) -> int:
    """The vertex of the left wing of the average nose that looks most to the side, between tip and base."""
    tip, base = template.vertices[template.landmarks[[30, 33]], 1]
    height = template.vertices[:, 1]
    wing = np.flatnonzero(template.in_regions("nose") & (base < height) & (height < tip))
    return int(wing[template.mesh.vertex_normals()[wing, 0].argmax()])


MEASUREMENTS: Mapping[str, tuple[Measure, str]] = {
    "head_breadth": (head_breadth, "eu-eu: largest breadth of the cranium"),
    "head_length": (head_length, "g-op: glabella to the furthest place of the cranium on the midline"),
    "head_circumference": (head_circumference, "tape through glabella and opisthocranion, without the ears"),
    "face_breadth": (between_landmarks(1, 15), "between landmarks 1 and 15, over the cheekbones before the ears"),
    "face_height": (between_landmarks(27, 8), "n-gn: nasion (27) to the lowest place of the chin (8)"),
    "inner_eye_distance": (between_landmarks(39, 42), "en-en: between the inner corners of the eyes (39, 42)"),
    "outer_eye_distance": (between_landmarks(36, 45), "ex-ex: between the outer corners of the eyes (36, 45)"),
    "eye_distance": (eye_distance, "between the middles of the eyes, each halfway between its corners"),
    "nose_height": (between_landmarks(27, 33), "n-sn: nasion (27) to subnasale (33)"),
    "nose_breadth": (nose_breadth, "al-al: between the outermost places of the wings of the nose"),
    "nose_depth": (between_landmarks(33, 30), "sn-prn: subnasale (33) to the tip of the nose (30)"),
    "mouth_breadth": (between_landmarks(48, 54), "ch-ch: between the corners of the mouth (48, 54)"),
}
"""How each measurement is taken, and what it is in words."""
