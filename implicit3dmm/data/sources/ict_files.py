"""The files of ICT-FaceKit: a clone of its repository, or one .npz that holds what is needed of it.

A clone has an OBJ file of 2.5 MB for each of its 100 identity and 53 expression modes. It is converted once
into an .npz of 11 MB in the user's cache folder, with the offsets as int16 of one scale a mode (within 0.6
micrometres); the same file can be put into a data folder instead of the clone.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from implicit3dmm.data.npz import read_npz
from implicit3dmm.errors import InputError
from implicit3dmm.files import atomic_path, writable_folder
from implicit3dmm.geometry.mesh_arrays import number_table

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

CLONE_VARIABLE = "IMPLICIT3DMM_ICT"
DATA_VARIABLE = "IMPLICIT3DMM_DATA"
REPOSITORY = "https://github.com/ICT-VGL/ICT-FaceKit"
FILE_NAME = "ict_facekit_int16.npz"
KEYS = (
    "template", "identity_q", "identity_scale", "expression_q", "expression_scale", "expression_names",
    "quads", "quad_geometry", "vertex_geometry", "landmarks68",
)  # fmt: skip

GEOMETRY_STARTS = (0, 9409, 11248, 13294, 13678, 14062, 17039, 21451, 23021, 24591)
"""First vertex of each part of the published mesh (its README's table), and the end of the right eyeball."""
FACE, HEAD_AND_NECK, MOUTH_SOCKET, LEFT_SOCKET, RIGHT_SOCKET, LEFT_EYEBALL, RIGHT_EYEBALL = KEPT = (
    0, 1, 2, 3, 4, 7, 8,
)  # fmt: skip
"""The parts that are kept, by their numbers in that table."""
IDENTITY_MODES = 100
LARGEST_INT16 = 32767


def load_ict_arrays() -> Arrays:
    """The arrays of ICT-FaceKit, from a clone or from the .npz file.

    Returns:
        `KEYS`: the average head (v, 3) in cm, the modes as int16 multiples of one scale each, the polygons
        (triangles repeat their last corner), the part that vertices and polygons belong to, and the
        vertices of the 68 landmarks.

    Raises:
        InputError: neither is to be found, or what is found is damaged.
    """
    if clone := os.environ.get(CLONE_VARIABLE):
        return _read(_converted(Path(clone)))
    folder = os.environ.get(DATA_VARIABLE)
    if folder and (path := Path(folder) / FILE_NAME).is_file():
        return _read(path)
    raise InputError(
        f"ICT-FaceKit is not on this machine; clone {REPOSITORY} and set {CLONE_VARIABLE} to the clone's"
        f" folder, or set {DATA_VARIABLE} to a folder that holds {FILE_NAME}"
    )


def convert_clone(clone: Path) -> Arrays:
    """Reads the OBJ files of a clone.

    Args:
        clone: folder of the repository, which holds the folder FaceXModel.

    Raises:
        InputError: a file is missing or damaged.
    """
    folder = clone / "FaceXModel"
    lists = _published_lists(folder)
    template = _kept_vertices(folder / "generic_neutral_mesh.obj")
    quads, quad_geometry = _kept_quads(folder / "generic_neutral_mesh.obj")
    identity = [f"identity{i:03d}" for i in range(IDENTITY_MODES)]
    identity_q, identity_scale = _quantised(_offsets(folder, identity, template))
    expression_q, expression_scale = _quantised(_offsets(folder, lists["expressions"], template))
    return {
        "template": template.astype(np.float32),
        "identity_q": identity_q,
        "identity_scale": identity_scale,
        "expression_q": expression_q,
        "expression_scale": expression_scale,
        "expression_names": np.array(lists["expressions"]),
        "quads": quads,
        "quad_geometry": quad_geometry,
        "vertex_geometry": np.repeat(KEPT, [_size(part) for part in KEPT]).astype(np.uint8),
        "landmarks68": np.array(lists["idx_to_landmark_verts"], dtype=np.int32),
    }


def _converted(clone: Path) -> Path:
    """The converted file of a clone in the user's cache folder, made where it is missing."""
    files = sorted((clone / "FaceXModel").glob("*.obj"))
    if not files:
        raise InputError(
            f"{clone} has no FaceXModel/*.obj; {CLONE_VARIABLE} must name a clone of {REPOSITORY}; correct it"
        )
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    digest = hashlib.sha256(repr((str(clone.resolve()), states)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "implicit3dmm"
    converted = cache / f"ict-{digest}" / FILE_NAME
    if not converted.is_file():
        log.info("converting %d OBJ files of %s into %s", len(files), clone, converted)
        arrays = convert_clone(clone)
        writable_folder(converted.parent)
        with atomic_path(converted) as path:
            np.savez_compressed(path, **arrays)
    return converted


def _read(path: Path) -> Arrays:
    try:
        return read_npz(path, KEYS)
    except ValueError as error:
        raise InputError(f"{path} is damaged or another file ({error}); replace it") from None


def _published_lists(folder: Path) -> dict[str, list]:
    try:
        lists = json.loads((folder / "vertex_indices.json").read_text(encoding="utf-8"))
        return {key: lists[key] for key in ("expressions", "idx_to_landmark_verts")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / 'vertex_indices.json'} cannot be read ({error!r}); clone the repository again"
        ) from None


def _offsets(folder: Path, modes: Iterable[str], template: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "m v 3"]:
    return np.stack([_kept_vertices(folder / f"{mode}.obj") - template for mode in modes])


def _kept_vertices(path: Path) -> Float[np.ndarray, "v 3"]:
    """Positions of the kept parts' vertices in a published OBJ file, cm."""
    count = GEOMETRY_STARTS[-1]
    try:
        lines = [line[2:] for line in path.read_bytes().splitlines() if line.startswith(b"v ")][:count]
        vertices = number_table(lines, columns=3) if len(lines) == count else None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); clone the repository again") from None
    if vertices is None:
        raise InputError(f"{path} has {len(lines)} vertices; at least {count} are expected; clone again")
    return np.concatenate([vertices[GEOMETRY_STARTS[part] : GEOMETRY_STARTS[part + 1]] for part in KEPT])


def _kept_quads(path: Path) -> tuple[Int[np.ndarray, "q 4"], UInt8[np.ndarray, " q"]]:
    """Polygons of the kept parts over the kept vertices, and the part of each."""
    lines = [line.split()[1:] for line in path.read_bytes().splitlines() if line.startswith(b"f ")]
    try:
        corners = [[int(word.partition(b"/")[0]) - 1 for word in line] for line in lines]
        polygons = np.array([(face + face[-1:])[:4] for face in corners], dtype=np.int32).reshape(-1, 4)
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error}); clone the repository again") from None
    # Where parts share vertices, a polygon belongs to the later one.
    geometry = np.searchsorted(GEOMETRY_STARTS, polygons.max(axis=1, initial=0), side="right") - 1
    kept = np.isin(geometry, KEPT)
    starts = np.cumsum([0, *(_size(part) for part in KEPT)])[:-1]
    shift = np.zeros(len(GEOMETRY_STARTS), dtype=np.int32)
    shift[list(KEPT)] = starts - np.array(GEOMETRY_STARTS)[list(KEPT)]
    return polygons[kept] + shift[geometry[kept], None], geometry[kept].astype(np.uint8)


def _size(part: int) -> int:
    return GEOMETRY_STARTS[part + 1] - GEOMETRY_STARTS[part]


def _quantised(
    offsets: Float[np.ndarray, "m v 3"],
) -> tuple[Int[np.ndarray, "m v 3"], Float[np.ndarray, " m"]]:
    scale = np.abs(offsets).max(axis=(1, 2)) / LARGEST_INT16
    return np.rint(offsets / scale[:, None, None]).astype(np.int16), scale.astype(np.float32)
