"""The fixed topology of a mesh model: its triangles, the regions that part its vertices, and its control points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from implicit3dmm.data.lamm_layout import LAMMFolder
from implicit3dmm.errors import InputError
from implicit3dmm.heads.template import REGIONS, HeadTemplate

SHOWN = 5
"""Vertices that a message names."""


@dataclass(frozen=True, eq=False)
class Topology:
    """Triangles, regions and control points; `of_regions` checks them."""

    triangles: Int[np.ndarray, "t 3"]
    cap: Bool[np.ndarray, " t"]
    """The triangles that close the neck, where no scan has a surface."""
    labels: Int[np.ndarray, " v"]
    """Region of each vertex, as its place in `names`."""
    names: tuple[str, ...]
    """Names of the regions, in the order in which models read them."""
    controls: Int[np.ndarray, " c"]
    """The control points: vertices, region by region in the order of `names`."""

    @classmethod
    def of(cls, template: HeadTemplate, *, controls: int) -> "Topology":
        """The 12 regions of a head with control points spread over each.

        Args:
            template: the head.
            controls: control points of each region; the first is its vertex nearest to the middle, each further one
                the farthest from those before.

        Raises:
            InputError: a region has fewer vertices than that.
        """
        regions = {name: np.flatnonzero(template.in_regions(name)) for name in REGIONS}
        points = {name: spread_points(template.vertices, vertices, controls) for name, vertices in regions.items()}
        return cls.of_regions(template.triangles, template.cap, len(template.vertices), regions, points)

    @classmethod
    def of_folder(cls, folder: LAMMFolder, *, controls: int) -> "Topology":
        """The regions of a folder in LAMM's layout; no triangle closes a neck.

        Args:
            folder: with control points of its own, or without.
            controls: control points of each region where it has none, spread as in `of`.

        Raises:
            InputError: as in `of` and `of_regions`.
        """
        regions, points = folder.regions, folder.controls
        size = len(folder.template)
        plain = cls.of_regions(folder.triangles, np.zeros(len(folder.triangles), bool), size, regions, points or {})
        if points is None:
            points = {name: spread_points(folder.template, np.sort(own), controls) for name, own in regions.items()}
            return cls.of_regions(plain.triangles, plain.cap, size, regions, points)
        return plain

    @classmethod
    def of_regions(
        cls,
        triangles: Int[np.ndarray, "t 3"],
        cap: Bool[np.ndarray, " t"],
        vertices: int,
        regions: Mapping[str, Sequence[int] | np.ndarray],
        controls: Mapping[str, Sequence[int] | np.ndarray],
    ) -> "Topology":
        """A topology from lists of vertices.

        Args:
            triangles: of the mesh.
            cap: which of them close the neck.
            vertices: number of vertices.
            regions: vertices of each region, by name.
            controls: control points of regions, by the region's name.

        Raises:
            InputError: the regions overlap, leave vertices out, or name vertices that do not exist; a control point
                is not in its region.
        """
        counts = np.zeros(vertices, np.int64)
        labels = np.zeros(vertices, np.int64)
        for number, (name, members) in enumerate(regions.items()):
            members = np.asarray(members, np.int64)
            outside = members[(members < 0) | (members >= vertices)]
            if len(outside):
                raise InputError(f"region {name} has {_named(outside)}; the mesh has vertices 0 to {vertices - 1}")
            np.add.at(counts, members, 1)
            labels[members] = number
        for wrong, what in ((counts > 1, "in more than one region"), (counts == 0, "in no region")):
            if wrong.any():
                raise InputError(f"{_named(np.flatnonzero(wrong))} lie {what}; every vertex has to lie in exactly one")
        names = tuple(regions)
        unknown = [name for name in controls if name not in names]
        if unknown:
            raise InputError(f"control points of {unknown[0]!r}, which is no region; there are {', '.join(names)}")
        chosen = {name: np.asarray(controls.get(name, ()), np.int64) for name in names}
        for number, (name, points) in enumerate(chosen.items()):
            valid = (points >= 0) & (points < vertices)
            astray = points[~valid | (labels[np.where(valid, points, 0)] != number)]
            if len(astray):
                raise InputError(f"control points {_named(astray)} lie outside their region {name}; take others")
            if len(np.unique(points)) < len(points):
                raise InputError(f"region {name} names a control point twice; name each once")
        return cls(np.asarray(triangles), np.asarray(cap), labels, names, np.concatenate(list(chosen.values())))

    @property
    def size(self) -> int:
        """Number of vertices."""
        return len(self.labels)

    @cached_property
    def regions(self) -> tuple[Int[np.ndarray, " n"], ...]:
        """Vertices of each region, rising."""
        return tuple(np.flatnonzero(self.labels == number) for number in range(len(self.names)))

    @cached_property
    def control_regions(self) -> Int[np.ndarray, " c"]:
        """Region of each control point."""
        return self.labels[self.controls]

    @cached_property
    def edges(self) -> Int[np.ndarray, "e 2"]:
        """Every edge once, from the lower vertex to the higher."""
        sides = np.sort(self.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        return np.unique(sides, axis=0)

    @cached_property
    def rims(self) -> tuple[Int[np.ndarray, " n"], ...]:
        """The vertices of each region that an edge joins to another one."""
        ends = self.labels[self.edges]
        across = np.unique(self.edges[ends[:, 0] != ends[:, 1]])
        return tuple(across[self.labels[across] == number] for number in range(len(self.names)))

    def region(self, name: str) -> int:
        """Place of a region in `names`.

        Raises:
            InputError: there is no such region.
        """
        if name not in self.names:
            raise InputError(f"no region {name!r}; there are {', '.join(self.names)}")
        return self.names.index(name)

    def check(self, vertices: Float[np.ndarray, "*b v 3"], *, what: str) -> None:
        """Compares the number of vertices with the topology's.

        Raises:
            InputError: it is another.
        """
        if vertices.shape[-2:] != (self.size, 3):
            raise InputError(
                f"{what} has vertices of shape {vertices.shape[-2:]}; the model has ({self.size}, 3); register "
                "it first ('implicit3dmm register')"
            )


def spread_points(
    places: Float[np.ndarray, "v 3"], vertices: Int[np.ndarray, " n"], count: int
) -> Int[np.ndarray, " c"]:
    """Vertices spread over a region, rising: the one nearest to its middle, then ever the farthest from those before.

    Raises:
        InputError: there are fewer vertices than points.
    """
    if len(vertices) < count:
        raise InputError(f"{count} control points asked of a region of {len(vertices)} vertices; ask for fewer")
    own = places[vertices]
    chosen = [int(np.linalg.norm(own - own.mean(0), axis=1).argmin())]
    nearest = np.full(len(own), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.linalg.norm(own - own[chosen[-1]], axis=1))
        chosen.append(int(nearest.argmax()))
    return np.sort(vertices[chosen[:count]])


def _named(vertices: Int[np.ndarray, " n"]) -> str:
    listed = ", ".join(map(str, vertices[:SHOWN]))
    return f"vertices {listed}{f' and {len(vertices) - SHOWN} more' if len(vertices) > SHOWN else ''}"
