"""What a fitted surface rests on: the nearest place of the scan that the fit explained, and the colour there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from implicit3dmm.geometry.distance import barycentric_weights, distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours

EXPLAINED_MM = 5.0
"""A scan point this near to the fitted surface was explained by it; one further away is hair, clothes or a stray."""
FADING_MM = 10.0
"""Distance from the evidence at which the confidence has fallen to a half; measured, see docs/fit.md."""
NEAR_MM = 5.0
"""What counts as evidence in the report's share."""
COLORED_MM = 10.0
"""Vertices further from the evidence than this get the median colour of the others."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """For each vertex of a fitted mesh the nearest explained place of the scan.

    Attributes:
        distance_mm: how far it is; infinite where the fit explained nothing of the scan.
        corners: the scan's vertices around it: those of its face, or the nearest points of a cloud.
        weights: their shares, of sum 1.
        faces: the face that it lies on; None for a cloud.
    """

    distance_mm: Float[np.ndarray, " v"]
    corners: Int[np.ndarray, "v k"]
    weights: Float[np.ndarray, "v k"]
    faces: Int[np.ndarray, " v"] | None

    @property
    def confidence(self) -> Float[np.ndarray, " v"]:
        """1 / (1 + (d / 10 mm)^2): 1 at the evidence, one half where the error has about doubled, towards 0 beyond."""
        return 1 / (1 + np.square(self.distance_mm / FADING_MM))


def find_evidence(mesh: Mesh, scan: Mesh, distance_mm: Float[np.ndarray, " n"], *, mm_per_unit: float) -> Evidence:
    """The nearest explained place of the scan for each vertex of a fitted mesh.

    Args:
        mesh: the fit.
        scan: the scan, in the same frame and unit.
        distance_mm: of each vertex of the scan to the fit.
        mm_per_unit: millimetres in that unit.
    """
    explained = distance_mm <= EXPLAINED_MM
    if scan.faces is not None and (whole := explained[scan.faces].all(axis=1)).any():
        return _on_faces(mesh, scan, whole, mm_per_unit)
    if explained.any():
        return _among_points(mesh, scan, explained, mm_per_unit)
    count = len(mesh.vertices)
    return Evidence(np.full(count, np.inf), np.zeros((count, 1), np.int64), np.ones((count, 1)), None)


def carried_colors(
    evidence: Evidence, scan: Mesh
) -> tuple[UInt8[np.ndarray, "v 3"], dict[str, Any]] | tuple[None, None]:
    """The scan's colours on a fitted mesh, and what the report says of them; nothing where the scan has none.

    A texture is read at the nearest place, vertex colours are interpolated to it. Where the evidence is further than
    `COLORED_MM`, the median colour of the other vertices stands.
    """
    near = evidence.distance_mm <= COLORED_MM
    if scan.colors is None or not near.any():
        return None, None
    if scan.texture is not None and evidence.faces is not None:
        colors = scan.texture.colors_at(evidence.faces, evidence.weights)
    else:
        mixed = np.einsum("vk,vkc->vc", evidence.weights, scan.colors[evidence.corners])
        colors = mixed.round().astype(np.uint8)
    plain = np.median(colors[near], axis=0).round().astype(np.uint8)
    source = "vertices" if scan.texture is None else "texture"
    about = {"source": source, "share": float(near.mean()), "elsewhere": plain.tolist()}
    return np.where(near[:, None], colors, plain), about


def _on_faces(mesh: Mesh, scan: Mesh, used: Bool[np.ndarray, " f"], mm_per_unit: float) -> Evidence:
    numbers = np.flatnonzero(used)
    nearest = distance_to_surface(mesh.vertices, Mesh(scan.vertices, scan.faces[numbers]))
    faces = numbers[nearest.face]
    corners = scan.faces[faces]
    weights = barycentric_weights(nearest.point, scan, faces)
    return Evidence(nearest.distance * mm_per_unit, corners, weights, faces)


def _among_points(mesh: Mesh, scan: Mesh, used: Bool[np.ndarray, " n"], mm_per_unit: float) -> Evidence:
    """The three nearest points, each with a share that falls with its distance."""
    numbers = np.flatnonzero(used)
    count = min(3, len(numbers))
    distance, index = NearestNeighbours(scan.vertices[numbers]).query(mesh.vertices, count)
    distance, index = distance.reshape(-1, count), index.reshape(-1, count)
    shares = 1 / np.maximum(distance, 1e-9 * np.ptp(scan.vertices))
    return Evidence(distance[:, 0] * mm_per_unit, numbers[index], shares / shares.sum(axis=1, keepdims=True), None)
