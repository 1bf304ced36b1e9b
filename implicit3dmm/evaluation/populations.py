"""Heads to draw in groups that share a factor: those of a model, or those that it was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int

from implicit3dmm.data.registered import UNKNOWN, RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.mesh_models.base import MeshModel, load_network
from implicit3dmm.mesh_models.pca import PCAModel, is_pca_file, load_pca
from implicit3dmm.models import model_file


@runtime_checkable
class Population(Protocol):
    """Heads of one topology that can be drawn."""

    name: str
    """What tables call it."""
    factors: Sequence[str]
    """The factors that heads can share."""

    def draw(
        self, factor: str | None, groups: int, size: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "g s v 3"]:
        """Groups of heads, canonical units.

        Args:
            factor: what the heads of a group share, of `factors`; all else differs. With None they share nothing.
            groups: how many.
            size: heads of each.
            rng: source of the draws.
        """
        ...


class NetworkPopulation:
    """Heads that a network draws; a group shares one code of the factor."""

    def __init__(self, model: MeshModel):
        self.name = model.name
        self.factors = tuple(model.network.factors)
        self._model = model

    def draw(
        self, factor: str | None, groups: int, size: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "g s v 3"]:
        """As in `Population`."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        codes = self._model.network.sample(groups * size, temperature=1.0, generator=generator).numpy()
        if factor is not None:
            _share(codes, self._model.network.place(factor), size)
        heads = self._model.decode(codes)
        return heads.reshape(groups, size, *heads.shape[1:])


class PCAPopulation:
    """Heads of principal components; of an additive model, a group shares the person or the expression."""

    def __init__(self, model: PCAModel):
        self.name = model.name
        self.factors = ("identity", "expression") if model.info.get("expression_components") else ()
        self._model = model

    def draw(
        self, factor: str | None, groups: int, size: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "g s v 3"]:
        """As in `Population`."""
        coefficients = self._model.sample(groups * size, rng=rng).astype(np.float32)
        if factor is not None:
            _share(coefficients, self._model.place(factor), size)
        heads = (coefficients @ self._model.basis.T).reshape(len(coefficients), -1, 3) + self._model.mean
        return heads.reshape(groups, size, *heads.shape[1:])


def open_population(path: str | Path) -> Population:
    """Opens a model of registered heads, by name or by its file.

    Raises:
        InputError: there is no such file, or it holds another kind of model.
    """
    path = model_file(path)
    return PCAPopulation(load_pca(path)) if is_pca_file(path) else NetworkPopulation(load_network(path))


class RegisteredPopulation:
    """Given heads; a group shares one label of the factor, drawn among those that two heads have."""

    def __init__(self, name: str, heads: RegisteredHeads):
        self.name = name
        self._heads = heads
        rows = {factor: _rows_by_label(labels) for factor, labels in heads.labels.items()}
        self._rows = {factor: each for factor, each in rows.items() if each}
        self.factors = tuple(self._rows)

    def draw(
        self, factor: str | None, groups: int, size: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "g s v 3"]:
        """As in `Population`; the heads of a group are different ones while there are enough.

        Raises:
            InputError: no two heads share a label of the factor.
        """
        if factor is not None and factor not in self._rows:
            raise InputError(f"no two heads of {self.name} share a label of {factor!r}; there are {self.factors}")
        choices = [np.arange(len(self._heads))] if factor is None else self._rows[factor]
        chosen = [choices[number] for number in rng.integers(len(choices), size=groups)]
        rows = np.stack([rng.choice(each, size, replace=len(each) < size) for each in chosen])
        return self._heads.vertices[rows]


def _share(codes: Float[np.ndarray, "n d"], place: slice, size: int) -> None:
    """Gives all codes of each group, `size` in turn, a part of the first one's."""
    codes[:, place] = np.repeat(codes[::size, place], size, axis=0)


def _rows_by_label(labels: Int[np.ndarray, " r"]) -> list[Int[np.ndarray, " n"]]:
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels[labels != UNKNOWN])]
    return [rows for rows in groups if len(rows) > 1]
