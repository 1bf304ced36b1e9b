"""The part of a head that is laid on a square, such as its face."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.parameterisation import border_loops, disc_faces, square_parameterisation
from implicit3dmm.mesh_models.geometry_image import GeometryImage
from implicit3dmm.mesh_models.topology import Topology


@dataclass(frozen=True, eq=False)
class FacePatch:
    """A piece of a topology that hangs together and leaves the neck's cap out."""

    inside: Bool[np.ndarray, " v"]
    """Which vertices of the head it has."""
    faces: Int[np.ndarray, "f 3"]
    """Its triangles; vertices are numbered among its own, in the order of the head's."""

    @classmethod
    def of(cls, topology: Topology, regions: Sequence[str]) -> "FacePatch":
        """The largest piece of some regions.

        Raises:
            InputError: there is no such region, or no triangle between their vertices.
        """
        chosen = np.isin(topology.labels, [topology.region(name) for name in regions])
        skin = topology.triangles[~topology.cap]
        faces = skin[disc_faces(Mesh(np.zeros((topology.size, 3)), skin), chosen)]
        vertices, numbers = np.unique(faces, return_inverse=True)
        inside = np.zeros(topology.size, bool)
        inside[vertices] = True
        return cls(inside, numbers.reshape(-1, 3))

    def image(self, head: Float[np.ndarray, "v 3"], size: int) -> GeometryImage:
        """Lays the patch on a square; its highest point goes to the middle of the upper side.

        Args:
            head: that the map is made for, any unit.
            size: pixels along a side.

        Raises:
            InputError: the patch cannot be laid on a square.
        """
        patch = Mesh(head[self.inside], self.faces)
        border = np.concatenate(border_loops(self.faces))
        top = int(border[patch.vertices[border, 1].argmax()])
        return GeometryImage(square_parameterisation(patch, top=top), size)
