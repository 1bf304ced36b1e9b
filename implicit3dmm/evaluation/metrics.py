"""How far a surface lies from the true one: one definition of each figure, in millimetres.

docs/metrics.md sets these definitions beside those of the published papers.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.statistics import f_score, mean_of_means, share_within, spread
from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.sampling import SurfaceSamples, sample_surface

SAMPLES = 100_000
"""Samples drawn on each surface."""

THRESHOLDS_MM = (1.0, 2.0, 5.0)
"""Distances within which a point counts as right."""

METRICS = (
    "surface_mean_mm",
    "accuracy_mean_mm", "accuracy_median_mm", "accuracy_p95_mm",
    "completeness_mean_mm", "completeness_median_mm", "completeness_p95_mm",
    "chamfer_l1_mm", "chamfer_l1_floor_mm", "chamfer_sq_sum_mm2",
    *(f"f_score@{threshold:g}mm" for threshold in THRESHOLDS_MM),
    "normal_consistency", "normal_consistency_signed",
)  # fmt: skip
"""What `surface_metrics` measures; see there."""

Region = Bool[np.ndarray, " v"]
"""Marks the vertices of the true mesh that belong to a region."""


@dataclass(frozen=True, eq=False)
class SampleDistances:
    """Samples of one surface, seen against the other surface.

    Attributes:
        vertex: vertex of the truth that each sample belongs to, which decides on its region: the corner, of
            the true face that the sample lies on or is nearest to, that is nearest to that place.
        to_surface: distance to the other surface, mm.
        to_samples: distance to the nearest sample of the other surface, mm.
        cosine: of the angle between the normals of the sample's face and of the nearest face of the other.
    """

    vertex: Int[np.ndarray, " n"]
    to_surface: Float[np.ndarray, " n"]
    to_samples: Float[np.ndarray, " n"]
    cosine: Float[np.ndarray, " n"]

    def within(self, region: Region | None) -> "SampleDistances":
        """The samples that belong to a region; all of them where it is None."""
        if region is None:
            return self
        chosen = region[self.vertex]
        return SampleDistances(
            self.vertex[chosen], self.to_surface[chosen], self.to_samples[chosen], self.cosine[chosen]
        )


@dataclass(frozen=True, eq=False)
class SamplingFloor:
    """Two independent samplings of the truth, a and b, seen against one another.

    Attributes:
        a_vertex, b_vertex: vertex of the truth that each sample belongs to.
        a_to_b, b_to_a: distance to the nearest sample of the other sampling, mm.
    """

    a_vertex: Int[np.ndarray, " n"]
    b_vertex: Int[np.ndarray, " n"]
    a_to_b: Float[np.ndarray, " n"]
    b_to_a: Float[np.ndarray, " n"]

    def chamfer_l1(self, region: Region | None) -> float:
        """0.5 (mean a to b + mean b to a) within a region, mm; NaN where it has no sample."""
        if region is None:
            return mean_of_means(self.a_to_b, self.b_to_a)
        return mean_of_means(self.a_to_b[region[self.a_vertex]], self.b_to_a[region[self.b_vertex]])


@dataclass(frozen=True, eq=False)
class SurfaceComparison:
    """Two surfaces measured against one another, from which the figures of any region can be read.

    Attributes:
        accuracy: samples of the prediction, seen against the truth.
        completeness: samples of the truth, seen against the prediction.
        floor: the truth sampled twice.
        vertex_count: number of vertices of the truth, which a region marks.
    """

    accuracy: SampleDistances
    completeness: SampleDistances
    floor: SamplingFloor
    vertex_count: int

    def metrics(self, region: Region | None = None) -> dict[str, float | int]:
        """The figures of `surface_metrics` for one region of the truth.

        Args:
            region: marks the vertices of the truth that belong to it; None for the whole surface.

        Raises:
            InputError: the mask does not fit the truth, or no sample of the truth lies in the region.
        """
        if region is not None and region.shape != (self.vertex_count,):
            raise InputError(
                f"the region has shape {region.shape}; ({self.vertex_count},) is expected; give one mark"
                " for each vertex of the true mesh"
            )
        accuracy, completeness = self.accuracy.within(region), self.completeness.within(region)
        if len(completeness.vertex) == 0:
            raise InputError(
                "no sample of the true surface lies in the region; some area is expected; choose a region"
                " that the mesh has, or draw more samples"
            )
        return {
            "surface_mean_mm": mean_of_means(accuracy.to_surface, completeness.to_surface),
            **spread("accuracy", accuracy.to_surface),
            **spread("completeness", completeness.to_surface),
            "chamfer_l1_mm": mean_of_means(accuracy.to_samples, completeness.to_samples),
            "chamfer_l1_floor_mm": self.floor.chamfer_l1(region),
            "chamfer_sq_sum_mm2": 2.0 * mean_of_means(accuracy.to_samples**2, completeness.to_samples**2),
            **{
                f"f_score@{threshold:g}mm": f_score(accuracy.to_surface, completeness.to_surface, threshold)
                for threshold in THRESHOLDS_MM
            },
            "normal_consistency": mean_of_means(np.abs(accuracy.cosine), np.abs(completeness.cosine)),
            "normal_consistency_signed": mean_of_means(accuracy.cosine, completeness.cosine),
            "prediction_samples": len(accuracy.vertex),
            "truth_samples": len(completeness.vertex),
        }


def surface_metrics(
    prediction: Mesh,
    truth: Mesh,
    *,
    mm_per_unit: float,
    rng: np.random.Generator,
    samples: int = SAMPLES,
    region: Bool[np.ndarray, " v"] | None = None,
) -> dict[str, float | int]:
    """Compares a predicted surface with the true one, as they lie: nothing is aligned first.

    `samples` points are drawn on each surface, uniformly by area. *Accuracy* looks from the prediction's
    samples to the truth, *completeness* from the truth's samples to the prediction.

    - ``accuracy_mean_mm``, ``_median_mm``, ``_p95_mm``: mean, median and 95th percentile of the distances
      from the prediction's samples to the exact true surface (triangles, not samples), unsquared.
    - ``completeness_mean_mm``, ``_median_mm``, ``_p95_mm``: the same from the truth's samples to the exact
      predicted surface.
    - ``surface_mean_mm``: 0.5 (mean accuracy + mean completeness) of these; the headline figure.
    - ``chamfer_l1_mm``: 0.5 (mean accuracy + mean completeness) of the distances from each sample to the
      nearest *sample* of the other surface, unsquared: the Chamfer-L1 of Occupancy Networks, NPHM and
      ImFace. It depends on the number of samples.
    - ``chamfer_l1_floor_mm``: the same figure between two independent samplings of the truth. A Chamfer
      near it says only that the surfaces are nearer than the samples are.
    - ``chamfer_sq_sum_mm2``: mean squared distance from the prediction's samples to the nearest sample of
      the truth, plus the same the other way round, not halved: DeepSDF's Chamfer, here in mm^2.
    - ``f_score@1mm``, ``@2mm``, ``@5mm``: harmonic mean of the shares of the prediction's and of the
      truth's samples that lie within so many mm of the other *exact surface*; a fraction in [0, 1], and 0
      where both shares are 0.
    - ``normal_consistency``: 0.5 (accuracy + completeness) of the mean absolute cosine between the normal
      of the sample's face and that of the face nearest to it on the other surface.
      ``normal_consistency_signed`` is the same without the absolute value: -1 for a surface inside out.
    - ``prediction_samples``, ``truth_samples``: how many samples these figures are taken from.

    With a region, completeness takes the truth's samples that lie in it, and accuracy the prediction's
    samples whose nearest place on the truth lies in it; either is measured against the whole of the other
    surface. A place belongs to the region of the corner of its triangle that it is nearest to, so regions
    that part the vertices part the surface. Where no sample of the prediction belongs to the region, the
    figures that need one are NaN and its F-scores 0.

    The truth is sampled first: equal seeds give equal samples of the truth, and an equal floor, for every
    prediction. Use `compare_surfaces` to read several regions from one comparison.

    Args:
        prediction: the mesh to judge; it may be open.
        truth: the true mesh, in the same frame and unit.
        mm_per_unit: millimetres in one unit of both: 1 / scale of the similarity that leads from the
            subject's millimetres to the canonical frame, or 1 for meshes in millimetres.
        rng: source of the samples.
        samples: number of samples on each surface.
        region: marks the vertices of the truth that belong to a region; None for the whole surface.

    Returns:
        The figures of `METRICS` and the two numbers of samples, by name.

    Raises:
        InputError: a mesh has no faces, no area or coordinates that are not finite, `mm_per_unit` or
            `samples` is not positive, or the region is empty.
    """
    return compare_surfaces(prediction, truth, mm_per_unit=mm_per_unit, rng=rng, samples=samples).metrics(region)


def compare_surfaces(
    prediction: Mesh, truth: Mesh, *, mm_per_unit: float, rng: np.random.Generator, samples: int = SAMPLES
) -> SurfaceComparison:
    """Measures two surfaces against one another once, for the figures of several regions.

    Arguments and errors are those of `surface_metrics`. Where several predictions are held against one truth,
    `SampledTruth` does the truth's share of the work once.
    """
    return SampledTruth(truth, mm_per_unit=mm_per_unit, rng=rng, samples=samples).compare(prediction, rng=rng)


class SampledTruth:
    """A true surface with its samples and their floor, which predictions are held against."""

    def __init__(self, truth: Mesh, *, mm_per_unit: float, rng: np.random.Generator, samples: int = SAMPLES):
        """Draws the samples; arguments and errors are those of `surface_metrics`."""
        if samples < 1:
            raise InputError(f"{samples} samples asked for; at least 1 is expected; {SAMPLES} is usual")
        self.mesh = _in_mm(truth, mm_per_unit, "the true mesh")
        self.mm_per_unit = mm_per_unit
        self.samples, again = (sample_surface(self.mesh, samples, rng=rng) for _ in range(2))
        self.vertex = nearest_corners(self.mesh, self.samples.faces, self.samples.points)
        self._face_normals = self.mesh.face_normals()
        self._tree = NearestNeighbours(self.samples.points)
        self.floor = SamplingFloor(
            a_vertex=self.vertex,
            b_vertex=nearest_corners(self.mesh, again.faces, again.points),
            a_to_b=NearestNeighbours(again.points).query(self.samples.points)[0],
            b_to_a=self._tree.query(again.points)[0],
        )

    def compare(self, prediction: Mesh, *, rng: np.random.Generator) -> SurfaceComparison:
        """Measures a prediction, in the truth's frame and unit; errors are those of `surface_metrics`."""
        prediction = _in_mm(prediction, self.mm_per_unit, "the predicted mesh")
        on_prediction = sample_surface(prediction, len(self.samples.points), rng=rng)
        to_truth = distance_to_surface(on_prediction.points, self.mesh)
        to_prediction = distance_to_surface(self.samples.points, prediction)
        accuracy = SampleDistances(
            vertex=nearest_corners(self.mesh, to_truth.face, to_truth.point),
            to_surface=to_truth.distance,
            to_samples=self._tree.query(on_prediction.points)[0],
            cosine=_cosines(on_prediction, self._face_normals[to_truth.face]),
        )
        completeness = SampleDistances(
            vertex=self.vertex,
            to_surface=to_prediction.distance,
            to_samples=NearestNeighbours(on_prediction.points).query(self.samples.points)[0],
            cosine=_cosines(self.samples, prediction.face_normals()[to_prediction.face]),
        )
        return SurfaceComparison(accuracy, completeness, self.floor, len(self.mesh.vertices))


def scan_metrics(
    points: Float[np.ndarray, "n 3"],
    fit: Mesh,
    *,
    mm_per_unit: float,
    mask: Bool[np.ndarray, " n"] | None = None,
) -> dict[str, float | int]:
    """How far a scan without ground truth lies from the surface fitted to it.

    One direction only: the scan's points to the exact fitted surface, unsquared. What the scan does not show
    is not judged, and every point counts alike, so a scan that is denser in the face speaks for the face.

    Args:
        points: the scan's points or vertices.
        fit: the fitted mesh, in the frame and unit of the scan.
        mm_per_unit: millimetres in one unit of both.
        mask: marks the points to judge, such as those that belong to the head; None for all.

    Returns:
        See `distance_metrics`.

    Raises:
        InputError: the mesh has no faces, `mm_per_unit` is not positive, or no point is marked.
    """
    chosen = points if mask is None else points[mask]
    fit = _in_mm(fit, mm_per_unit, "the fitted mesh")
    return distance_metrics(distance_to_surface(chosen * mm_per_unit, fit).distance)


def distance_metrics(distance_mm: Float[np.ndarray, " n"]) -> dict[str, float | int]:
    """The figures of a scan from the distances of its points to the fitted surface.

    Args:
        distance_mm: unsigned distance of each point, mm.

    Returns:
        ``scan_mean_mm``, ``scan_median_mm``, ``scan_p95_mm`` (95th percentile), ``scan_within@1mm``,
        ``@2mm`` and ``@5mm`` (shares of the points, in [0, 1]) and ``scan_points``, their number.

    Raises:
        InputError: there is no distance.
    """
    if len(distance_mm) == 0:
        raise InputError("no point of the scan is left to judge; at least 1 is expected; widen the mask")
    return {
        **spread("scan", distance_mm),
        **{f"scan_within@{threshold:g}mm": share_within(distance_mm, threshold) for threshold in THRESHOLDS_MM},
        "scan_points": len(distance_mm),
    }


def nearest_corners(
    mesh: Mesh, faces: Int[np.ndarray, " n"], points: Float[np.ndarray, "n 3"]
) -> Int[np.ndarray, " n"]:
    """The vertex, of the three of its face, that each point on the mesh is nearest to."""
    corners = mesh.faces[faces]
    squared = np.square(mesh.vertices[corners] - points[:, None]).sum(axis=2)
    return corners[np.arange(len(corners)), squared.argmin(axis=1)]


def _in_mm(mesh: Mesh, mm_per_unit: float, name: str) -> Mesh:
    if not 0.0 < mm_per_unit < np.inf:
        raise InputError(f"mm_per_unit is {mm_per_unit}; a positive number is expected; 1 means millimetres")
    if not np.isfinite(mesh.vertices).all():
        raise InputError(f"{name} has NaN or infinite coordinates; finite ones are expected; it is damaged")
    return replace(mesh, vertices=mesh.vertices * mm_per_unit)


def _cosines(samples: SurfaceSamples, normals: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    return np.einsum("ij,ij->i", samples.normals, normals)
