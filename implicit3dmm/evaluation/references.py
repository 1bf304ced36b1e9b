"""Models of registered heads under one face: what reads a head's vertices in correspondence and gives them back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit3dmm.data.heads import Heads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.methods import MethodInfo, describe_training, file_digest
from implicit3dmm.mesh_models.model import is_network_file, load_network
from implicit3dmm.mesh_models.pca import is_pca_file, load_pca
from implicit3dmm.models import model_file

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
    likely: Callable[[Float[Tensor, "b d"]], Float[Tensor, "b v 3"]]
    """Heads of coordinates in which likely heads are standard normal; can be differentiated."""
    factors: Sequence[str]
    """What heads can share; each has a part of the code."""
    place: Callable[[str], slice]
    """Where that part stands."""

    def reconstruct(self, vertices: Vertices) -> Vertices:
        """Heads of the codes of heads, canonical units."""
        return self.decode(self.encode(vertices))

    @torch.no_grad()
    def check(self, heads: Heads) -> None:
        """Raises InputError where these are of another topology than the model's."""
        own, others = self.likely(torch.zeros(1, self.latent_size)).shape[1], len(heads.source.template.vertices)
        if own != others:
            raise InputError(
                f"{self.name} is a model of {own} vertices, the heads of {heads.name} have {others}; give a model that"
                " was trained on heads of their topology"
            )


def check_names(names: Sequence[str]) -> None:
    """Raises InputError where two models that have a row or a folder each have one name."""
    if len(set(names)) < len(names):
        raise InputError(f"models called {', '.join(names)} given; give models of different names")


def is_reference(path: str | Path) -> bool:
    """Whether a file holds a model of registered heads."""
    return is_pca_file(path) or is_network_file(path)


def open_reference(name_or_path: str | Path) -> Reference:
    """Opens a model of registered heads, by name or by its file.

    Raises:
        InputError: there is no such file, or it holds another kind of model.
    """
    path = model_file(name_or_path)
    return _open_components(path) if is_pca_file(path) else _open_network(path)


def _open_network(path: Path) -> Reference:
    model = load_network(path)
    network = model.network
    return Reference(
        name=model.name,
        latent_size=network.latent_dim,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        info=describe_training(model.info),
        settings={"weights": file_digest(path)},
        encode=model.encode,
        decode=model.decode,
        likely=lambda codes: network.decode(network.unwhiten(codes)),
        factors=tuple(network.factors),
        place=network.place,
    )


def _open_components(path: Path) -> Reference:
    pca = load_pca(path)
    mean, basis = torch.from_numpy(pca.mean), torch.from_numpy(pca.basis)
    return Reference(
        name=pca.name,
        latent_size=len(pca.deviations),
        parameters=pca.components.size,
        info=describe_training(pca.info),
        settings={"weights": file_digest(path)},
        encode=lambda vertices: np.stack([pca.project(head) for head in vertices]),
        decode=lambda codes: np.stack([pca.vertices(code) for code in codes]),
        likely=lambda codes: mean + (codes @ basis.T).unflatten(1, (-1, 3)),
        factors=pca.factors,
        place=pca.place,
    )
