"""STL and glTF (GLB) files, through trimesh."""

import contextlib
import logging
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import trimesh
from trimesh.exchange.stl import HeaderError

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh_arrays import MeshArrays, merge_repeated_vertices, not_of_format
from implicit3dmm.geometry.textures import Texture, as_picture, joined, plain

log = logging.getLogger(__name__)

# What trimesh raises on damaged STL and GLB files, which it unpacks without checks; an ImportError, where it
# would have to guess the encoding of a text.
_TRIMESH_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError, struct.error,
    NotImplementedError, ImportError, HeaderError,
)  # fmt: skip


def read_scene(path: Path) -> MeshArrays:
    """Reads an STL, GLB or GLTF file; a scene becomes one mesh, each part where its transform puts it.

    Normals are not read: those of STL belong to faces, and both formats give the faces to find them from.

    Raises:
        InputError: the file is truncated, of another format, or without geometry.
    """
    try:
        # What trimesh warns of is found, or does not matter, in the checks that follow.
        with warnings.catch_warnings(), _silent(logging.getLogger("trimesh")):
            warnings.simplefilter("ignore")
            parts = [_part_arrays(part) for part in trimesh.load_scene(path, process=False).dump()]
    except _TRIMESH_ERRORS:
        raise not_of_format(path) from None
    if not parts:
        raise not_of_format(path, "it holds no mesh")
    return merge_repeated_vertices(_concatenated(parts))


def write_scene(path: Path, arrays: MeshArrays) -> None:
    """Writes an STL or GLB file, in 32-bit floats as both formats demand; GLB keeps normals and colours."""
    kind = path.suffix.lower().lstrip(".")
    if arrays.faces is None:
        trimesh.PointCloud(arrays.vertices, colors=arrays.colors).export(path, file_type=kind)
        return
    part = trimesh.Trimesh(
        arrays.vertices,
        arrays.faces,
        vertex_normals=arrays.normals,
        vertex_colors=arrays.colors,
        process=False,
    )
    options = {"include_normals": arrays.normals is not None} if kind == "glb" else {}
    part.export(path, file_type=kind, **options)


@contextlib.contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _part_arrays(part: trimesh.parent.Geometry) -> MeshArrays:
    if not isinstance(part, trimesh.Trimesh | trimesh.PointCloud):
        raise ValueError(f"{type(part).__name__} is neither a mesh nor a point cloud")
    faces = getattr(part, "faces", None)
    if faces is not None and len(faces) and not 0 <= faces.min() <= faces.max() < len(part.vertices):
        raise ValueError("faces name vertices that do not exist")
    texture = _texture(part)
    colored = texture is None and part.visual.kind == "vertex"
    colors = np.asarray(part.visual.vertex_colors)[:, :3] if colored else None
    return MeshArrays(np.asarray(part.vertices), faces, None, colors, texture)


def _texture(part: trimesh.parent.Geometry) -> Texture | None:
    """The picture of a part's material, or its plain colour; None where it has no material."""
    if part.visual.kind != "texture" or not len(part.faces):
        return None
    picture, places = _picture(part.visual.material), part.visual.uv
    if picture is None or places is None:
        picture, places = plain(part.visual.material.main_color[:3]), np.zeros((len(part.vertices), 2))
    corners = np.nan_to_num(np.asarray(places, dtype=np.float64))[np.asarray(part.faces)]
    return Texture((picture,), np.zeros(len(part.faces), np.int64), corners)


def _picture(material: trimesh.visual.material.Material) -> np.ndarray | None:
    """A damaged picture is left out, and that is logged: a scan is worth fitting without its colours."""
    image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    try:
        return None if image is None else as_picture(image)
    except InputError as error:
        log.warning("%s; the scan is used without it", error)
        return None


def _concatenated(parts: list[MeshArrays]) -> MeshArrays:
    """One set of arrays; colours only where every part has them, faces where any part has them.

    Plain materials alone make no texture: most programs write one that says nothing.
    """
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    pairs = zip(parts, offsets, strict=True)
    faces = [part.faces + offset for part, offset in pairs if part.faces is not None]
    colors = [part.colors for part in parts if part.colors is not None]
    textures = [part.texture for part in parts if part.texture is not None]
    return MeshArrays(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate(faces) if faces else None,
        None,
        np.concatenate(colors) if len(colors) == len(parts) else None,
        joined(textures) if len(textures) == len(parts) and any(t.pictures[0].size > 3 for t in textures) else None,
    )
