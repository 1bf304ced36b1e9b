"""A corpus as a recipe: a few lines from which anyone makes the same heads again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.sources import (
    HeadSource,
    Subject,
    expression_weights,
    open_source,
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
    detail_mm: float = 0.0
    """Root mean square height of band-limited detail along the normals, mm; 0 is the plain source."""
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
        if not 0 <= self.detail_mm <= 3:
            raise InputError(f"detail_mm is {self.detail_mm}; give 0 to 3 mm")
        known = open_source(self.source).expressions
        unknown = [name for name in self.expressions if name not in known]
        if unknown or not self.expressions:
            raise InputError(f"expressions: {unknown or 'none'} given; {self.source} has {', '.join(known)}")

    @property
    def subjects(self) -> int:
        """Number of subjects in all."""
        return self.train + self.validation + self.test

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


def _generate_block(source: HeadSource, recipe: Recipe, subjects: Sequence[int]) -> Iterator[Head]:
    rngs = [np.random.default_rng([recipe.seed, number]) for number in subjects]
    people = [source.sample_subject(rng) for rng in rngs]
    coefficients = np.stack([person.coefficients for person in people])
    neutral = source.vertices(coefficients).astype(np.float64)
    units = {
        name: np.stack([expression_weights(source, name, None if name == "neutral" else rng) for rng in rngs])
        for name in recipe.expressions
    }
    posed = {
        name: neutral if name == "neutral" else source.vertices(coefficients, weights).astype(np.float64)
        for name, weights in units.items()
    }
    for i, (number, person) in enumerate(zip(subjects, people, strict=True)):
        similarity = subject_similarity(source, neutral[i])
        # A stream of its own: the relief is the person's, whatever expressions the recipe asks for.
        skin = np.random.default_rng([recipe.seed, number, 0, DETAIL_STREAM])
        relief = detail(source.template.vertices, recipe.detail_mm, skin)[:, None] if recipe.detail_mm else None
        for name in recipe.expressions:
            vertices = posed[name][i]
            if relief is not None:
                vertices = vertices + relief * Mesh(vertices, source.template.triangles).vertex_normals()
            yield Head(number, name, units[name][i], person, similarity, similarity.apply(vertices))


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
