"""Heads to draw in groups that share a factor: those of a model, or those that it was trained on."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int

from implicit3dmm.data.registered import UNKNOWN, RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.references import Reference


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


class ModelPopulation:
    """Heads that a model draws; a group shares one code of the factor."""

    def __init__(self, model: Reference):
        self.name = model.name
        self.factors = tuple(model.factors)
        self._model = model

    @torch.no_grad()
    def draw(
        self, factor: str | None, groups: int, size: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "g s v 3"]:
        """As in `Population`."""
        codes = rng.normal(size=(groups * size, self._model.latent_size)).astype(np.float32)
        if factor is not None:
            place = self._model.place(factor)
            codes[:, place] = np.repeat(codes[::size, place], size, axis=0)
        heads = self._model.likely(torch.from_numpy(codes)).numpy()
        return heads.reshape(groups, size, *heads.shape[1:])


class RegisteredPopulation:
    """Given heads; a group shares one label of the factor, drawn among those that two heads have."""

    def __init__(self, name: str, heads: RegisteredHeads):
        self.name = name
        self._heads = heads
        rows = {factor: rows_by_label(labels) for factor, labels in heads.labels.items()}
        self._rows = {factor: each for factor, each in rows.items() if each}
        self.factors = tuple(self._rows)

    def draw(
        self, factor: str | None, groups: int, size: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "g s v 3"]:
        """As in `Population`; the first head of a group is none of the others, which differ while there are enough.

        Raises:
            InputError: no two heads share a label of the factor.
        """
        if factor is not None and factor not in self._rows:
            raise InputError(f"no two heads of {self.name} share a label of {factor!r}; there are {self.factors}")
        choices = [np.arange(len(self._heads))] if factor is None else self._rows[factor]
        chosen = [choices[number] for number in rng.integers(len(choices), size=groups)]
        return self._heads.vertices[np.stack([_different(each, size, rng) for each in chosen])]


def _different(rows: Int[np.ndarray, " n"], size: int, rng: np.random.Generator) -> Int[np.ndarray, " s"]:
    """Some rows, of which the first comes once."""
    first, *others = rng.permutation(rows)
    return np.array([first, *rng.choice(others, size - 1, replace=len(others) < size - 1)])


def rows_by_label(labels: Int[np.ndarray, " r"]) -> list[Int[np.ndarray, " n"]]:
    """Rows of each label that two heads have."""
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels[labels != UNKNOWN])]
    return [rows for rows in groups if len(rows) > 1]
