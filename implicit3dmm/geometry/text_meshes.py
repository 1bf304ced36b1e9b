"""OBJ and OFF: meshes written as text."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.geometry.mesh_arrays import (
    MeshArrays,
    fan_triangles,
    not_of_format,
    number_table,
    short,
    sum_at,
)
from implicit3dmm.geometry.textures import WHITE, Texture, plain, read_materials

_OFF_KINDS = ("OFF", "COFF", "NOFF", "CNOFF", "NCOFF")


def read_obj(path: Path) -> MeshArrays:
    """Reads the positions, in the file's order, with colours behind them, the polygons, the normals and the texture.

    The texture is that of the material files that `path` names and that lie beside it; groups are passed over.

    Raises:
        InputError: the file holds no positions, or lines that are not numbers.
    """
    lines = _ObjLines.read(path)
    if not lines.positions:
        raise not_of_format(path, "no line 'v x y z'")
    try:
        table = number_table(lines.positions)
        words = [line.partition(b"#")[0].split() for line in lines.faces]
        lengths = np.array([len(face) for face in words], dtype=np.int64)
        flat = list(itertools.chain.from_iterable(words))
        corners = _obj_indices([word.partition(b"/")[0] for word in flat], len(table))
        normals = _obj_normals(lines.normals, flat, corners, len(table))
        texture = _obj_texture(lines, flat, lengths, path.parent)
    except (ValueError, IndexError) as error:
        raise not_of_format(path, short(error)) from None
    if table.shape[1] not in (3, 4, 6, 7):
        raise not_of_format(path, f"{table.shape[1]} numbers behind 'v'")
    return MeshArrays(
        table[:, :3],
        fan_triangles(corners, lengths) if words else None,
        normals,
        table[:, 3:6] if table.shape[1] >= 6 else None,
        texture,
    )


def write_obj(path: Path, arrays: MeshArrays) -> None:
    """Writes positions with nine digits, colours behind them as others read them (0 to 1), and faces."""
    columns = [arrays.vertices] if arrays.colors is None else [arrays.vertices, arrays.colors / 255.0]
    with path.open("w", encoding="ascii") as file:
        _write_rows(file, "v", "%.9g", np.concatenate(columns, axis=1))
        if arrays.faces is not None:
            _write_rows(file, "f", "%d", arrays.faces + 1)


def read_off(path: Path) -> MeshArrays:
    """Reads positions and polygons; normals and colours behind the positions are passed over.

    Raises:
        InputError: the file is not OFF, has fewer lines than it says, or lines that are not numbers.
    """
    lines = [text for line in path.read_bytes().splitlines() if (text := line.partition(b"#")[0].strip())]
    kind, _, rest = lines[0].partition(b" ") if lines else (b"", b"", b"")
    if kind.decode("latin-1") not in _OFF_KINDS:
        raise not_of_format(path, f"the first word is not {' or '.join(_OFF_KINDS)}")
    lines = [rest, *lines[1:]] if rest else lines[1:]
    try:
        vertex_count, face_count = (int(word) for word in lines[0].split()[:2])
        if min(vertex_count, face_count) < 0 or len(lines) <= vertex_count + face_count:
            raise ValueError(f"{len(lines) - 1} lines for {vertex_count} vertices and {face_count} faces")
        vertices = number_table(lines[1 : vertex_count + 1], columns=3)
        faces = _off_faces(lines[vertex_count + 1 : vertex_count + face_count + 1])
    except (ValueError, IndexError) as error:
        raise not_of_format(path, short(error)) from None
    return MeshArrays(vertices, faces)


def write_off(path: Path, arrays: MeshArrays) -> None:
    """Writes positions with nine digits, and faces."""
    with path.open("w", encoding="ascii") as file:
        file.write(f"OFF\n{len(arrays.vertices)} {len(arrays.faces)} 0\n")
        _write_rows(file, "", "%.9g", arrays.vertices)
        _write_rows(file, "3", "%d", arrays.faces)


@dataclass
class _ObjLines:
    """The lines of an OBJ file by what they begin with."""

    positions: list[bytes] = field(default_factory=list)
    normals: list[bytes] = field(default_factory=list)
    places: list[bytes] = field(default_factory=list)
    """In the texture."""
    faces: list[bytes] = field(default_factory=list)
    libraries: list[bytes] = field(default_factory=list)
    materials: list[tuple[int, bytes]] = field(default_factory=list)
    """The first face of each stretch of one material, and its name."""

    @classmethod
    def read(cls, path: Path) -> "_ObjLines":
        lines = cls()
        kinds = {
            b"v": lines.positions, b"vn": lines.normals, b"vt": lines.places,
            b"f": lines.faces, b"mtllib": lines.libraries,
        }  # fmt: skip
        with path.open("rb") as file:
            for line in file:
                head, _, rest = line.strip().partition(b" ")
                if head in kinds:
                    kinds[head].append(rest)
                elif head == b"usemtl":
                    lines.materials.append((len(lines.faces), rest.strip()))
        return lines


def _obj_texture(lines: _ObjLines, words: list[bytes], lengths: Int[np.ndarray, " p"], folder: Path) -> Texture | None:
    """The texture of the triangles that the polygons become; None without a picture or without places in it."""
    if not (lines.libraries and lines.places and lines.materials and len(lengths)):
        return None
    names = [library.strip().decode("utf-8", errors="replace") for library in lines.libraries]
    materials = {name: picture for library in names for name, picture in read_materials(folder / library).items()}
    if all(picture.size == 3 for picture in materials.values()):
        return None
    places = number_table(lines.places, columns=2)
    parts = [word.split(b"/") for word in words]
    given = np.array([len(part) > 1 and bool(part[1]) for part in parts])
    uv = np.zeros((len(words), 2))
    uv[given] = places[_obj_indices([part[1] for part in parts if len(part) > 1 and part[1]], len(places))]
    numbers = {name.encode(): number for number, name in enumerate(materials, start=1)}
    starts = np.array([0, *(first for first, _ in lines.materials), len(lengths)])
    stretches = np.repeat([0, *(numbers.get(name, 0) for _, name in lines.materials)], np.diff(starts))
    corners = fan_triangles(np.arange(len(words)), lengths)
    polygon = np.repeat(np.arange(len(lengths)), np.maximum(lengths - 2, 0))
    shown = np.where(given[corners].all(axis=1), stretches[polygon], 0)
    return Texture((plain(WHITE), *materials.values()), shown, np.nan_to_num(uv[corners]))


def _obj_indices(words: list[bytes], count: int) -> Int[np.ndarray, " k"]:
    """Indices from 0; OBJ counts from 1, and backwards from the end with negative numbers."""
    indices = np.array(words, dtype=bytes).astype(np.int64)
    return np.where(indices < 0, indices + count, indices - 1)


def _obj_normals(
    lines: list[bytes], words: list[bytes], corners: Int[np.ndarray, " c"], count: int
) -> Float[np.ndarray, "v 3"] | None:
    """The sum of the normals that the faces give each vertex; without faces, one normal a vertex."""
    if not lines:
        return None
    normals = number_table(lines, columns=3)
    if not words:
        return normals if len(normals) == count else None
    parts = [word.split(b"/") for word in words]
    inside = corners.min() >= 0 and corners.max() < count
    if not inside or any(len(part) < 3 or not part[2] for part in parts):
        return None
    used = _obj_indices([part[2] for part in parts], len(normals))
    return sum_at(corners, normals[used], count)


def _off_faces(lines: list[bytes]) -> Int[np.ndarray, "f 3"]:
    words = [line.split() for line in lines]
    lengths = np.array([int(face[0]) for face in words], dtype=np.int64)
    polygons = [face[1 : length + 1] for face, length in zip(words, lengths, strict=True)]
    if any(len(polygon) != length for polygon, length in zip(polygons, lengths, strict=True)):
        raise ValueError("a face has fewer corners than it says")
    corners = np.array(list(itertools.chain.from_iterable(polygons)), dtype=bytes).astype(np.int64)
    return fan_triangles(corners, lengths)


def _write_rows(file: TextIO, head: str, number: str, rows: np.ndarray) -> None:
    line = " ".join([head, *[number] * rows.shape[1]]).strip() + "\n"
    for start in range(0, len(rows), 65_536):
        part = rows[start : start + 65_536]
        file.write((line * len(part)) % tuple(part.ravel().tolist()))
