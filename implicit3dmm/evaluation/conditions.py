"""What a method is shown of a head: which part of its surface, how many points, how much noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.metrics import nearest_corners
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.geometry.visibility import visible_from
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.template import FACE_REGIONS, HeadTemplate

EYE = (0.0, 0.1, 5.6)
"""The frontal camera, canonical units: straight ahead, a metre before the nose of the average adult."""

EARS_PLANE = 0.05
"""z of the plane through the ears, canonical units, behind which the front half ends."""

HOLES = 6
HOLE_MM = 30.0
"""Radius of a hole, mm of the average adult."""

WIDER = 4
"""Where too few samples are in view, so many times as many are drawn again."""


@dataclass(frozen=True, eq=False)
class HeadSamples:
    """Samples of a head's surface, of which a view keeps some.

    Attributes:
        points: on the skin (the neck's cap left out), canonical units.
        vertex: the vertex that each is nearest to, of its triangle's corners.
        mesh: the exact closed head, canonical units.
        template: what is known of its vertices.
        rng: source of what a view draws.
    """

    points: Float[np.ndarray, "n 3"]
    vertex: Int[np.ndarray, " n"]
    mesh: Mesh
    template: HeadTemplate
    rng: np.random.Generator

    def in_regions(self, *names: str) -> Bool[np.ndarray, " n"]:
        """Which samples lie in one of these regions."""
        return self.template.in_regions(*names)[self.vertex]


View = Callable[[HeadSamples], Bool[np.ndarray, " n"]]
"""Marks the samples that are shown."""


def holes(samples: HeadSamples) -> Bool[np.ndarray, " n"]:
    """All but `HOLES` balls around random places of the surface."""
    centres = samples.points[samples.rng.choice(len(samples.points), HOLES)]
    squared = np.square(samples.points[:, None] - centres).sum(axis=2)
    return (squared > (HOLE_MM / UNIT_MM) ** 2).all(axis=1)


VIEWS: Mapping[str, View] = {
    "whole": lambda samples: np.ones(len(samples.points), bool),
    "frontal": lambda samples: visible_from(samples.points, samples.mesh, np.array(EYE)),
    "front half": lambda samples: samples.points[:, 2] > EARS_PLANE,
    "left half": lambda samples: samples.points[:, 0] > 0,
    "face": lambda samples: samples.in_regions(*FACE_REGIONS),
    "no cranium": lambda samples: ~samples.in_regions("cranium"),
    "no ears": lambda samples: ~samples.in_regions("ear_L", "ear_R"),
    "holes": holes,
}
"""Parts of a head that a scan may show. "whole" is the skin, down to the cut of the neck; "frontal" what one camera
sees that looks at the face from `EYE`; the halves are the subject's front, before the ears, and left."""


@dataclass(frozen=True)
class Condition:
    """One way of showing a head to a method."""

    view: str = "whole"
    """A key of `VIEWS`."""
    points: int = 10000
    """Points that are given."""
    noise_mm: float = 0.0
    """Standard deviation of the normal noise that is added to each coordinate of each point, the subject's mm."""

    @property
    def name(self) -> str:
        """All that decides on the points, in words."""
        return f"{self.view}, {self.points} points, {self.noise_mm:g} mm"

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if self.view not in VIEWS:
            raise InputError(f"no view {self.view!r}; there are {', '.join(VIEWS)}")
        if self.points < 1:
            raise InputError(f"points is {self.points}; give at least 1")
        if not 0 <= self.noise_mm < np.inf:
            raise InputError(f"noise is {self.noise_mm} mm; give 0 or more")

    def sample(
        self, mesh: Mesh, template: HeadTemplate, *, mm_per_unit: float, rng: np.random.Generator
    ) -> Float[np.ndarray, "n 3"]:
        """Draws the points, canonical units, in no order.

        Args:
            mesh: the exact head, canonical units.
            template: of its topology.
            mm_per_unit: the subject's millimetres in a canonical unit.
            rng: source of the draws.
        """
        # No scan shows the cap: it is where the head was cut off.
        skin = Mesh(mesh.vertices, mesh.faces[~template.cap])
        count, shown = self.points, np.empty((0, 3))
        while len(shown) < self.points:
            surface = sample_surface(skin, count, rng=rng)
            corners = nearest_corners(skin, surface.faces, surface.points)
            samples = HeadSamples(surface.points, corners, mesh, template, rng)
            shown = surface.points[VIEWS[self.view](samples)]
            count *= WIDER
        shown = rng.permutation(shown)[: self.points]
        return shown + rng.normal(size=shown.shape) * (self.noise_mm / mm_per_unit) if self.noise_mm else shown
