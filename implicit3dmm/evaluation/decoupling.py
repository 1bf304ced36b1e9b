"""Diversity, decoupling and specificity of models of heads with factors (Abrevaya et al. 2019, section 5.3).

Each figure alone can be bought with another: heads that hardly differ are decoupled and specific, heads that differ in
everything are diverse. They are made to be read together, beside those of the training heads.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.populations import Population
from implicit3dmm.evaluation.statistics import Estimate, estimate_mean
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.evaluation.verification import Verifier
from implicit3dmm.heads.frame import UNIT_MM

AT_ONCE = 100
"""Heads that are made together."""

GLANCE = 200
"""Vertices by which the nearest training heads are looked for."""

CANDIDATES = 20
"""Training heads, the nearest by these vertices, that all vertices are compared with."""


@dataclass(frozen=True)
class DecouplingConfig:
    """How many heads are drawn."""

    pairs: int = 10000
    """Pairs of heads for each diversity."""
    faces: int = 100
    """Heads for each decoupling."""
    variants: int = 100
    """Further heads that share a factor with each of them."""
    specimens: int = 1000
    """Heads for the specificity."""
    seed: int = 0
    """Of the draws."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        for name in ("pairs", "faces", "variants", "specimens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give at least 0")


def decoupling_figures(
    population: Population,
    training: Float[np.ndarray, "r v 3"] | None,
    verifiers: Mapping[str, Verifier],
    *,
    vertices: Int[np.ndarray, " p"],
    config: DecouplingConfig,
) -> dict[str, Estimate]:
    """The figures of one population.

    Diversity is the mean vertex distance of two heads, mm of an average adult: of any two ("diversity"), and of two
    that share a factor ("diversity, same identity"). Decoupling is the share of heads, in percent, that pass for the
    same person as one whose code of the identity they share, and likewise of expressions. Specificity is the mean
    vertex distance to the nearest training head, mm.

    Intervals are over pairs, over the heads that others share a factor with, and over samples. The pairs of a model are
    drawn independently; of given heads, which are few, they are not, and the interval is too narrow.

    Args:
        population: whose heads.
        training: all training heads, canonical units; None for the training heads themselves, which have no
            specificity.
        verifiers: by factor.
        vertices: that count, such as those of the face.
        config: how many heads are drawn.

    Raises:
        InputError: a setting is out of range.
    """
    config.validate()
    rng = np.random.default_rng(config.seed)
    figures = {}
    for factor in (None, *population.factors):
        distances = [
            np.linalg.norm(pair[:, 0] - pair[:, 1], axis=-1).mean(-1)
            for pair in _draws(population, factor, config.pairs, 2, vertices, rng)
        ]
        name = "diversity" if factor is None else f"diversity, same {factor}"
        figures[name] = estimate_mean(np.concatenate(distances) * UNIT_MM)
    for factor, verifier in verifiers.items():
        if factor in population.factors:
            shares = [
                verifier.same(group)
                for group in _draws(population, factor, config.faces, config.variants + 1, vertices, rng)
            ]
            figures[f"same {factor}, %"] = estimate_mean(100 * np.concatenate(shares))
    if training is not None:
        near = np.ascontiguousarray(training[:, vertices])
        samples = _draws(population, None, config.specimens, 1, vertices, rng)
        figures["specificity"] = estimate_mean(
            UNIT_MM * np.array([nearest_distance(head, near) for chunk in samples for head in chunk[:, 0]])
        )
    return figures


def nearest_distance(head: Float[np.ndarray, "v 3"], others: Float[np.ndarray, "r v 3"]) -> float:
    """Mean vertex distance to the nearest of other heads.

    A few vertices choose the heads that are compared in full; the nearest by all vertices is all but surely among the
    `CANDIDATES` nearest by these.
    """
    some = np.linspace(0, len(head) - 1, min(GLANCE, len(head))).astype(int)
    glance = np.linalg.norm(others[:, some] - head[some], axis=-1).mean(-1)
    likely = np.argsort(glance)[:CANDIDATES]
    return float(np.linalg.norm(others[likely] - head, axis=-1).mean(-1).min())


def decoupling_table(figures: Mapping[str, Mapping[str, Estimate]]) -> str:
    """A Markdown table of populations by name; a figure that one has not is left open."""
    columns = list(dict.fromkeys(name for each in figures.values() for name in each))
    rows = [
        [name, *(plus_minus(each[column], digits=2) if column in each else "–" for column in columns)]
        for name, each in figures.items()
    ]
    return markdown_table(["heads", *columns], rows)


def _draws(
    population: Population,
    factor: str | None,
    groups: int,
    size: int,
    vertices: Int[np.ndarray, " p"],
    rng: np.random.Generator,
) -> Iterator[Float[np.ndarray, "g s p 3"]]:
    """Groups of heads, some at a time."""
    step = max(AT_ONCE // size, 1)
    for start in range(0, groups, step):
        yield population.draw(factor, min(step, groups - start), size, rng)[:, :, vertices]
