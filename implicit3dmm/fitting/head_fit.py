"""What a fit gives."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.average_head import template
from implicit3dmm.fitting.evidence import Evidence
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.latents import Codes


@dataclass(frozen=True, eq=False)
class HeadFit:
    """A head fitted to a scan."""

    codes: Codes
    """Latent codes of the model."""
    similarity: Similarity
    """From the scan's frame to the canonical frame."""
    mesh: Mesh
    """The fitted head, watertight, in the scan's own frame and unit, with the scan's colours where it has any."""
    scan: Mesh
    """The scan as it was used (thinned where it was larger)."""
    distance_mm: Float[np.ndarray, " n"]
    """Distance of each vertex of `scan` to the fitted surface, mm."""
    evidence: Evidence
    """What each vertex of `mesh` rests on: the nearest place of the scan that the fit explained."""
    registered: Float[np.ndarray, "v 3"]
    """Where the built-in head's vertices lie on the fitted surface, in its order, in the scan's own frame and unit."""
    is_head: bool
    """Whether the scan is a head; where it is none, codes, mesh and landmarks mean nothing."""
    report: dict[str, Any]
    """All that is said of the fit; see docs/fit.md."""

    @property
    def landmarks(self) -> Float[np.ndarray, "68 3"]:
        """The 68 iBUG landmarks on the fitted surface, in the scan's own frame and unit."""
        return self.registered[template().landmarks]

    @property
    def registered_mesh(self) -> Mesh:
        """The fitted head in the built-in head's own topology, in the scan's own frame and unit."""
        return Mesh(self.registered, template().triangles)

    @property
    def evidence_mm(self) -> Float[np.ndarray, " v"]:
        """Distance of each vertex of `mesh` to its evidence, mm; infinite where there is none."""
        return self.evidence.distance_mm

    @property
    def confidence(self) -> Float[np.ndarray, " v"]:
        """1 where a vertex of `mesh` has evidence, falling towards 0 with the distance from it; one half at 10 mm."""
        return self.evidence.confidence
