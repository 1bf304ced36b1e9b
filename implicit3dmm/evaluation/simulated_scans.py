"""What scanners make of a head: simulated scans of a known surface, as points in the subject's own millimetres."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from implicit3dmm.evaluation.conditions import EARS_PLANE
from implicit3dmm.geometry.distance import signed_distance
from implicit3dmm.geometry.isosurface import extract_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.geometry.visibility import visible_from
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.template import HeadTemplate

SHOULDERS = np.array([0.0, -0.78, -0.08])
"""Middle of the shoulders, canonical units."""
BLEND_MM = 35.0
"""Width of the smooth transition from the neck to the shoulders."""
BUST_CELL_MM = 4.0
"""Cells of the protocols' busts; points are drawn on their surface, so its topology does not show."""
HEAD_REACH = 0.15
"""A scan's points further than this from the average head are no head: canonical units, 30 mm."""

NOISE_MM = 1.0
CAMERA_TURN = np.radians([35.0, 15.0])
"""How far a camera may stand sideways, and above or below, from straight ahead."""
CAMERA_DISTANCE = 4.0
"""From the canonical origin, canonical units: 0.8 m."""
HAIR_MM = (15.0, 45.0)
HOLES = 12
HOLE_RADIUS_MM = (5.0, 22.0)


@dataclass(frozen=True, eq=False)
class ScannedHead:
    """A head that is to be scanned.

    Attributes:
        surface: what a scanner sees of the head alone, mm; open at the neck.
        make_bust: makes the head on its shoulders, mm.
        to_canonical: from these millimetres to the canonical frame.
    """

    surface: Mesh
    make_bust: Callable[[], Mesh]
    to_canonical: Similarity

    @cached_property
    def bust(self) -> Mesh:
        """The head on its shoulders, mm; it takes a second."""
        return self.make_bust()


def generated_head(
    vertices: Float[np.ndarray, "v 3"], template: HeadTemplate, to_canonical: Similarity, rng: np.random.Generator
) -> ScannedHead:
    """A head of a corpus, with shoulders of random width and thickness.

    Args:
        vertices: canonical.
        template: the topology of the vertices.
        to_canonical: from the subject's millimetres.
        rng: chooses the shoulders.
    """
    closed = Mesh(to_canonical.inverse().apply(vertices), template.triangles)
    size = {"half_length_mm": rng.uniform(95, 145), "radius_mm": rng.uniform(45, 65), "cell_mm": BUST_CELL_MM}
    make_bust = partial(with_shoulders, closed, to_canonical, **size)
    return ScannedHead(closed.with_faces(~template.cap), make_bust, to_canonical)


def real_head(scan: Mesh, to_canonical: Similarity, average: Mesh) -> ScannedHead:
    """A real scan; the head alone is what lies within 30 mm of the average head, the bust all of it.

    Args:
        scan: with faces; any unit.
        to_canonical: from the scan's coordinates; an average adult's size is assumed.
        average: the average head, canonical.
    """
    scan = scan.transformed(_upright(to_canonical))
    far = NearestNeighbours(average.vertices).query(scan.vertices / UNIT_MM)[0] > HEAD_REACH
    return ScannedHead(without(scan, far), lambda: scan, Similarity(1 / UNIT_MM, np.eye(3), np.zeros(3)))


def whole(head: ScannedHead, count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """The head alone, from all sides, to the base of the neck."""
    return sample_surface(head.surface, count, rng=rng).points


def front(head: ScannedHead, count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """What lies before the plane through both ears."""
    points = whole(head, count, rng)
    return points[head.to_canonical.apply(points)[:, 2] > EARS_PLANE]


def noise(head: ScannedHead, count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """The head alone, each point moved by Gaussian noise of 1 mm in every coordinate."""
    return whole(head, count, rng) + rng.normal(0, NOISE_MM, (count, 3))


def shoulders(head: ScannedHead, count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """The head on its shoulders."""
    return sample_surface(head.bust, count, rng=rng).points


def view(head: ScannedHead, count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """What one camera sees, 0.8 m away, up to 35 degrees sideways and 15 above or below."""
    ahead = Rotation.from_euler("yx", rng.uniform(-CAMERA_TURN, CAMERA_TURN)).as_matrix()[:, 2]
    eye = head.to_canonical.inverse().apply(CAMERA_DISTANCE * ahead[None])[0]
    samples = sample_surface(head.surface, count, rng=rng)
    # Through the open neck the inside could be seen, which no scanner shows.
    outside = ((eye - samples.points) * samples.normals).sum(axis=1) > 0
    return samples.points[outside & visible_from(samples.points, head.surface, eye)]


def hair(head: ScannedHead, count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """The head under a lumpy cap of hair, 15 to 45 mm thick at most, with a dozen holes."""
    samples = sample_surface(head.surface, count, rng=rng, smooth_normals=True)
    thickness = rng.uniform(*HAIR_MM) * _hair_cover(head.to_canonical.apply(samples.points), rng)
    points = samples.points + thickness[:, None] * samples.normals
    for centre in points[rng.integers(len(points), size=HOLES)]:
        points = points[np.linalg.norm(points - centre, axis=1) > rng.uniform(*HOLE_RADIUS_MM)]
    return points


SCANS: dict[str, Callable[[ScannedHead, int, np.random.Generator], Float[np.ndarray, "n 3"]]] = {
    "whole": whole,
    "front": front,
    "noise": noise,
    "shoulders": shoulders,
    "view": view,
    "hair": hair,
}
"""The kinds of scans, by name: so many points of a head, in the subject's millimetres, in no order."""


def with_shoulders(
    head: Mesh, to_canonical: Similarity, *, half_length_mm: float = 120.0, radius_mm: float = 55.0, cell_mm: float
) -> Mesh:
    """The head joined smoothly to shoulders, which are a capsule, and meshed anew.

    Args:
        head: closed, mm.
        to_canonical: from these millimetres.
        half_length_mm: from the middle to either end of the capsule's axis.
        radius_mm: of the capsule.
        cell_mm: of the new mesh.

    Returns:
        An open mesh: it ends at the lower side of the shoulders.
    """
    centre = to_canonical.inverse().apply(SHOULDERS[None])[0]
    low, high = head.bounds()
    bounds = np.array([[low[0] - 130, low[1] - 40, low[2] - 30], [high[0] + 130, high[1] + 10, high[2] + 10]])

    def sdf(points: np.ndarray) -> np.ndarray:
        points = points.astype(np.float64)
        distance = signed_distance(points, head).distance
        body = _capsule(points - centre, half_length=half_length_mm, radius=radius_mm)
        gap = np.clip(0.5 + 0.5 * (body - distance) / BLEND_MM, 0, 1)  # polynomial smooth minimum
        return (body * (1 - gap) + distance * gap - BLEND_MM * gap * (1 - gap)).astype(np.float32)

    cells = int(np.ptp(bounds, axis=0).max() / cell_mm)
    joined = extract_surface(sdf, bounds, cells, lipschitz=1.2)
    bottom = bounds[0, 1] + 2 * cell_mm
    return without(joined, joined.vertices[:, 1] < bottom)


def without(mesh: Mesh, lost: Bool[np.ndarray, " v"]) -> Mesh:
    """The largest piece of the mesh without the faces that touch a lost vertex."""
    return mesh.with_faces(~lost[mesh.faces].any(1)).largest_component()


def _upright(to_canonical: Similarity) -> Similarity:
    return Similarity(UNIT_MM, np.eye(3), np.zeros(3)).compose(to_canonical)


def _capsule(points: np.ndarray, *, half_length: float, radius: float) -> np.ndarray:
    """Signed distance to a capsule along x about the origin."""
    along = np.clip(points[:, 0], -half_length, half_length)
    return np.linalg.norm(points - np.stack([along, 0 * along, 0 * along], 1), axis=1) - radius


def _hair_cover(places: Float[np.ndarray, "n 3"], rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Thickness of hair at canonical places, 0 to 1: none on the face, lumps some 100 mm wide elsewhere."""
    outwards = places / np.linalg.norm(places, axis=1, keepdims=True)
    waves = np.cos(outwards @ rng.normal(size=(3, 12)) * 1.5 + rng.uniform(0, 2 * np.pi, 12))
    lumps = np.clip(0.5 + waves.mean(axis=1), 0, 1)
    # The hairline runs from the forehead, behind the ears, to the nape.
    behind = np.clip((places[:, 1] - 0.2 - (places[:, 2] - 0.1)) / 0.12, 0, 1)
    return lumps * behind * (places[:, 1] > -0.45)
