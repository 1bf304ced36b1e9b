"""The training head that a new head is nearest to."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.heads import Heads
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.distance import distance_to_surface, signed_distance
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.heads.frame import UNIT_MM

PLACES = 1000
"""Places around which heads are compared at a glance."""

CANDIDATES = 5
"""Heads, the likeliest at a glance, that are compared exactly."""


class NearestHead(NamedTuple):
    """A head and how far a mesh is from it."""

    record: int
    distance_mm: float


class HeadIndex:
    """Heads in which the nearest to a mesh is found quickly.

    At a glance: the signed distances of a head at places spread over the mean head tell how far it stands out there,
    and the mean absolute difference of two heads' signed distances is about their mean distance. The few heads that
    are likeliest by it are compared exactly.
    """

    def __init__(self, heads: Heads, records: Iterable[int], *, places: int = PLACES):
        """Makes the heads and looks at each.

        Args:
            heads: where the records are from.
            records: of the heads, such as all training records; wrapped by `tqdm` they show how far it is.
            places: where the heads are looked at.

        Raises:
            InputError: there is no record.
        """
        template = heads.source.template
        self._neck = template.in_regions("neck")
        self._triangles = template.triangles
        made = [(int(record), heads.head(int(record)).vertices.astype(np.float32)) for record in records]
        if not made:
            raise InputError(f"{heads.name} has no heads to be near to; give a corpus with training heads")
        self.records = [record for record, _ in made]
        self._vertices = np.stack([vertices for _, vertices in made])
        mean = Mesh(self._vertices.mean(axis=0), template.triangles[~self._neck[template.triangles].any(axis=1)])
        self._places = sample_surface(mean, places, rng=np.random.default_rng(0)).points
        self._looks = np.stack([self._look(self.mesh(number)) for number in range(len(made))])

    def mesh(self, number: int) -> Mesh:
        """Head `number` of `records`, canonical units."""
        return Mesh(self._vertices[number], self._triangles)

    def nearest(self, mesh: Mesh, *, candidates: int = CANDIDATES) -> NearestHead:
        """The head whose exact surface the mesh is nearest to, among those that are likeliest at a glance.

        Args:
            mesh: closed, canonical units.
            candidates: heads that are compared exactly; all of them makes it certain.
        """
        likely = np.argsort(np.abs(self._looks - self._look(mesh)).mean(axis=1))[:candidates]
        weights = vertex_areas(mesh)
        distances = [self._distance(mesh, weights, int(number)) for number in likely]
        best = int(np.argmin(distances))
        return NearestHead(self.records[likely[best]], distances[best] * UNIT_MM)

    def _look(self, mesh: Mesh) -> Float[np.ndarray, " p"]:
        return signed_distance(self._places, mesh).distance.astype(np.float32)

    def _distance(self, mesh: Mesh, weights: Float[np.ndarray, " v"], number: int) -> float:
        """Mean distance of the mesh's vertices, each for its share of the area, to the head; its neck left out."""
        near = distance_to_surface(mesh.vertices, self.mesh(number))
        masked = weights * ~self._neck[self._triangles[near.face]].any(axis=1)
        return float((masked * near.distance).sum() / masked.sum())


def vertex_areas(mesh: Mesh) -> Float[np.ndarray, " v"]:
    """The area that each vertex stands for: a third of the faces around it."""
    shares = np.repeat(mesh.face_areas() / 3, 3)
    return np.bincount(mesh.faces.ravel(), weights=shares, minlength=len(mesh.vertices))
