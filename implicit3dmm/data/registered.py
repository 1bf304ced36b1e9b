"""Heads in correspondence, as mesh models read them: the vertices of one topology, all in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.recipe import generate
from implicit3dmm.errors import InputError

UNKNOWN = -1
"""The label of a head that has none."""

AGES = (6, 18, 45)
"""Years at which the age bands change: children, youths, adults, elders."""


@dataclass(frozen=True, eq=False)
class RegisteredHeads:
    """Some heads of a recipe in the canonical frame."""

    vertices: Float[np.ndarray, "r v 3"]
    """Canonical units, single precision."""
    subjects: Int[np.ndarray, " r"]
    """Number of each head's subject in the recipe."""
    rest: Int[np.ndarray, " r"]
    """Row of the same subject's neutral head."""
    labels: Mapping[str, Int[np.ndarray, " r"]]
    """What is known of each head by factor, counted from 0, or `UNKNOWN`: "identity", "expression", where random ones
    are unknown, and "age", a band of `AGES`, where the source tells years."""

    def __post_init__(self) -> None:
        """Raises InputError where labels are out of range."""
        count = len(self.vertices)
        for name, labels in self.labels.items():
            whole = np.issubdtype(labels.dtype, np.integer) and labels.shape == (count,)
            if not whole or (labels < UNKNOWN).any():
                raise InputError(
                    f"labels {name!r} of {count} heads have the shape {labels.shape} and are {labels.dtype} from"
                    f" {labels.min(initial=0)}; expected a whole number from 0 for each head, or {UNKNOWN} where it is"
                    " not known"
                )

    @classmethod
    def of(cls, heads: Heads, split: str, *, subjects: int | None = None) -> "RegisteredHeads":
        """Makes the heads of a split; one or a few thousandths of a second each.

        Args:
            heads: a corpus or a recipe; no samples are read.
            split: whose heads.
            subjects: only the first so many.

        Raises:
            InputError: less than one subject is asked for, the split has no heads, or these have no neutral record.
        """
        if subjects is not None and subjects < 1:
            raise InputError(f"{subjects} subjects asked for; give at least 1")
        numbers = heads.subjects(split)[:subjects].tolist()
        if not numbers:
            raise InputError(f"{heads.name} has no {split} heads; choose another split or corpus")
        if "neutral" not in heads.recipe.expressions:
            raise InputError(f"{heads.name} has no neutral heads, which mesh models need; add neutral to expressions")
        recipe = replace(heads.recipe, swaps=0)
        names = recipe.record_names
        vertices = np.empty((len(numbers) * len(names), len(heads.source.template.vertices), 3), np.float32)
        years = []
        for row, head in enumerate(generate(recipe, numbers)):
            vertices[row] = head.vertices
            years.append(head.person.about.get("years"))
        rank = np.repeat(np.arange(len(numbers)), len(names))
        expression = [UNKNOWN if name not in recipe.expressions else number for number, name in enumerate(names)]
        labels = {"identity": rank, "expression": np.tile(expression, len(numbers))}
        if all(isinstance(age, int | float) for age in years):
            labels["age"] = np.searchsorted(AGES, np.array(years), side="right")
        return cls(vertices, np.repeat(numbers, len(names)), rank * len(names) + names.index("neutral"), labels)

    def __len__(self) -> int:
        """Number of heads."""
        return len(self.vertices)

    @cached_property
    def mean(self) -> Float[np.ndarray, "v 3"]:
        """The mean head."""
        return self.vertices.mean(0, dtype=np.float64).astype(np.float32)
