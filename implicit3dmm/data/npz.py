"""Reading .npz files that may be damaged."""

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def read_npz(path: Path, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays `keys` of an .npz file; nothing is unpickled.

    Raises:
        ValueError: the file is missing, truncated, no .npz, or lacks a key; the message says which.
    """
    try:
        # The file is opened here, because NumPy leaves it open where it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in keys}
    except (OSError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error) or type(error).__name__) from None
