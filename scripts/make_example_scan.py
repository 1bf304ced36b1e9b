"""Makes the shipped scans: assets/example_scan.ply and, with an expression, the one that `implicit3dmm demo` fits.

    python scripts/make_example_scan.py
    python scripts/make_example_scan.py --expression smile_open --cell-mm 3.2 --seed 8 \\
        --out assets/example_expression.ply

A head of the test split of configs/corpora/base.yaml, so no model has seen it, made as unlike the model's own data as
a scan is: shoulders, another topology (marching cubes of the joined shape), measurement noise, holes at the crown,
under the chin and behind an ear, an open bottom, a pose and an origin of its own, centimetres without saying so.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro

from implicit3dmm.config import load_config
from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.data.sources import open_source
from implicit3dmm.evaluation.simulated_scans import with_shoulders, without
from implicit3dmm.geometry.mesh import Mesh, write_mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.resources import config_file

SUBJECT = 1050
CELL_MM = 2.5
NOISE_MM = 0.3
MM_PER_UNIT = 10.0


def main(
    out: Path = Path("assets/example_scan.ply"),
    seed: int = 7,
    expression: str = "neutral",
    cell_mm: float = CELL_MM,
) -> None:
    """Writes a scan; all are of one person.

    Args:
        out: PLY file to write.
        seed: Seed of noise, holes and pose.
        expression: That the person shows.
        cell_mm: Side of the cells that the joined shape is meshed with.
    """
    rng = np.random.default_rng(seed)
    recipe = replace(load_config(Recipe, config_file("corpora", "base")), expressions=(expression,))
    assert recipe.split_of(SUBJECT) == "test"
    head = next(generate(recipe, (SUBJECT,)))
    mm = head.similarity.inverse().apply(head.vertices)
    bust = with_shoulders(Mesh(mm, open_source("makehuman").template.triangles), head.similarity, cell_mm=cell_mm)
    scan = with_holes(bust, head.similarity, rng)
    noisy = scan.vertices + rng.normal(0, NOISE_MM, (len(scan.vertices), 1)) * scan.vertex_normals()
    pose = Similarity(1 / MM_PER_UNIT, rotation(rng), rng.uniform(-80, 80, 3))
    write_mesh(out, Mesh(pose.apply(noisy), scan.faces))


def with_holes(mesh: Mesh, to_canonical: Similarity, rng: np.random.Generator) -> Mesh:
    """Ragged holes at the crown, under the chin and behind the right ear."""
    canonical = to_canonical.apply(mesh.vertices)
    lost = np.zeros(len(canonical), bool)
    for place, radius in (((0.05, 0.68, -0.05), 0.16), ((0.0, -0.38, 0.33), 0.09), ((-0.36, 0.05, -0.05), 0.06)):
        distance = np.linalg.norm(canonical - place, axis=1)
        lost |= distance < radius * (1 + 0.15 * np.sin(9 * np.arctan2(*(canonical - place)[:, [0, 2]].T)))
    return without(mesh, lost)


def rotation(rng: np.random.Generator) -> np.ndarray:
    """A uniformly random rotation matrix."""
    matrix, triangular = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix *= np.sign(np.diag(triangular))
    return matrix if np.linalg.det(matrix) > 0 else matrix[:, ::-1]


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
