"""A corpus as a recipe: a few lines from which anyone makes the same heads again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.composites import Donors, composite, draw_donors
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
from implicit3dmm.heads.template import ALL_PARTS

SPLITS = ("train", "validation", "test")

DETAIL_WAVELENGTHS_MM = (6.0, 24.0)
"""Band of the optional surface detail: shorter waves than the mesh's edges would be noise, longer ones are shape."""
DETAIL_WAVES = 96
DETAIL_STREAM = 3
SWAP_STREAM = 4

RANDOM = "random_"
"""What the names of random expressions start with."""

SWAP = "swap_"
"""What the names of composite heads start with."""

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
    swaps: int = 0
    """Composites of each subject: its neutral head with nose, eyes and mouth of other subjects of its split."""
    swap_donors: Donors = "independent"
    """One other subject gives all three parts of a composite (Gu and Pears), or each part has a donor of its own."""
    blended_seams: bool = True
    """Whether grafted parts are bent at their rims until no seam is left; else they are placed by the affine map alone
    (Gu and Pears)."""
    part_share: float = 0.0
    """Share of the samples that lie on nose, eyes and mouth, each of which gets a third of them."""
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
        if self.swaps < 0:
            raise InputError(f"swaps is {self.swaps}; give at least 0")
        if self.swaps and any(0 < count < 2 for count in (self.train, self.validation, self.test)):
            raise InputError("swaps needs other subjects: give train, validation and test at least 2 each, or 0")
        if not 0 <= self.detail_mm <= 3:
            raise InputError(f"detail_mm is {self.detail_mm}; give 0 to 3 mm")
        if not 0 <= self.moving_share <= 1 or (self.moving_share and not self.moves):
            raise InputError(f"moving_share is {self.moving_share}; give 0 to 1, and 0 where all heads are neutral")
        if not 0 <= self.part_share <= 1 - self.moving_share:
            raise InputError(f"part_share is {self.part_share}; give 0 to 1 - moving_share")
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
        drawn = ((RANDOM, self.random_expressions), (SWAP, self.swaps))
        return self.expressions + tuple(f"{stem}{number + 1}" for stem, count in drawn for number in range(count))

    @property
    def whole(self) -> tuple[bool, ...]:
        """Whether each of a subject's records shows that subject alone, and is no composite."""
        return tuple(not name.startswith(SWAP) for name in self.record_names)

    @property
    def moves(self) -> bool:
        """Whether any record is not neutral."""
        return self.random_expressions > 0 or any(name != "neutral" for name in self.expressions)

    def subjects_of(self, split: str) -> range:
        """Numbers of the subjects of a split."""
        counts = (self.train, self.validation, self.test)
        start = sum(counts[: SPLITS.index(split)])
        return range(start, start + counts[SPLITS.index(split)])

    def donors(self, subject: int, name: str) -> Mapping[str, int]:
        """The subject that each part of a record is of, by the name of the record's expression."""
        if not name.startswith(SWAP):
            return dict.fromkeys(ALL_PARTS, subject)
        rng = np.random.default_rng([self.seed, subject, int(name.removeprefix(SWAP)), SWAP_STREAM])
        return draw_donors(subject, self.subjects_of(self.split_of(subject)), self.swap_donors, rng)

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
    donors: Mapping[str, int]
    """Number of the subject that each part is of; of all parts the same but for composites."""


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
    whole = [name for name in recipe.record_names if not name.startswith(SWAP)]
    block = _Block.of(source, recipe, subjects)
    units = {name: np.stack([_performed(source, name, rng) for rng in block.rngs]) for name in whole}
    posed = {
        name: source.vertices(block.coefficients, weights).astype(np.float64)
        for name, weights in units.items()
        if name != "neutral"
    }
    still = np.zeros(len(source.unit_names), np.float32)
    for i, number in enumerate(subjects):
        about, similarity, at_rest = block.people[i], block.similarities[i], block.at_rest[i]
        for name in recipe.record_names:
            donors = recipe.donors(number, name)
            if name.startswith(SWAP):
                mixed = _composite(source, recipe, number, at_rest, donors)
                yield Head(number, name, still, about, similarity, mixed, mixed, donors)
            else:
                moved = block.placed(i, posed[name][i]) if name in posed else at_rest
                yield Head(number, name, units[name][i], about, similarity, moved, at_rest, donors)


class _Block(NamedTuple):
    """Some subjects at rest."""

    source: HeadSource
    rngs: list[np.random.Generator]
    """Of each subject, after its identity was drawn."""
    people: list[Subject]
    coefficients: Float[np.ndarray, "b c"]
    similarities: list[Similarity]
    reliefs: list[Float[np.ndarray, "v 1"] | None]
    at_rest: list[Float[np.ndarray, "v 3"]]
    """Canonical units."""

    @classmethod
    def of(cls, source: HeadSource, recipe: Recipe, subjects: Sequence[int]) -> "_Block":
        rngs = [np.random.default_rng([recipe.seed, number]) for number in subjects]
        people = [source.sample_subject(rng) for rng in rngs]
        coefficients = np.stack([person.coefficients for person in people])
        neutral = source.vertices(coefficients).astype(np.float64)
        similarities = [subject_similarity(source, vertices) for vertices in neutral]
        reliefs = [_relief(source, recipe, number) for number in subjects]
        block = cls(source, rngs, people, coefficients, similarities, reliefs, [])
        block.at_rest.extend(block.placed(i, vertices) for i, vertices in enumerate(neutral))
        return block

    def placed(self, i: int, vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
        """Subject i's own millimetres, with its relief, in the canonical frame."""
        relief = self.reliefs[i]
        if relief is not None:
            vertices = vertices + relief * Mesh(vertices, self.source.template.triangles).vertex_normals()
        return self.similarities[i].apply(vertices)


def _relief(source: HeadSource, recipe: Recipe, subject: int) -> Float[np.ndarray, "v 1"] | None:
    if not recipe.detail_mm:
        return None
    # A stream of its own: the relief is the person's, whatever expressions the recipe asks for.
    skin = np.random.default_rng([recipe.seed, subject, 0, DETAIL_STREAM])
    return detail(source.template.vertices, recipe.detail_mm, skin)[:, None]


def _composite(
    source: HeadSource, recipe: Recipe, host: int, at_rest: Float[np.ndarray, "v 3"], donors: Mapping[str, int]
) -> Float[np.ndarray, "v 3"]:
    others = sorted({number for number in donors.values() if number != host})
    heads = dict(zip(others, _Block.of(source, recipe, others).at_rest if others else [], strict=True))
    return composite(source, heads | {host: at_rest}, donors, blended=recipe.blended_seams)


def _performed(source: HeadSource, name: str, rng: np.random.Generator) -> Float[np.ndarray, " u"]:
    if name.startswith(RANDOM):
        return random_expression(source, rng)
    return expression_weights(source, name, None if name == "neutral" else rng)


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
