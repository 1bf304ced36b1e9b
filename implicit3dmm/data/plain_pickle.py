"""Pickles of plain values and NumPy arrays, read without running anything that they ask for.

A pickle is a program that may call any function by its name. This reader knows seven names, those that arrays and
ordered mappings are written with, and gives its own stand-ins for them: no name is ever imported, and NumPy sees whole
arrays of numbers alone.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from implicit3dmm.errors import InputError

_KIND = re.compile("[biuf][1248]")


def read_plain_pickle(path: str | Path) -> Any:
    """The value that a pickle of any protocol holds: numbers, text, lists, mappings and numeric NumPy arrays.

    Raises:
        InputError: the file cannot be read, is damaged, or asks for anything else.
    """
    try:
        with Path(path).open("rb") as file:
            return _finished(_Reader(file, path).load())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a pickle of plain arrays") from None
    except InputError:
        raise
    except Exception as error:  # what a damaged stream raises may be anything
        raise InputError(
            f"{path} is damaged or no pickle of plain arrays ({type(error).__name__}); save it again"
        ) from None


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, path: str | Path):
        # Pickles of Python 2 hold arrays as text, of which every letter is a byte.
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> "_Known":
        function = _KNOWN.get((module.replace("numpy._core.", "numpy.core."), name))
        if function is None:
            raise InputError(
                f"{self._path} asks for {module}.{name}, which is no plain array or number, and was not run; save a"
                " mapping of NumPy arrays"
            )
        return _Known(function)


class _Known:
    """A name that a pickle may call, and do nothing else with."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *given: Any) -> Any:
        return self._function(*given)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a name was given a state")


class _Kind:
    """What an array holds: numbers of one size."""

    __slots__ = ("numbers",)

    def __init__(self, code: str, *_: Any):
        if not _KIND.fullmatch(code):
            raise pickle.UnpicklingError(f"an array of {code}")
        self.numbers = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.numbers = self.numbers.newbyteorder(state[1])


class _Array:
    """An array; the stream never holds NumPy's own, which would take any state that it is given."""

    __slots__ = ("values",)

    def __init__(self, *_: Any):
        self.values = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_columns, data = state
        self.values = _numbers(data, kind, shape, "F" if by_columns else "C")


def _array(data: bytes | bytearray, kind: _Kind, shape: tuple[int, ...], order: str) -> _Array:
    """How protocol 5 writes an array."""
    made = _Array()
    made.values = _numbers(data, kind, shape, order)
    return made


def _numbers(data: bytes | bytearray | str, kind: _Kind, shape: tuple[int, ...], order: str) -> np.ndarray:
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    native = kind.numbers.newbyteorder("=")
    return np.frombuffer(raw, kind.numbers).reshape(shape, order=order).astype(native)


def _scalar(kind: _Kind, data: bytes | str) -> int | float | bool:
    return _numbers(data, kind, (), "C").item()


def _from_text(text: str, encoding: str) -> bytes:
    """How protocols 0 to 2 write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes as {encoding}")
    return text.encode("latin1")


def _finished(value: Any) -> Any:
    """The value with arrays in place of their stand-ins."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict):
        return {key: _finished(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(part) for part in value)
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__}")


_KNOWN: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array,
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): _from_text,
}
