"""Whether a scan shows a head at all.

A model of heads fits anything somehow. Three signs tell when it should not have: what it leaves of the scan is shared
by neighbouring points, as noise is not; it had to bend to a shape that no head has; the scan fits nearly as well in
another orientation. Each is put in a unit at which it alone is a doubt, and they add up as squares do.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.average_head import near_neck, on_head
from implicit3dmm.geometry.alignment import Alignment
from implicit3dmm.geometry.distance import distance_to_surface, winding_number
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours

NEIGHBOURS = 16
"""Scan points whose distances are averaged, so that noise is not taken for shape."""
FURTHEST_MM = 20.0
"""Distances count up to this."""

DOUBTFUL_RESIDUAL_MM = 2.0
DOUBTFUL_SHAPE = 2.0
"""Root mean square of the coefficients of the registered template, standard deviations; about 1 for a head."""
CLEAR_ORIENTATION, DOUBTFUL_ORIENTATION = 0.85, 0.1
"""The score of the best other orientation, relative to the chosen one, is no sign up to the first; then in units of the
second."""
MOST_DOUBT = 1.25
"""Heads of all kinds stayed below 1.1, and what is no head was at 1.4 or above; see docs/fit.md."""

_REASONS = {
    "residual": "the model cannot follow the scan: {residual_mm:.1f} mm remain where noise would average out",
    "shape": "the fit is a shape that no head has: {shape:.1f} standard deviations from the average; heads have 1",
    "orientation": "the scan fits nearly as well in another orientation: {orientation:.0%} of the best one's score",
}


@dataclass(frozen=True)
class Verdict:
    """Whether a scan is a head, and the signs that say so."""

    residual_mm: float
    """Median distance of the scan to the fit, averaged over neighbours."""
    shape: float
    """How far the fitted shape is from the average head, standard deviations per component."""
    orientation: float
    """Score of the best other orientation over that of the chosen one; 0 where the pose was given."""

    @property
    def signs(self) -> dict[str, float]:
        """Each sign in the unit at which it alone is a doubt."""
        return {
            "residual": self.residual_mm / DOUBTFUL_RESIDUAL_MM,
            "shape": self.shape / DOUBTFUL_SHAPE,
            "orientation": max(self.orientation - CLEAR_ORIENTATION, 0.0) / DOUBTFUL_ORIENTATION,
        }

    @property
    def doubt(self) -> float:
        """Root of the sum of the squared signs."""
        return float(np.linalg.norm(list(self.signs.values())))

    @property
    def is_head(self) -> bool:
        """Whether the doubt is no larger than that of heads."""
        return self.doubt <= MOST_DOUBT

    @property
    def reason(self) -> str:
        """The strongest sign in words."""
        return _REASONS[max(self.signs, key=self.signs.get)].format(
            residual_mm=self.residual_mm, shape=self.shape, orientation=self.orientation
        )


def judge(
    points: Float[np.ndarray, "n 3"],
    surface: Mesh,
    coefficients: Float[np.ndarray, " c"],
    alignment: Alignment,
    *,
    mm_per_unit: float,
) -> Verdict:
    """Judges a fit.

    Args:
        points: of the scan, spread over its surface, canonical frame.
        surface: the fitted head, canonical frame.
        coefficients: of the template that was registered to it, standard deviations.
        alignment: where the search found the head.
        mm_per_unit: millimetres in a canonical unit.
    """
    searched = alignment.score > 0  # not-a-number where the pose was given
    return Verdict(
        residual_mm=_shared_residual(points[on_head(points) & ~near_neck(points)], surface, mm_per_unit),
        shape=float(np.sqrt(np.mean(np.square(coefficients)))),
        orientation=alignment.runner_up / alignment.score if searched else 0.0,
    )


def _shared_residual(points: Float[np.ndarray, "n 3"], surface: Mesh, mm_per_unit: float) -> float:
    """Median size of the mean signed distance of neighbouring points; neighbours are sought on the surface itself."""
    if not len(points):
        return FURTHEST_MM
    nearest = distance_to_surface(points, surface)
    signed = np.where(winding_number(points, surface) > 0.5, -1, 1) * nearest.distance * mm_per_unit
    _, around = NearestNeighbours(nearest.point).query(nearest.point, min(NEIGHBOURS, len(points)))
    means = signed.clip(-FURTHEST_MM, FURTHEST_MM)[around].reshape(len(points), -1).mean(axis=1)
    return float(np.median(np.abs(means)))
