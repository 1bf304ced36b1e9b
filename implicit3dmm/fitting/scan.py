"""What a fit takes for a scan, and the points of it that it looks at."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.depth_images import DepthImage, is_depth_image, read_depth_image
from implicit3dmm.geometry.mesh import Mesh, check_scan, mesh_from_arrays, read_mesh, thin
from implicit3dmm.geometry.mesh_arrays import MeshArrays
from implicit3dmm.geometry.sampling import sample_surface

Scan = str | Path | Mesh | DepthImage | Float[np.ndarray, "n 3"]


def read_scan(scan: Scan) -> Mesh:
    """The scan as a mesh or point cloud in its own frame; a depth image in its camera's, mm.

    Raises:
        InputError: it cannot be read, or says too little to be fitted.
    """
    if isinstance(scan, str | Path) and is_depth_image(Path(scan)):
        scan = read_depth_image(scan)
    match scan:
        case DepthImage():
            mesh = scan.surface()
        case np.ndarray():
            mesh = mesh_from_arrays(MeshArrays(scan), source="the points")
        case Mesh():
            arrays = MeshArrays(scan.vertices, scan.faces, scan.normals, scan.colors, scan.texture)
            mesh = mesh_from_arrays(arrays, source="the scan")
        case _:
            mesh = read_mesh(scan)
    check_scan(mesh)
    return mesh


def file_of(scan: Scan) -> str | None:
    """The file that the scan came from, where it did."""
    if isinstance(scan, DepthImage):
        return scan.file
    return str(scan) if isinstance(scan, str | Path) else None


def unit_of(scan: Scan, unit: str | float) -> str | float:
    """The unit to assume: that of a depth image is known.

    Raises:
        InputError: another one is given for a depth image.
    """
    if not isinstance(scan, DepthImage) and not (isinstance(scan, str | Path) and is_depth_image(Path(scan))):
        return unit
    if unit not in ("auto", "mm"):
        raise InputError(
            f"the unit {unit!r} is given with a depth image, which is brought into millimetres; "
            "leave it out, or give the unit of the depths"
        )
    return "mm"


def points_on(scan: Mesh, count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """Points spread evenly over a mesh, or drawn from a cloud."""
    if scan.faces is not None:
        return sample_surface(scan, count, rng=rng).points
    return thin(scan, count, rng=rng).vertices
