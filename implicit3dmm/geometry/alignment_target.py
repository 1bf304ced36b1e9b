"""The average head that raw scans are aligned to."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float

from implicit3dmm.geometry.pointcloud import OrientedCloud

# Importance of the face and the neck beside the rest of the head in the registration: the canonical frame is
# carried by the face, and the neck bends.
FACE_WEIGHT = 3.0
NECK_WEIGHT = 0.3
# Share of the face in the score; the neck has none.
FACE_SHARE = 0.75


@dataclasses.dataclass(frozen=True, eq=False)
class AlignmentTarget:
    """The average head that scans are aligned to, in the canonical frame (1 unit = 200 mm).

    Attributes:
        points: (m, 3) spread evenly over the surface, a few thousand; no cap at the neck.
        normals: (m, 3) unit normals.
        face: (m,) the points that tell front from back: nose, mouth, eyes, cheeks, chin, forehead.
        neck: (m,) the points below the head.
        hair: (m,) the points that hair or a cap may cover.
        modes: (k, m) how far the surface moves along its normal at each point for one standard deviation of
            each shape mode; (0, m) for a template that does not deform.
    """

    points: Float[np.ndarray, "m 3"]
    normals: Float[np.ndarray, "m 3"]
    face: Bool[np.ndarray, " m"]
    neck: Bool[np.ndarray, " m"]
    hair: Bool[np.ndarray, " m"]
    modes: Float[np.ndarray, "k m"]

    @classmethod
    def from_heads(
        cls,
        points: Float[np.ndarray, "m 3"],
        normals: Float[np.ndarray, "m 3"],
        displacements: Float[np.ndarray, "h m"],
        *,
        face: Bool[np.ndarray, " m"],
        neck: Bool[np.ndarray, " m"],
        hair: Bool[np.ndarray, " m"],
        modes: int = 60,
    ) -> AlignmentTarget:
        """Builds the target from a template and the heads that it stands for.

        Args:
            points: (m, 3) on the template.
            normals: (m, 3) of the template.
            displacements: (h, m) how far along the normal the surface of each canonical head lies: with
                corresponding vertices their difference times the normal, else minus its signed distance at
                the point. A few hundred heads.
            face: (m,) as in the class.
            neck: (m,) as in the class.
            hair: (m,) as in the class.
            modes: how many principal components are kept, at most h - 1.
        """
        mean = displacements.mean(axis=0)
        _, deviations, components = np.linalg.svd(displacements - mean, full_matrices=False)
        count = min(modes, len(displacements) - 1)
        scaled = components[:count] * (deviations[:count, None] / np.sqrt(max(len(displacements) - 1, 1)))
        return cls(points + mean[:, None] * normals, normals, face, neck, hair, scaled)

    @functools.cached_property
    def cloud(self) -> OrientedCloud:
        """The points with their grid of closest points."""
        return OrientedCloud(self.points, self.normals)

    @functools.cached_property
    def weights(self) -> Float[np.ndarray, " m"]:
        """Importance of the points for the registration."""
        return np.where(self.neck, NECK_WEIGHT, np.where(self.face, FACE_WEIGHT, 1.0))

    @functools.cached_property
    def bare_weights(self) -> Float[np.ndarray, " m"]:
        """The same where the points that hair may cover have none."""
        return np.where(self.hair, 0.0, self.weights)

    @functools.cached_property
    def score_weights(self) -> Float[np.ndarray, " m"]:
        """Importance of the points for the score; of sum 1."""
        rest = ~self.face & ~self.neck
        return FACE_SHARE * self.face / self.face.sum() + (1 - FACE_SHARE) * rest / rest.sum()

    def deformed(self, coefficients: Float[np.ndarray, " k"]) -> Float[np.ndarray, "m 3"]:
        """The points of the head with these coefficients of the first modes, in standard deviations."""
        return self.points + (coefficients @ self.modes[: len(coefficients)])[:, None] * self.normals
