"""PLY files: elements made of named columns, in all three encodings.

A file that is shorter than its header says is refused, text or binary.
"""

import io
import itertools
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from implicit3dmm.errors import InputError

Column = np.ndarray | tuple[np.ndarray, np.ndarray]
"""One number a row; for a list property the values of all lists, one behind the other, and their lengths."""

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_TYPE_NAMES = {
    "i1": "char",
    "u1": "uchar",
    "i2": "short",
    "u2": "ushort",
    "i4": "int",
    "f4": "float",
    "f8": "double",
}
_BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_LONGEST_HEADER = 1 << 16


def read_ply(path: Path) -> dict[str, dict[str, Column]]:
    """Reads every element of a PLY file.

    Returns:
        Element name -> property name -> column.

    Raises:
        InputError: the file is not PLY, its header is damaged, or it ends too early.
    """
    data = path.read_bytes()
    encoding, elements, start = _parse_header(data, path.name)
    stream = io.BytesIO(data)
    stream.seek(start)
    read = _read_text if encoding == "ascii" else _read_binary
    try:
        return {element.name: read(stream, element) for element in elements if element.properties}
    except _TruncatedError as error:
        raise InputError(
            f"{path.name} is truncated or damaged: {error}; a whole PLY file is expected; export it again"
        ) from None


def write_ply(path: Path, vertex: dict[str, Shaped[np.ndarray, " v"]], *, faces: Int[np.ndarray, "f 3"] | None) -> None:
    """Writes a little-endian binary PLY file.

    Args:
        path: the file.
        vertex: the columns of the element "vertex"; each keeps its type.
        faces: vertex indices of triangles, the element "face"; left out when None.
    """
    kinds = {name: column.dtype.str[1:] for name, column in vertex.items()}
    count = len(next(iter(vertex.values())))
    table = np.empty(count, dtype=[(name, "<" + kind) for name, kind in kinds.items()])
    for name, column in vertex.items():
        table[name] = column
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [f"property {_TYPE_NAMES[kind]} {name}" for name, kind in kinds.items()]
    if faces is not None:
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    with path.open("wb") as file:
        file.write("\n".join([*header, "end_header", ""]).encode("ascii"))
        file.write(table.tobytes())
        if faces is not None:
            rows = np.empty(len(faces), dtype=[("length", "u1"), ("corners", "<i4", (3,))])
            rows["length"], rows["corners"] = 3, faces
            file.write(rows.tobytes())


@dataclass(frozen=True)
class _Property:
    name: str
    type: np.dtype
    length_type: np.dtype | None
    """Of the number before each list; None for a plain value."""


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: list[_Property]

    def too_short(self) -> "_TruncatedError":
        return _TruncatedError(f"not all of the {self.count} rows of '{self.name}' are there")


class _TruncatedError(Exception):
    """The data end before the header's counts are reached."""


def _parse_header(data: bytes, name: str) -> tuple[str, list[_Element], int]:
    """The encoding, the elements, and where the data start."""
    if not data.startswith((b"ply\n", b"ply\r", b"ply ")):
        raise InputError(f"{name} does not start with 'ply'; a PLY file is expected; check its suffix")
    end = data.find(b"end_header", 0, _LONGEST_HEADER)
    start = data.find(b"\n", end) + 1
    lines = data[: max(end, 0)].decode("latin-1").splitlines()[1:]
    encoding = next((words[1] for line in lines if (words := line.split())[:1] == ["format"] and words[1:]), "")
    if not start or encoding not in _BYTE_ORDERS:
        raise InputError(f"{name} has no whole PLY header; format and end_header are expected; export it again")
    elements: list[_Element] = []
    for line in lines:
        if not _parse_line(line.split(), elements, _BYTE_ORDERS[encoding]):
            raise InputError(
                f"{name} has the line '{line[:60]}' in its header; a PLY header is expected; export it again"
            )
    return encoding, elements, start


def _parse_line(words: list[str], elements: list[_Element], order: str) -> bool:
    """Adds what one line of a header says to `elements`; False where it makes no sense."""
    match words:
        case [] | ["format" | "comment" | "obj_info", *_]:
            return True
        case ["element", name, count] if count.isdecimal():
            elements.append(_Element(name, int(count), []))
            return True
        case ["property", "list", length, kind, name] if elements and length in _TYPES and kind in _TYPES:
            types = np.dtype(order + _TYPES[kind]), np.dtype(order + _TYPES[length])
        case ["property", kind, name] if elements and kind in _TYPES:
            types = np.dtype(order + _TYPES[kind]), None
        case _:
            return False
    elements[-1].properties.append(_Property(name, *types))
    return True


def _read_binary(stream: io.BytesIO, element: _Element) -> dict[str, Column]:
    """The columns of one element; all lists of a property are first taken to be as long as its first one."""
    start = stream.tell()
    lengths = _first_lengths(stream, element)
    stream.seek(start)
    fields = []
    for prop in element.properties:
        if prop.length_type is None:
            fields.append((prop.name, prop.type))
        else:
            fields += [
                (f"{prop.name} length", prop.length_type),
                (prop.name, prop.type, (lengths[prop.name],)),
            ]
    row = np.dtype(fields)
    if element.count * row.itemsize <= len(stream.getbuffer()) - start:
        table = np.frombuffer(stream.read(element.count * row.itemsize), dtype=row, count=element.count)
        if all((table[f"{name} length"] == length).all() for name, length in lengths.items()):
            return {prop.name: _column(table[prop.name], lengths.get(prop.name)) for prop in element.properties}
    if not lengths:
        raise element.too_short()
    stream.seek(start)
    return _read_ragged(stream, element)


def _first_lengths(stream: io.BytesIO, element: _Element) -> dict[str, int]:
    """How long the lists in the first row are."""
    lengths = {prop.name: 0 for prop in element.properties if prop.length_type is not None}
    for prop in element.properties if element.count else ():
        if prop.length_type is not None:
            lengths[prop.name] = int(_numbers(stream, prop.length_type, 1, element)[0])
        _numbers(stream, prop.type, lengths.get(prop.name, 1), element)
    return lengths


def _column(values: np.ndarray, length: int | None) -> Column:
    return values if length is None else (values.ravel(), np.full(len(values), length))


def _read_ragged(stream: io.BytesIO, element: _Element) -> dict[str, Column]:
    """Row by row, for lists of different lengths such as triangles among quads."""
    rows: dict[str, list[np.ndarray]] = {prop.name: [] for prop in element.properties}
    for _ in range(element.count):
        for prop in element.properties:
            length = 1
            if prop.length_type is not None:
                length = int(_numbers(stream, prop.length_type, 1, element)[0])
            rows[prop.name].append(_numbers(stream, prop.type, length, element))
    return {prop.name: _joined(rows[prop.name], prop) for prop in element.properties}


def _numbers(stream: io.BytesIO, kind: np.dtype, count: int, element: _Element) -> np.ndarray:
    data = stream.read(max(count, 0) * kind.itemsize)
    if count < 0 or len(data) < count * kind.itemsize:
        raise element.too_short()
    return np.frombuffer(data, dtype=kind)


def _joined(rows: list[np.ndarray], prop: _Property) -> Column:
    values = np.concatenate(rows) if rows else np.empty(0, prop.type)
    if prop.length_type is None:
        return values
    return values, np.array([len(row) for row in rows], dtype=np.int64)


def _read_text(stream: io.BytesIO, element: _Element) -> dict[str, Column]:
    """The columns of one element, one row a line."""
    lines = itertools.islice(stream, element.count)
    if any(prop.length_type is not None for prop in element.properties):
        return _read_text_lists(lines, element)
    names = [prop.name for prop in element.properties]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # NumPy warns of elements without rows
            table = np.loadtxt(lines, ndmin=2, comments=None, usecols=range(len(names)))
    except (ValueError, IndexError):
        raise _TruncatedError(f"a row of '{element.name}' is not made of {len(names)} numbers") from None
    if len(table) < element.count:
        raise element.too_short()
    return {name: table[:, i] for i, name in enumerate(names)} if element.count else {}


def _read_text_lists(lines: itertools.islice, element: _Element) -> dict[str, Column]:
    rows: dict[str, list[np.ndarray]] = {prop.name: [] for prop in element.properties}
    for line in lines:
        try:
            numbers = np.array(line.split(), dtype=bytes).astype(np.float64)
            for prop in element.properties:
                length, skip = (1, 0) if prop.length_type is None else (int(numbers[0]), 1)
                row = numbers[skip : skip + length]
                if length < 0 or len(row) < length:
                    raise element.too_short()
                rows[prop.name].append(_cast(row, prop.type))
                numbers = numbers[skip + length :]
        except (ValueError, IndexError, OverflowError):
            raise _TruncatedError(f"a row of '{element.name}' is not made of numbers") from None
    if any(len(column) < element.count for column in rows.values()):
        raise element.too_short()
    return {prop.name: _joined(rows[prop.name], prop) for prop in element.properties}


def _cast(numbers: np.ndarray, kind: np.dtype) -> np.ndarray:
    if kind.kind in "iu" and not (np.abs(numbers) < 2.0**31).all():
        raise ValueError("not an integer")
    return numbers.astype(kind)
