"""Fits the released model to a point cloud: the Python API in a few lines.

    python scripts/fit_point_cloud.py SCAN MESH

SCAN is any file of points or a mesh, MESH the file to write the fitted head to, in the scan's own frame and unit.
"""

from pathlib import Path

import tyro
from tyro.conf import Positional

import implicit3dmm


def main(scan: Positional[Path], mesh: Positional[Path], /, steps: int = 10, resolution: int = 256) -> None:
    """Fits a head and prints how far the scan lies from it.

    Args:
        scan: Points or a mesh; only the points are used.
        mesh: Mesh file to write.
        steps: Steps of the solver.
        resolution: Cells along the longest side of the mesh's box.
    """
    points = implicit3dmm.read_mesh(scan).vertices  # (n, 3), in any pose and unit
    config = implicit3dmm.FitConfig(steps=steps)
    head = implicit3dmm.fit(points, "imhead", config=config, resolution=resolution)
    implicit3dmm.write_mesh(mesh, head.mesh)
    print(*head.report["assumptions"], sep="\n")
    print(f"mean distance of the scan to the fit: {head.report['error']['scan_mean_mm']:.2f} mm")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
