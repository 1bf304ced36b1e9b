"""A corpus as a recipe: a few lines from which anyone makes the same heads again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.sources import (
    HeadSource,
    Subject,
    expression_weights,
    open_source,
    random_expression,
    source_names,
    subject_similarity,
)
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.frame import UNIT_MM

SPLITS = ("train", "validation", "test")

DETAIL_WAVELENGTHS_MM = (6.0, 24.0)
"""Band of the optional surface detail: shorter waves than the mesh's edges would be noise, longer ones are shape."""
DETAIL_WAVES = 96
DETAIL_STREAM = 3

RANDOM = "random_"
"""What the names of random expressions start with."""

SUBJECTS_AT_ONCE = 16
"""Subjects blended in one matrix product."""


@dataclass(frozen=True)
class Recipe:
    """What a corpus is made of; equal recipes give equal corpora within one quantum."""

    source: str = "makehuman"
    """Head source."""
    seed: int = 0
    """Seed of everything drawn; subject i depends on the seed and on i alone, not on the counts."""
    train: int = 64
    """Training subjects."""
    validation: int = 0
    """Validation subjects, drawn after the training ones."""
    test: int = 0
    """Test subjects, drawn after the validation ones."""
    expressions: tuple[str, ...] = ("neutral",)
    """Expressions of each subject; those other than neutral get a random gain and asymmetry."""
    random_expressions: int = 0
    """Further expressions of each subject, each a random combination of a few units of the source."""
    detail_mm: float = 0.0
    """Root mean square height of band-limited detail along the normals, mm; 0 is the plain source."""
    moving_share: float = 0.0
    """Share of the samples that lie where expressions move the head: one half in proportion to what the head's own
    expression moves, the other to what any of them does. The others are even by area."""
    surface_points: int = 24576
    """Surface samples of each head."""
    distance_points: int = 24576
    """Signed-distance samples of each head."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if self.source not in source_names():
            raise InputError(f"source: no head source {self.source!r}; there are {', '.join(source_names())}")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give at least 0")
        if min(self.train, self.validation, self.test) < 0 or self.subjects == 0:
            raise InputError("train, validation, test: give counts of at least 0 that are not all 0")
        if min(self.surface_points, self.distance_points) < 1:
            raise InputError("surface_points and distance_points must be at least 1")
        if self.random_expressions < 0:
            raise InputError(f"random_expressions is {self.random_expressions}; give at least 0")
        if self.random_expressions and not open_source(self.source).combined_units:
            raise InputError(
                f"random_expressions is {self.random_expressions}, but {self.source} has no units to combine; give 0"
            )
        if not 0 <= self.detail_mm <= 3:
            raise InputError(f"detail_mm is {self.detail_mm}; give 0 to 3 mm")
        if not 0 <= self.moving_share <= 1 or (self.moving_share and not self.moves):
            raise InputError(f"moving_share is {self.moving_share}; give 0 to 1, and 0 where all heads are neutral")
        known = open_source(self.source).expressions
        unknown = [name for name in self.expressions if name not in known]
        if unknown or not self.expressions:
            raise InputError(f"expressions: {unknown or 'none'} given; {self.source} has {', '.join(known)}")

    @property
    def subjects(self) -> int:
        """Number of subjects in all."""
        return self.train + self.validation + self.test

    @property
    def record_names(self) -> tuple[str, ...]:
        """Name of the expression of each of a subject's records."""
        return self.expressions + tuple(f"{RANDOM}{number + 1}" for number in range(self.random_expressions))

    @property
    def moves(self) -> bool:
        """Whether any record is not neutral."""
        return any(name != "neutral" for name in self.record_names)

    def split_of(self, subject: int) -> str:
        """Name of the split that a subject belongs to."""
        return SPLITS[np.searchsorted(np.cumsum([self.train, self.validation]), subject, side="right")]


class Head(NamedTuple):
    """One record: a subject under one expression."""

    subject: int
    expression: str
    units: Float[np.ndarray, " u"]
    """Weights of the source's expression units."""
    person: Subject
    similarity: Similarity
    """From the subject's own millimetres to the canonical frame."""
    vertices: Float[np.ndarray, "v 3"]
    """Canonical units."""
    neutral: Float[np.ndarray, "v 3"]
    """The same vertices of the same person without an expression."""


def generate(recipe: Recipe, subjects: Sequence[int] | None = None) -> Iterator[Head]:
    """Makes the heads of a recipe: all expressions of one subject, then of the next.

    Args:
        recipe: which heads.
        subjects: the subjects wanted; all by default.
    """
    source = open_source(recipe.source)
    wanted = range(recipe.subjects) if subjects is None else subjects
    for start in range(0, len(wanted), SUBJECTS_AT_ONCE):
        yield from _generate_block(source, recipe, wanted[start : start + SUBJECTS_AT_ONCE])


@cache
def movement(recipe: Recipe) -> Float[np.ndarray, " v"]:
    """How much the recipe's expressions move each vertex of its first subject, every expression counting alike."""
    moved = [np.linalg.norm(head.vertices - head.neutral, axis=1) for head in generate(recipe, (0,))]
    return np.mean([distance / distance.mean() for distance in moved if distance.any()], axis=0)


def _generate_block(source: HeadSource, recipe: Recipe, subjects: Sequence[int]) -> Iterator[Head]:
    rngs = [np.random.default_rng([recipe.seed, number]) for number in subjects]
    people = [source.sample_subject(rng) for rng in rngs]
    coefficients = np.stack([person.coefficients for person in people])
    neutral = source.vertices(coefficients).astype(np.float64)
    units = {name: np.stack([_performed(source, name, rng) for rng in rngs]) for name in recipe.record_names}
    posed = {
        name: neutral if name == "neutral" else source.vertices(coefficients, weights).astype(np.float64)
        for name, weights in units.items()
    }
    for i, (number, person) in enumerate(zip(subjects, people, strict=True)):
        similarity = subject_similarity(source, neutral[i])
        # A stream of its own: the relief is the person's, whatever expressions the recipe asks for.
        skin = np.random.default_rng([recipe.seed, number, 0, DETAIL_STREAM])
        relief = detail(source.template.vertices, recipe.detail_mm, skin)[:, None] if recipe.detail_mm else None
        at_rest = similarity.apply(_with_relief(neutral[i], relief, source))
        for name in recipe.record_names:
            moved = at_rest if name == "neutral" else similarity.apply(_with_relief(posed[name][i], relief, source))
            yield Head(number, name, units[name][i], person, similarity, moved, at_rest)


def _performed(source: HeadSource, name: str, rng: np.random.Generator) -> Float[np.ndarray, " u"]:
    if name.startswith(RANDOM):
        return random_expression(source, rng)
    return expression_weights(source, name, None if name == "neutral" else rng)


def _with_relief(
    vertices: Float[np.ndarray, "v 3"], relief: Float[np.ndarray, "v 1"] | None, source: HeadSource
) -> Float[np.ndarray, "v 3"]:
    if relief is None:
        return vertices
    return vertices + relief * Mesh(vertices, source.template.triangles).vertex_normals()


def detail(places: Float[np.ndarray, "v 3"], rms_mm: float, rng: np.random.Generator) -> Float[np.ndarray, " v"]:
    """Heights in mm of random band-limited relief at places in the canonical frame.

    A sum of plane waves with wavelengths spread over `DETAIL_WAVELENGTHS_MM`; it belongs to the anatomical place, so
    a subject's expressions carry the same relief.
    """
    directions = rng.normal(size=(DETAIL_WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    low, high = np.log(DETAIL_WAVELENGTHS_MM)
    wavelength = np.exp(rng.uniform(low, high, DETAIL_WAVES)) / UNIT_MM
    phase = rng.uniform(0, 2 * np.pi, DETAIL_WAVES)
    waves = np.cos(2 * np.pi * places @ (directions / wavelength[:, None]).T + phase)
    return rms_mm * np.sqrt(2 / DETAIL_WAVES) * waves.sum(1)
