"""Heads to draw in groups that share a factor: those of a model, or those that it was trained on."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.data.registered import UNKNOWN, RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.mesh_models.additive import AdditiveModel
from implicit3dmm.mesh_models.adversarial import Adversarial
from implicit3dmm.mesh_models.base import MeshModel


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


class AdversarialPopulation:
    """Heads of an adversarial model; a group shares one code of the factor."""

    def __init__(self, model: MeshModel):
        assert isinstance(model.network, Adversarial)
        self.name = model.name
        self.factors = tuple(model.network.config.factors)
        self._model = model

    def draw(
        self, factor: str | None, groups: int, size: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "g s v 3"]:
        """As in `Population`."""
        network = self._model.network
        codes = rng.normal(size=(groups * size, network.latent_dim)).astype(np.float32)
        if factor is not None:
            place = network.place(factor)
            codes[:, place] = np.repeat(codes[::size, place], size, axis=0)
        heads = self._model.decode(codes)
        return heads.reshape(groups, size, *heads.shape[1:])


class AdditivePopulation:
    """Heads of an additive model; a group shares the person or the expression."""

    factors = ("identity", "expression")

    def __init__(self, name: str, model: AdditiveModel):
        self.name = name
        self._model = model

    def draw(
        self, factor: str | None, groups: int, size: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "g s v 3"]:
        """As in `Population`."""
        codes = {name: rng.normal(size=(groups * size, len(each))) for name, each in self._model.components.items()}
        if factor is not None:
            codes[factor] = np.repeat(codes[factor][::size], size, axis=0)
        heads = self._model.vertices(**codes)
        return heads.reshape(groups, size, *heads.shape[1:])


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


def _rows_by_label(labels: Int[np.ndarray, " r"]) -> list[Int[np.ndarray, " n"]]:
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels[labels != UNKNOWN])]
    return [rows for rows in groups if len(rows) > 1]
