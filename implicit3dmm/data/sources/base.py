"""What a source of heads is: identities to draw, expressions to put on them, one closed topology."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.frame import canonical_similarity
from implicit3dmm.heads.template import HeadTemplate


@dataclass(frozen=True)
class Subject:
    """One identity: coefficients of the source's linear basis, and what is known of the person."""

    coefficients: Float[np.ndarray, " c"]
    about: Mapping[str, float | str]
    """Such as years, sex and ancestry; the source says which."""


@runtime_checkable
class HeadSource(Protocol):
    """A family of heads with a shared closed topology."""

    name: str
    version: str
    licence: str
    template: HeadTemplate
    unit_names: Sequence[str]
    """The expression units that `vertices` takes weights for."""
    expressions: Mapping[str, Mapping[str, float]]
    """Named expressions as weights of units; holds "neutral"."""
    combined_units: Sequence[str]
    """The units that random expressions are made of."""

    def sample_subject(self, rng: np.random.Generator) -> Subject:
        """Draws one identity from the source's population."""
        ...

    def vertices(
        self, coefficients: Float[np.ndarray, "b c"], units: Float[np.ndarray, "b u"] | None = None
    ) -> Float[np.ndarray, "b v 3"]:
        """Vertices of heads in their own millimetres; without `units` they are neutral."""
        ...


def subject_similarity(source: HeadSource, neutral: Float[np.ndarray, "v 3"]) -> Similarity:
    """Similarity from a subject's own millimetres to the canonical frame, from its neutral vertices."""
    return canonical_similarity(neutral, source.template.rigid, source.template.reference)


def expression_weights(source: HeadSource, name: str, rng: np.random.Generator | None) -> Float[np.ndarray, " u"]:
    """Unit weights of the expression `name`.

    Args:
        source: whose units and expressions.
        name: a key of `source.expressions`.
        rng: where given, the expression gets a random gain in [0.7, 1.1] and its left and right units their own
            factor within 10 %, so that no two subjects perform it alike.

    Raises:
        InputError: the source has no expression of that name.
    """
    if name not in source.expressions:
        raise InputError(f"no expression {name!r} in {source.name}; it has {', '.join(source.expressions)}")
    gain = rng.uniform(0.7, 1.1) if rng else 1.0
    side = dict(zip(("Left", "Right"), rng.uniform(0.9, 1.1, 2), strict=True)) if rng else {}
    weights = np.zeros(len(source.unit_names), np.float32)
    for unit, weight in source.expressions[name].items():
        factor = next((value for suffix, value in side.items() if unit.endswith(suffix)), 1.0)
        weights[source.unit_names.index(unit)] = weight * gain * factor
    return weights


COMBINED = (2, 5)
"""Fewest and most units of a random expression, a left and a right one counted once."""
ONE_SIDED = 0.25
"""Share of the paired units of random expressions that move on one side alone."""
SIDEWAYS = ("jaw", "mouth")
"""Units whose Left and Right are opposite movements of the whole, not its two halves."""


def unit_groups(names: Sequence[str]) -> list[list[str]]:
    """The units one by one, the two sides of a movement together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        stem = name.removesuffix("Left").removesuffix("Right")
        paired = {f"{stem}Left", f"{stem}Right"} <= set(names) and stem not in SIDEWAYS
        groups.setdefault(stem if paired else name, []).append(name)
    return list(groups.values())


def random_expression(source: HeadSource, rng: np.random.Generator) -> Float[np.ndarray, " u"]:
    """Weights of a few units, drawn with magnitudes of 0.2 to 1; those of the two sides differ by up to 15 %."""
    groups = unit_groups(source.combined_units)
    weights = np.zeros(len(source.unit_names), np.float32)
    chosen = rng.choice(len(groups), int(rng.integers(COMBINED[0], COMBINED[1] + 1)), replace=False)
    for number in chosen:
        units = [source.unit_names.index(name) for name in groups[number]]
        strength = rng.uniform(0.2, 1.0)
        moving = [rng.choice(units)] if rng.random() < ONE_SIDED else units
        weights[moving] = strength * rng.uniform(0.85, 1.15, len(moving))
    return weights


SOURCES: dict[str, Callable[[], HeadSource]] = {}
"""Registered sources by name."""


def register_source(name: str) -> Callable[[Callable[[], HeadSource]], Callable[[], HeadSource]]:
    """Registers a class or function that opens the source `name`.

    A package of its own can register by an entry point in the group ``implicit3dmm.sources`` that names the module.
    """

    def register(opener: Callable[[], HeadSource]) -> Callable[[], HeadSource]:
        SOURCES[name] = opener
        return opener

    return register


def source_names() -> tuple[str, ...]:
    """Names of the registered sources, those of installed plug-ins included."""
    _load_plugins()
    return tuple(SOURCES)


@cache
def open_source(name: str) -> HeadSource:
    """Opens the source `name`; a second call gives the same object.

    Raises:
        InputError: there is no source of that name, or its files cannot be found.
    """
    if name not in source_names():
        raise InputError(f"no head source {name!r}; there are {', '.join(SOURCES)}")
    return SOURCES[name]()


@cache
def _load_plugins() -> None:
    from importlib.metadata import entry_points

    for point in entry_points(group="implicit3dmm.sources"):
        point.load()
