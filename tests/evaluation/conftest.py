"""Methods whose results are known, for tests of the protocols."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from implicit3dmm.evaluation.methods import MethodInfo
from implicit3dmm.geometry.mesh import Mesh


@dataclass(frozen=True)
class Fitted:
    mesh: Mesh


@dataclass(frozen=True, eq=False)
class Known:
    """A method that does what a test says; its samples are copies of the mean head, blown up."""

    mean_head: Mesh
    fit_points: Callable[[np.ndarray], Mesh]
    name: str = "known"
    latent_size: int = 3
    info: MethodInfo = field(
        default_factory=lambda: MethodInfo("6 makehuman", 1_500_000, 60.0, 100.0, "0.0 mm, as published")
    )
    version: int = 0

    @property
    def settings(self):
        return {"model": self.name, "version": self.version}

    def fit(self, points):
        return Fitted(self.fit_points(points))

    def sample(self, count, *, temperature, rng):
        for size in rng.normal(size=count):
            grown = 0.01 * temperature * abs(size) * self.mean_head.vertex_normals()
            yield Mesh(self.mean_head.vertices + grown, self.mean_head.faces)


@pytest.fixture
def method(tiny_corpus) -> Callable[..., Known]:
    """Makes a method from what its fit does with points."""
    return lambda fit_points, **more: Known(tiny_corpus.source.template.mesh, fit_points, **more)


@pytest.fixture
def oracle(tiny_corpus):
    """Makes a fit that knows the pose and head behind the points of some conditions, and inflates the head."""
    from implicit3dmm.evaluation.cases import Case

    def make(held_out, conditions, *, inflate_mm=0.0):
        scans = [
            (case, case.scan(condition))
            for case in (Case.of(tiny_corpus, record, held_out) for record in held_out.records(tiny_corpus))
            for condition in conditions
        ]

        def fit(points):
            case, scan = next((case, scan) for case, scan in scans if np.array_equal(scan.points, points))
            truth = case.truth
            inflated = Mesh(truth.vertices + inflate_mm * truth.vertex_normals(), truth.faces)
            return inflated.transformed(scan.placement)

        return fit

    return make
