"""Makes assets/example_scan.ply, the scan that `implicit3dmm demo` fits.

    python scripts/make_example_scan.py

A head of the test split of configs/corpora/base.yaml, so no model has seen it, made as unlike the model's own data as
a scan is: shoulders, another topology (marching cubes of the joined shape), measurement noise, holes at the crown,
under the chin and behind an ear, an open bottom, a pose and an origin of its own, centimetres without saying so.
"""

from pathlib import Path

import numpy as np
import tyro

from implicit3dmm.config import load_config
from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.data.sources import open_source
from implicit3dmm.geometry.distance import signed_distance
from implicit3dmm.geometry.isosurface import extract_surface
from implicit3dmm.geometry.mesh import Mesh, write_mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.resources import config_file

SUBJECT = 1050
CELL_MM = 2.5
NOISE_MM = 0.3
BLEND_MM = 35.0
MM_PER_UNIT = 10.0


def main(out: Path = Path("assets/example_scan.ply"), seed: int = 7) -> None:
    """Writes the scan.

    Args:
        out: PLY file to write.
        seed: Seed of noise, holes and pose.
    """
    rng = np.random.default_rng(seed)
    recipe = load_config(Recipe, config_file("corpora", "base"))
    assert recipe.split_of(SUBJECT) == "test"
    head = next(generate(recipe, (SUBJECT,)))
    mm = head.similarity.inverse().apply(head.vertices)
    bust = with_shoulders(Mesh(mm, open_source("makehuman").template.triangles), head.similarity)
    scan = with_holes(bust, head.similarity, rng)
    noisy = scan.vertices + rng.normal(0, NOISE_MM, (len(scan.vertices), 1)) * scan.vertex_normals()
    pose = Similarity(1 / MM_PER_UNIT, rotation(rng), rng.uniform(-80, 80, 3))
    write_mesh(out, Mesh(pose.apply(noisy), scan.faces))


def with_shoulders(head: Mesh, to_canonical: Similarity) -> Mesh:
    """The head joined smoothly to a chest and shoulders, remeshed, mm."""
    centre = to_canonical.inverse().apply(np.array([[0.0, -0.78, -0.08]]))[0]
    low, high = head.bounds()
    bounds = np.array([[low[0] - 130, low[1] - 40, low[2] - 30], [high[0] + 130, high[1] + 10, high[2] + 10]])

    def sdf(points: np.ndarray) -> np.ndarray:
        points = points.astype(np.float64)
        distance = signed_distance(points, head).distance
        body = capsule(points - centre, half_length=120.0, radius=55.0)
        gap = np.clip(0.5 + 0.5 * (body - distance) / BLEND_MM, 0, 1)  # polynomial smooth minimum
        return (body * (1 - gap) + distance * gap - BLEND_MM * gap * (1 - gap)).astype(np.float32)

    cells = int(np.ptp(bounds, axis=0).max() / CELL_MM)
    joined = extract_surface(sdf, bounds, cells, lipschitz=1.2)
    bottom = bounds[0, 1] + 2 * CELL_MM
    return without(joined, joined.vertices[:, 1] < bottom)


def with_holes(mesh: Mesh, to_canonical: Similarity, rng: np.random.Generator) -> Mesh:
    """Ragged holes at the crown, under the chin and behind the right ear."""
    canonical = to_canonical.apply(mesh.vertices)
    lost = np.zeros(len(canonical), bool)
    for place, radius in (((0.05, 0.68, -0.05), 0.16), ((0.0, -0.38, 0.33), 0.09), ((-0.36, 0.05, -0.05), 0.06)):
        distance = np.linalg.norm(canonical - place, axis=1)
        lost |= distance < radius * (1 + 0.15 * np.sin(9 * np.arctan2(*(canonical - place)[:, [0, 2]].T)))
    return without(mesh, lost)


def capsule(points: np.ndarray, *, half_length: float, radius: float) -> np.ndarray:
    """Signed distance to a capsule along x about the origin, mm."""
    along = np.clip(points[:, 0], -half_length, half_length)
    return np.linalg.norm(points - np.stack([along, 0 * along, 0 * along], 1), axis=1) - radius


def without(mesh: Mesh, lost: np.ndarray) -> Mesh:
    """The mesh without the faces that touch a lost vertex, its largest piece."""
    return mesh.with_faces(~lost[mesh.faces].any(1)).largest_component()


def rotation(rng: np.random.Generator) -> np.ndarray:
    """A uniformly random rotation matrix."""
    matrix, triangular = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix *= np.sign(np.diag(triangular))
    return matrix if np.linalg.det(matrix) > 0 else matrix[:, ::-1]


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
