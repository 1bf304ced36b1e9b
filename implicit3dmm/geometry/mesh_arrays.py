"""What the readers and writers of mesh files share: the arrays of a file, and plain work on them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.textures import Texture


@dataclass(frozen=True, eq=False)
class MeshArrays:
    """Arrays as they came from outside, of any number type and not yet checked.

    Attributes:
        vertices: positions (v, 3).
        faces: vertex indices of triangles (f, 3).
        normals: one for each vertex (v, 3), of any length.
        colors: red, green, blue and perhaps alpha (v, 3 or 4): integers to 255, or floats to 1 or to 255.
        texture: pictures laid over the faces.
    """

    vertices: np.ndarray
    faces: np.ndarray | None = None
    normals: np.ndarray | None = None
    colors: np.ndarray | None = None
    texture: Texture | None = None


def not_of_format(path: Path, why: str = "") -> InputError:
    """The error for a file whose content is not what its suffix says."""
    kind = path.suffix.lower().lstrip(".").upper()
    reason = f" ({why})" if why else ""
    return InputError(
        f"{path.name} is damaged or no {kind} file{reason}; a whole {kind} file is expected; export it again"
    )


def short(error: Exception) -> str:
    """The first part of an error's message; NumPy's go on with advice to programmers."""
    return str(error).splitlines()[0].partition(";")[0].rstrip(".") if str(error) else ""


def number_table(lines: list[bytes], columns: int | None = None) -> np.ndarray:
    """The numbers of text lines, one row a line.

    Args:
        lines: numbers with blanks between; behind # stands a comment.
        columns: how many to read of each line; all when None.

    Raises:
        ValueError: a word is not a number, or the lines are not equally long.
    """
    return np.loadtxt(lines, dtype=np.float64, ndmin=2, usecols=None if columns is None else range(columns))


def fan_triangles(corners: Int[np.ndarray, " c"], lengths: Int[np.ndarray, " p"]) -> Int[np.ndarray, "f 3"]:
    """Cuts polygons into triangles around the first corner of each; fewer than three corners make none.

    Args:
        corners: vertex indices of all polygons, one polygon behind the other.
        lengths: number of corners of each polygon.
    """
    counts = np.maximum(lengths - 2, 0)
    first = np.repeat(np.cumsum(lengths) - lengths, counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return corners[np.stack([first, first + within + 1, first + within + 2], axis=1)]


def merge_repeated_vertices(arrays: MeshArrays) -> MeshArrays:
    """One vertex for all that lie in exactly the same place, in order of first appearance.

    The merged vertex takes the sum of the normals and the first colour.
    """
    # Adding 0 makes -0 and 0 the same bytes, which are then compared as one value.
    vertices = np.ascontiguousarray(arrays.vertices) + 0.0
    keys = vertices.view(np.dtype((np.void, vertices.dtype.itemsize * 3))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    merged = rank[inverse.ravel()]
    return MeshArrays(
        vertices[first[order]],
        None if arrays.faces is None else merged[arrays.faces],
        None if arrays.normals is None else sum_at(merged, arrays.normals, len(order)),
        None if arrays.colors is None else arrays.colors[first[order]],
        arrays.texture,
    )


def sum_at(places: Int[np.ndarray, " n"], vectors: np.ndarray, count: int) -> np.ndarray:
    """Adds vectors (n, 3) up by place: row i of the result (count, 3) is the sum of those with place i."""
    sums = [np.bincount(places, weights=vectors[:, axis], minlength=count) for axis in range(3)]
    return np.stack(sums, axis=1)
