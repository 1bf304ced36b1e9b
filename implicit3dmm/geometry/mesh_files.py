"""Mesh and point-cloud files, by suffix; what their arrays must satisfy is checked in `mesh`."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from implicit3dmm.errors import InputError
from implicit3dmm.files import atomic_path
from implicit3dmm.geometry.mesh_arrays import MeshArrays, fan_triangles, not_of_format
from implicit3dmm.geometry.ply import read_ply, write_ply
from implicit3dmm.geometry.point_files import read_npy, read_npz, read_xyz
from implicit3dmm.geometry.text_meshes import read_obj, read_off, write_obj, write_off


def read_arrays(path: Path) -> MeshArrays:
    """Reads the arrays of a mesh or point-cloud file.

    Raises:
        InputError: the file is missing, a folder, empty, of unknown suffix, truncated or of another
            format, or its format is for meshes and it has no faces.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; a mesh or point-cloud file is expected; check the name")
    if not path.is_file():
        raise InputError(f"{path} is not a file; a mesh or point-cloud file is expected; name one file")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise InputError(
            f"{path.name} has the unknown suffix '{path.suffix}'; known are {' '.join(_READERS)}; convert it"
        )
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path.name} is empty; a mesh or point cloud is expected; export it again")
        arrays = _READERS[suffix](path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}; a readable file is expected; check it"
        ) from None
    if suffix in _NEED_FACES and (arrays.faces is None or not len(arrays.faces)):
        raise InputError(f"{path.name} has no faces; a mesh is expected; save a point cloud as .ply or .xyz")
    return arrays


def write_arrays(path: Path, arrays: MeshArrays, *, scalars: dict[str, Float[np.ndarray, " v"]]) -> None:
    """Writes arrays in the format of the suffix, whole or not at all.

    Raises:
        InputError: the suffix is not known, the format cannot hold the arrays, or `path` cannot be written.
    """
    suffix = check_suffix(path)
    if scalars and suffix != ".ply":
        raise InputError(f"{suffix} files cannot hold {', '.join(scalars)}; only .ply files can; choose .ply")
    if arrays.faces is None and suffix in _NEED_FACES:
        raise InputError(f"{suffix} files cannot hold a point cloud; .ply, .obj and .glb can; choose one")
    with atomic_path(path) as temporary:
        if suffix == ".ply":
            _write_ply(temporary, arrays, scalars)
        else:
            _WRITERS[suffix](temporary, arrays)


def check_suffix(path: Path) -> str:
    """The suffix of a mesh file that is to be written, in lower case.

    Raises:
        InputError: no writer knows it.
    """
    known = (".ply", *_WRITERS)
    if path.suffix.lower() not in known:
        raise InputError(f"{path.name} has the unknown suffix '{path.suffix}'; known are {' '.join(known)}; choose one")
    return path.suffix.lower()


def _read_ply(path: Path) -> MeshArrays:
    elements = read_ply(path)
    vertex, face = elements.get("vertex", {}), elements.get("face", {})
    positions = _columns(vertex, "x", "y", "z")
    if positions is None:
        raise not_of_format(path, "no x, y, z in its vertices")
    polygons = face.get("vertex_indices", face.get("vertex_index"))
    return MeshArrays(
        positions,
        None if polygons is None else fan_triangles(*polygons),
        _columns(vertex, "nx", "ny", "nz"),
        _columns(vertex, "red", "green", "blue"),
    )


def _columns(table: dict[str, np.ndarray], *names: str) -> np.ndarray | None:
    return np.stack([table[name] for name in names], axis=1) if all(name in table for name in names) else None


def _write_ply(path: Path, arrays: MeshArrays, scalars: dict[str, Float[np.ndarray, " v"]]) -> None:
    columns = [(_stored_positions(arrays.vertices), "xyz")]
    if arrays.normals is not None:
        columns.append((arrays.normals.astype(np.float32), ("nx", "ny", "nz")))
    if arrays.colors is not None:
        columns.append((arrays.colors, ("red", "green", "blue")))
    vertex = {name: values[:, i] for values, names in columns for i, name in enumerate(names)}
    vertex |= {name: np.asarray(values, dtype=np.float32) for name, values in scalars.items()}
    write_ply(path, vertex, faces=arrays.faces)


def _stored_positions(vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    """32-bit floats, which every program reads, unless a millionth of the object's size would be lost.

    That happens to an object far from the origin, as in coordinates of a map.
    """
    rounded = vertices.astype(np.float32)
    size = np.ptp(vertices, axis=0).max(initial=0.0)
    return rounded if np.abs(rounded - vertices).max(initial=0.0) <= 1e-6 * size else vertices


def _read_scene(path: Path) -> MeshArrays:
    from implicit3dmm.geometry.scene_files import read_scene  # trimesh takes 0.3 s to import

    return read_scene(path)


def _write_scene(path: Path, arrays: MeshArrays) -> None:
    from implicit3dmm.geometry.scene_files import write_scene

    write_scene(path, arrays)


_NEED_FACES = (".off", ".stl")
_READERS = {
    ".ply": _read_ply,
    ".obj": read_obj,
    ".off": read_off,
    ".stl": _read_scene,
    ".glb": _read_scene,
    ".gltf": _read_scene,
    ".xyz": read_xyz,
    ".npy": read_npy,
    ".npz": read_npz,
}
_WRITERS = {".obj": write_obj, ".off": write_off, ".stl": _write_scene, ".glb": _write_scene}
