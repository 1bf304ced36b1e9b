"""Registered heads that are edited: in a model's topology, wherever they stand."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.sources import open_source
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh, read_mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.frame import canonical_similarity
from implicit3dmm.mesh_models.model import MeshModel
from implicit3dmm.models import load_codes

CODES = ".safetensors"
"""Suffix of files of codes."""


@dataclass(frozen=True, eq=False)
class RegisteredHead:
    """A head in a model's topology and where it stands."""

    vertices: Float[np.ndarray, "v 3"]
    """Canonical units."""
    placement: Similarity
    """From the canonical frame to the head's own."""

    def mesh(self, model: MeshModel, vertices: Float[np.ndarray, "v 3"]) -> Mesh:
        """Vertices of this head, or of what an edit made of it, in the head's own frame."""
        return model.mesh(vertices).transformed(self.placement)


def open_registered(path: str | Path, model: MeshModel) -> RegisteredHead:
    """Reads a mesh in a model's topology, in any frame and unit, whose rigid vertices say where it stands; or codes.

    Raises:
        InputError: the file cannot be read, its mesh is of another topology or its codes of another model, or the mesh
            is to be placed by a model of foreign meshes.
    """
    if Path(path).suffix == CODES:
        return RegisteredHead(decoded(path, model), Similarity.identity())
    vertices = read_mesh(path).vertices
    model.topology.check(vertices, what=str(path))
    if "recipe" not in model.info:
        raise InputError(
            f"{model.name} was trained on meshes whose frame is not known; give a network of built-in heads"
        )
    template = open_source(model.info["recipe"]["source"]).template
    to_canonical = canonical_similarity(vertices, template.rigid, template.reference)
    return RegisteredHead(to_canonical.apply(vertices), to_canonical.inverse())


def decoded(path: str | Path, model: MeshModel) -> Float[np.ndarray, "v 3"]:
    """Vertices of a file of codes that `implicit3dmm sample` wrote, canonical units.

    Raises:
        InputError: the file is no whole safetensors file, or its codes belong to another model.
    """
    return model.decode(load_codes(path, model)["head"].numpy())[0]
