"""Weights files of mesh models: named arrays and a header of plain values, in one safetensors file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from implicit3dmm.errors import InputError
from implicit3dmm.files import atomic_path

KEY = "implicit3dmm"
"""Where in the file's metadata the header is."""


def write_weights(path: str | Path, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    """Writes arrays and header whole or not at all.

    Args:
        path: the file.
        arrays: by name.
        header: JSON values; holds "format" and "version".

    Raises:
        InputError: the folder cannot be written to.
    """
    with atomic_path(path) as temporary:
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(contiguous, temporary, {KEY: json.dumps(header)})


def read_header(path: str | Path) -> dict[str, Any]:
    """The header alone, without the arrays; empty where the file has none of this project.

    Raises:
        InputError: there is no such file, or it is no whole safetensors file.
    """
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
        header = json.loads(text) if text else {}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is no whole safetensors file ({error}); get it again") from None
    return header if isinstance(header, dict) else {}


def has_format(path: str | Path, name: str) -> bool:
    """Whether a file is of a format; its header alone is read, and what is no safetensors file is of none."""
    try:
        return read_header(path).get("format") == name
    except InputError:
        return False


def checked_header(path: str | Path, name: str, version: int, keys: set[str], *, what: str) -> dict[str, Any]:
    """The header of a file that has to be of a format.

    Args:
        path: the file.
        name: of the format.
        version: the newest that this program reads.
        keys: that the header has beside format and version.
        what: the file should hold, and what to do where it does not.

    Raises:
        InputError: there is no such file, or it is damaged, foreign or of a newer version.
    """
    header = read_header(path)
    if header.get("format") != name:
        raise InputError(f"{path} holds no {what}")
    if not {"version", *keys} <= header.keys():
        raise InputError(f"{path} lacks a part of its header; get the file again")
    if header["version"] > version:
        raise InputError(f"{path} has format version {header['version']}; this program reads {version}; update it")
    return header


def read_arrays(path: str | Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of a file whose header was read.

    Raises:
        InputError: one of `names` is missing.
    """
    with safe_open(path, framework="np") as file:
        missing = set(names) - set(file.keys())
        if missing:
            raise InputError(f"{path} lacks {', '.join(sorted(missing))}; get the file again")
        return {name: file.get_tensor(name) for name in names}
