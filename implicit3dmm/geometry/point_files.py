"""XYZ text and NumPy files: point clouds, and meshes as named arrays."""

import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh_arrays import MeshArrays, not_of_format, short

_NPZ_KEYS = ("points", "vertices", "normals", "faces", "colors")
# What NumPy raises on damaged headers and archives.
_NUMPY_ERRORS = (
    ValueError, TypeError, KeyError, SyntaxError, EOFError, OverflowError, MemoryError, tokenize.TokenError,
)  # fmt: skip
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def read_xyz(path: Path) -> MeshArrays:
    """Reads one point a line, numbers with blanks, commas or semicolons between; # starts a comment.

    Raises:
        InputError: a word is not a number, the lines are not equally long, or not of 3 or 6 numbers.
    """
    with path.open("rb") as file:
        first = next((line for line in file if line.partition(b"#")[0].strip()), b"")
    delimiter = next((mark for mark in (",", ";") if mark.encode() in first), None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # NumPy warns of a file without data
            table = np.loadtxt(path, dtype=np.float64, delimiter=delimiter, ndmin=2, encoding="latin-1")
    except (ValueError, IndexError) as error:
        raise not_of_format(path, short(error)) from None
    if not table.size:
        raise not_of_format(path, "no numbers")
    return split_columns(table, path.name)


def read_npy(path: Path) -> MeshArrays:
    """Reads one array of shape (n, 3) or (n, 6).

    Raises:
        InputError: the file is truncated or no NPY file, or the array is of objects or of another shape.
    """
    return split_columns(load_npy(path), path.name)


def read_npz(path: Path) -> MeshArrays:
    """Reads the arrays `points` or `vertices` and, where they are there, `normals`, `faces` and `colors`.

    Raises:
        InputError: the file is truncated or no NPZ file, has no points, or holds an array of objects.
    """
    arrays = load_npz(path, _NPZ_KEYS)
    vertices = arrays.get("points", arrays.get("vertices"))
    if vertices is None:
        raise InputError(
            f"{path.name} has no array 'points' or 'vertices'; one of them is expected; save it by that name"
        )
    return MeshArrays(vertices, arrays.get("faces"), arrays.get("normals"), arrays.get("colors"))


def load_npy(path: Path) -> np.ndarray:
    """The array of an NPY file; nothing is unpickled.

    Raises:
        InputError: the file is truncated or no NPY file, or the array is of objects.
    """
    try:
        # A memory map finds a truncated file before anything is allocated for it.
        return np.array(np.lib.format.open_memmap(path, mode="r"))
    except _NUMPY_ERRORS as error:
        raise _refused(path, error) from None


def load_npz(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    """Those arrays of an NPZ file that `keys` names and it has; nothing is unpickled.

    Raises:
        InputError: the file is truncated or no NPZ file, or an array is of objects.
    """
    if not zipfile.is_zipfile(path):
        raise not_of_format(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files if key in keys}
    except (*_NUMPY_ERRORS, *_ZIP_ERRORS) as error:
        raise _refused(path, error) from None


def split_columns(table: np.ndarray, source: str) -> MeshArrays:
    """Takes a table of points apart.

    Args:
        table: three columns are positions. Three more are colours where they are whole numbers from 0 to
            255, some of them above 1, and normals otherwise.
        source: what to call it in a message.

    Raises:
        InputError: the table is not made of numbers, or not of shape (n, 3) or (n, 6).
    """
    if table.dtype.kind not in "fiu":
        raise InputError(f"{source} holds values of type {table.dtype}; real numbers are expected; convert it")
    if table.ndim == 2 and min(table.shape) > 6:
        raise InputError(
            f"{source} has shape {table.shape}; (n, 3) or (n, 6) is expected; "
            "if it is a depth image, give its camera's intrinsics"
        )
    if table.ndim != 2 or table.shape[1] not in (3, 6):
        raise InputError(f"{source} has shape {table.shape}; (n, 3) or (n, 6) is expected; reshape it")
    positions, rest = table[:, :3], table[:, 3:]
    if not rest.size:
        return MeshArrays(positions)
    if rest.min() >= 0 and 1 < rest.max() <= 255 and np.array_equal(rest, np.round(rest)):
        return MeshArrays(positions, colors=rest.astype(np.uint8))
    return MeshArrays(positions, normals=rest)


def _refused(path: Path, error: Exception) -> InputError:
    if "object" in str(error).lower():
        return InputError(f"{path.name} holds an object array; plain numbers are expected; save it as floats")
    return not_of_format(path)
