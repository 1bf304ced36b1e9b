"""Models of registered heads under one face: what reads a head's vertices in correspondence and gives them back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.methods import MethodInfo, describe_training, file_digest
from implicit3dmm.mesh_models.base import is_network_file, load_network
from implicit3dmm.mesh_models.pca import is_pca_file, load_pca

Vertices = Float[np.ndarray, "b v 3"]


@dataclass(frozen=True, eq=False)
class Reference:
    """A model of registered heads."""

    name: str
    latent_size: int
    parameters: int
    """Numbers that were learnt."""
    info: MethodInfo
    settings: Mapping[str, Any]
    """All that decides on its results, as JSON values."""
    encode: Callable[[Vertices], Float[np.ndarray, "b d"]]
    decode: Callable[[Float[np.ndarray, "b d"]], Vertices]

    def reconstruct(self, vertices: Vertices) -> Vertices:
        """Heads of the codes of heads, canonical units."""
        return self.decode(self.encode(vertices))


def check_names(names: Sequence[str]) -> None:
    """Raises InputError where two models that have a row or a folder each have one name."""
    if len(set(names)) < len(names):
        raise InputError(f"models called {', '.join(names)} given; give models of different names")


def is_reference(path: str | Path) -> bool:
    """Whether a file holds a model of registered heads."""
    return is_pca_file(path) or is_network_file(path)


def open_reference(path: str | Path) -> Reference:
    """Opens a model of registered heads by its file.

    Raises:
        InputError: there is no such file, or it holds another kind of model.
    """
    settings = {"weights": file_digest(Path(path)) if Path(path).is_file() else None}
    if not is_pca_file(path):
        model = load_network(path)
        count = sum(parameter.numel() for parameter in model.network.parameters())
        info = describe_training(model.info)
        size = model.network.latent_dim
        return Reference(model.name, size, count, info, settings, model.encode, model.decode)
    pca = load_pca(path)
    return Reference(
        pca.name,
        len(pca.deviations),
        pca.components.size,
        describe_training(pca.info),
        settings,
        lambda vertices: np.stack([pca.project(head) for head in vertices]),
        lambda codes: np.stack([pca.vertices(code) for code in codes]),
    )
