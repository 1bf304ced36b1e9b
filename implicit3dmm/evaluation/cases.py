"""One held-out head: what methods are shown of it, and the truth that they are held against."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.recipe import Head
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.metrics import SAMPLES, SampledTruth
from implicit3dmm.evaluation.regions import head_parts
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.template import HeadTemplate

SCAN_UNITS = (1e-3, 10.0)
"""Range of a scan's units in one millimetre, from metres to tenths of a millimetre, even in magnitude."""

SCAN_OFFSET_MM = 1000.0
"""A scan's origin lies up to so far from the subject's along each axis."""

STREAM = 2
"""Last word of the protocol's seeds; a corpus ends its own otherwise, so it never draws the same points."""

PartFigures = dict[str, dict[str, float | int]]


@dataclass(frozen=True)
class HeldOut:
    """Which heads are taken, and how they are measured."""

    split: Literal["train", "validation", "test"] = "test"
    """Split of the corpus whose heads are taken."""
    heads: int | None = None
    """Only so many heads, the first of the split; all by default."""
    samples: int = SAMPLES
    """Samples on each surface that the figures are taken from."""
    seed: int = 0
    """Seed of points, poses and samples."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        for name in ("heads", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; give at least 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give at least 0")

    def records(self, heads: Heads) -> list[int]:
        """Numbers of the records that are taken.

        Raises:
            InputError: the split is empty.
        """
        records = heads.records(self.split)[: self.heads].tolist()
        if not records:
            raise InputError(f"{heads.name} has no {self.split} heads; choose another split or corpus")
        return records


@dataclass(frozen=True, eq=False)
class Scan:
    """A simulated scan.

    Attributes:
        points: on the exact surface (but for the noise), in no order; in the scan's frame and unit.
        placement: from the subject's millimetres to the scan's frame.
    """

    points: Float[np.ndarray, "n 3"]
    placement: Similarity


@dataclass(frozen=True, eq=False)
class Case:
    """One head of an evaluation.

    Attributes:
        record: its number among the heads.
        head: the head itself.
        template: of its topology.
        held_out: seed and samples.
    """

    record: int
    head: Head
    template: HeadTemplate
    held_out: HeldOut

    @classmethod
    def of(cls, heads: Heads, record: int, held_out: HeldOut) -> "Case":
        """Makes the head of one record."""
        return cls(record, heads.head(record), heads.source.template, held_out)

    @cached_property
    def truth(self) -> Mesh:
        """The exact mesh, in the subject's millimetres."""
        return Mesh(self.head.vertices, self.template.triangles).transformed(self.head.similarity.inverse())

    @property
    def truth_at_rest(self) -> Mesh:
        """The exact mesh without the expression."""
        return Mesh(self.head.neutral, self.template.triangles).transformed(self.head.similarity.inverse())

    def scan(self, condition: Condition) -> Scan:
        """What a method is shown; equal seeds give equal scans, and one pose and unit under all conditions."""
        rng = self.rng(0)
        placement = _random_placement(rng)
        points = condition.sample(
            Mesh(self.head.vertices, self.template.triangles),
            self.template,
            mm_per_unit=1 / self.head.similarity.scale,
            rng=rng,
        )
        return Scan(placement.compose(self.head.similarity.inverse()).apply(points), placement)

    def judge(self, mesh: Mesh) -> PartFigures:
        """Figures of each part of the head, from samples of the truth that are the same for every mesh.

        Args:
            mesh: in the subject's millimetres.

        Raises:
            InputError: the mesh is no surface.
        """
        comparison = self._sampled_truth.compare(mesh, rng=self.rng(2))
        return {name: comparison.metrics(mask) for name, mask in self._parts.items()}

    @cached_property
    def _sampled_truth(self) -> SampledTruth:
        return SampledTruth(self.truth, mm_per_unit=1.0, rng=self.rng(1), samples=self.held_out.samples)

    @cached_property
    def _parts(self) -> Mapping[str, Bool[np.ndarray, " v"]]:
        return head_parts(self.template)

    def rng(self, purpose: int) -> np.random.Generator:
        """Source of what is drawn for one purpose: 0 the scan, 1 samples of the truth, 2 those of a prediction."""
        return np.random.default_rng([self.held_out.seed, self.record, purpose, STREAM])


def _random_placement(rng: np.random.Generator) -> Similarity:
    """Any rotation, evenly; any unit between the usual ones; any place within a metre or so."""
    scale = np.exp(rng.uniform(*np.log(SCAN_UNITS)))
    rotation = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    return Similarity(scale, rotation, scale * rng.uniform(-SCAN_OFFSET_MM, SCAN_OFFSET_MM, 3))
