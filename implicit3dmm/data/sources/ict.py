"""ICT-FaceKit as a source: 100 principal components of light-stage scans and 53 expression modes.

The files are not part of this package (`ict_files.py` says where they are looked for). The skin of face, head
and neck is closed like the built-in head; regions and anchors come from that head's template, laid over the
average by the 68 landmarks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from implicit3dmm.data.sources.base import Subject, open_source, register_source
from implicit3dmm.data.sources.ict_files import (
    FACE,
    HEAD_AND_NECK,
    LEFT_EYEBALL,
    RIGHT_EYEBALL,
    Arrays,
    load_ict_arrays,
)
from implicit3dmm.data.sources.makehuman import EXPRESSIONS, NOT_COMBINED
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh_arrays import fan_triangles
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.similarity import fit_similarity
from implicit3dmm.heads.cage import Cage, Openings, boundary_rings, close_skin
from implicit3dmm.heads.cutting import cut_polygons
from implicit3dmm.heads.subdivision import Polygons
from implicit3dmm.heads.template import REGIONS, HeadTemplate
from implicit3dmm.heads.transfer import rigid_vertices, transfer_anchors, transfer_regions

MM_PER_CM = 10.0

LARGEST_COEFFICIENT = 2.5
"""In standard deviations; beyond it nostrils and lips pinch."""
CUT_ABOVE_BASE = 0.06
"""Canonical units (12 mm): the neck ends so far above the built-in heads', before the shoulders begin; the flat cap
would pierce these."""
SCLERA_VERTICES = 770
"""The first vertices of each eyeball; the others are the iris behind the cornea."""
PART_REGIONS = {"mouth_film": "mouth", "eye_film_L": "eye_L", "eye_film_R": "eye_R", "neck_cap": "neck"}


@register_source("ict")
class ICTHeads:
    """Heads of ICT-FaceKit, watertight, genus 0; identity coefficients are independent and normal."""

    name = "ict"
    version = "1"
    licence = "ICT-FaceKit, MIT License, Copyright (c) 2020 USC Institute for Creative Technologies"

    def __init__(self):
        """Reads the files.

        Raises:
            InputError: they are not on this machine, or damaged.
        """
        arrays = load_ict_arrays()
        average = arrays["template"].astype(np.float64) * MM_PER_CM
        landmarks = arrays["landmarks68"]
        built_in = open_source("makehuman").template
        placed = fit_similarity(average[landmarks], built_in.vertices[built_in.landmarks])
        height = height_above_neck(built_in, placed.apply(average))
        cut = cut_polygons(_skin_polygons(arrays), height - CUT_ABOVE_BASE)
        cage, skin = closed_cage(cut.extend(average), cut.polygons)
        part = arrays["vertex_geometry"]
        sclera = [np.flatnonzero(part == eye)[:SCLERA_VERTICES] for eye in (LEFT_EYEBALL, RIGHT_EYEBALL)]
        tracked = np.concatenate([skin, *sclera])
        self._closing = cage.closing
        self._split = np.cumsum([len(skin), SCLERA_VERTICES])
        self._mean = cut.extend(average)[tracked].astype(np.float32)
        self._identity = cut.extend(_modes(arrays, "identity"))[:, tracked]
        self._expression = cut.extend(_modes(arrays, "expression"))[:, skin]
        self.unit_names = [_unit_name(str(name)) for name in arrays["expression_names"]]
        self.expressions = expressions_of(self.unit_names)
        self.combined_units = [name for name in self.unit_names if name not in NOT_COMBINED]
        neutral = self.vertices(np.zeros((1, len(self._identity)), np.float32))[0].astype(np.float64)
        self.template = _template(placed.apply(neutral), cage, np.searchsorted(skin, landmarks), built_in)

    def sample_subject(self, rng: np.random.Generator) -> Subject:
        """Draws independent normal coefficients, clipped to `LARGEST_COEFFICIENT`."""
        drawn = rng.normal(size=len(self._identity))
        return Subject(np.clip(drawn, -LARGEST_COEFFICIENT, LARGEST_COEFFICIENT).astype(np.float32), {})

    def vertices(
        self, coefficients: Float[np.ndarray, "b c"], units: Float[np.ndarray, "b u"] | None = None
    ) -> Float[np.ndarray, "b v 3"]:
        """Closed vertices in mm; an expression does not move the eyeballs."""
        tracked = self._mean + _blend(coefficients, self._identity)
        skin, *sclera = np.split(tracked, self._split, axis=1)
        if units is not None:
            skin = skin + _blend(units, self._expression)
        return self._closing.apply(skin, tuple(_round_eyeball(eye) for eye in sclera))


def height_above_neck(template: HeadTemplate, vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, " v"]:
    """Height of vertices above the plane through the base of the neck of `template`, canonical units."""
    base = np.intersect1d(template.triangles[template.cap], template.triangles[~template.cap])
    slope, level = np.polyfit(template.vertices[base, 2], template.vertices[base, 1], 1)
    return vertices[:, 1] - (slope * vertices[:, 2] + level)


def closed_cage(average: Float[np.ndarray, "v 3"], polygons: Polygons) -> tuple[Cage, Int[np.ndarray, " s"]]:
    """Closes the skin of face, head and neck.

    Args:
        average: the average head, y up, mirror symmetric within 1 mm.
        polygons: the skin's, over vertices of `average`.

    Returns:
        The cage, and for each of its skin vertices the vertex of `average`.

    Raises:
        InputError: the average head is not symmetric.
    """
    skin = np.unique(np.concatenate(polygons))
    number = {vertex: i for i, vertex in enumerate(skin.tolist())}
    polygons = [tuple(number[vertex] for vertex in polygon) for polygon in polygons]
    _, mirror = NearestNeighbours(average[skin]).query(average[skin] * (-1, 1, 1))
    if not np.array_equal(mirror[mirror], np.arange(len(skin))):
        raise InputError("ICT-FaceKit's average head is not mirror symmetric; the published one is; clone it again")
    return close_skin(polygons, _openings(boundary_rings(polygons), average[skin], mirror), mirror), skin


def expressions_of(unit_names: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
    """The built-in source's expressions in these units.

    A unit that is missing here but comes as a left and a right one is replaced by both; an expression that
    needs another unit is left out.
    """
    expressions = {}
    for name, units in EXPRESSIONS.items():
        here = {unit: _counterparts(unit, unit_names) for unit in units}
        if all(here.values()):
            expressions[name] = {there: units[unit] for unit, all_there in here.items() for there in all_there}
    return expressions


def _counterparts(unit: str, unit_names: Sequence[str]) -> list[str]:
    return [name for name in (unit, f"{unit}Left", f"{unit}Right") if name in unit_names]


def _unit_name(name: str) -> str:
    """The published name with its side as in the built-in source: browDown_L becomes browDownLeft."""
    return name.replace("_L", "Left").replace("_R", "Right")


def _skin_polygons(arrays: Arrays) -> Polygons:
    quads = arrays["quads"][np.isin(arrays["quad_geometry"], (FACE, HEAD_AND_NECK))].tolist()
    return [tuple(dict.fromkeys(quad)) for quad in quads]  # a triangle repeats its last corner


def _openings(rings: list[list[int]], average: Float[np.ndarray, "s 3"], mirror: Int[np.ndarray, " s"]) -> Openings:
    """Tells the four rings apart by where they lie, and turns each to its start."""
    neck, *rings = sorted(rings, key=lambda ring: average[ring, 1].mean())
    right_eye, mouth, left_eye = sorted(rings, key=lambda ring: average[ring, 0].mean())
    upper_lip = max((vertex for vertex in mouth if mirror[vertex] == vertex), key=lambda v: average[v, 1])
    half = len(left_eye) // 2
    x = average[left_eye, 0]
    corner = int(np.argmax(np.roll(x, -half) - x))  # opposite vertices lie farthest apart at the corners
    return Openings(neck, _from(mouth, mouth.index(upper_lip)), _from(left_eye, corner), right_eye)


def _from(ring: list[int], start: int) -> list[int]:
    return ring[start:] + ring[:start]


def _modes(arrays: Arrays, kind: str) -> Float[np.ndarray, "m v 3"]:
    """Offsets in mm of the identity or expression modes."""
    return arrays[f"{kind}_q"] * (arrays[f"{kind}_scale"].astype(np.float32) * MM_PER_CM)[:, None, None]


def _blend(weights: Float[np.ndarray, "b m"], modes: Float[np.ndarray, "m k 3"]) -> Float[np.ndarray, "b k 3"]:
    return (weights.astype(np.float32) @ modes.reshape(len(modes), -1)).reshape(len(weights), -1, 3)


def _round_eyeball(sclera: Float[np.ndarray, "b e 3"]) -> Float[np.ndarray, "b 6 3"]:
    """Six points on the sphere that fits each sclera best, in linear least squares.

    Its vertices are dense at the front, so their mean lies 4 mm before its centre.
    """
    middle = sclera.mean(1, keepdims=True)
    local = (sclera - middle).astype(np.float64)
    design = np.concatenate([2 * local, np.ones_like(local[..., :1])], axis=-1)
    transposed = design.swapaxes(1, 2)
    solution = np.linalg.solve(transposed @ design, transposed @ np.square(local).sum(-1, keepdims=True))
    centre = solution[:, None, :3, 0]
    radius = np.sqrt(solution[:, 3:] + np.square(centre).sum(-1, keepdims=True))
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    return (middle + centre + radius * axes).astype(sclera.dtype)


def _template(
    vertices: Float[np.ndarray, "v 3"],
    cage: Cage,
    landmarks: Int[np.ndarray, " 68"],
    built_in: HeadTemplate,
) -> HeadTemplate:
    """Describes the closed average head, in the canonical frame, by the built-in one under it."""
    skin = vertices[: cage.closing.skin_count]
    skin_mirror = cage.mirror[: len(skin)]
    regions = np.concatenate([transfer_regions(built_in, skin, skin_mirror), _added_regions(cage)])
    rigid = rigid_vertices(vertices, regions, landmarks)
    lengths = np.array([len(face) for face in cage.faces])
    tags = np.repeat(list(cage.parts), [len(part) for part in cage.parts.values()])
    return HeadTemplate(
        vertices=vertices,
        triangles=fan_triangles(np.concatenate(cage.faces), lengths),
        quads=None,
        cap=np.repeat(tags == "neck_cap", lengths - 2),
        regions=regions,
        landmarks=landmarks,
        anchors=transfer_anchors(built_in, skin, skin_mirror),
        mirror=cage.mirror,
        rigid=rigid,
        reference=vertices[rigid],
    )


def _added_regions(cage: Cage) -> UInt8[np.ndarray, " a"]:
    """Regions of the vertices that films and cap add."""
    regions = np.zeros(cage.closing.vertex_count, dtype=np.uint8)
    for part, region in PART_REGIONS.items():
        added = np.unique(np.concatenate(cage.parts[part]))
        regions[added] = REGIONS.index(region)
    return regions[cage.closing.skin_count :]
