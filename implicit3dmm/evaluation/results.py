"""A run of a protocol on disk: what was asked for, and one JSON line for each finished head."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from implicit3dmm.errors import InputError
from implicit3dmm.files import atomic_path, writable_folder

Row = dict[str, Any]


class ResultsFolder:
    """Holds protocol.json and results.jsonl; a run that was killed goes on after its last whole line."""

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]):
        """Opens the folder, made where it is missing, for one run.

        Args:
            folder: where.
            settings: all that decides on the results, as JSON values; a folder serves one set of them.

        Raises:
            InputError: the folder belongs to another run or to something else, cannot be written to, or its
                results are damaged.
        """
        self.folder = writable_folder(folder)
        self._path = self.folder / "results.jsonl"
        self._claim(plain_json(settings))
        _drop_torn_line(self._path)
        self.rows = read_rows(self._path)

    @classmethod
    def of_method(cls, folder: str | Path, name: str, settings: Mapping[str, Any]) -> "ResultsFolder":
        """The folder of one method in that of a run."""
        return cls(Path(folder) / name.replace("/", "_"), settings)

    def append(self, row: Row) -> None:
        """Adds one row, whole and on disk before this returns; numbers that are not finite become null.

        Raises:
            InputError: the file cannot be written, such as on a full disk.
        """
        row = plain_json(row)
        line = json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n"
        try:
            with self._path.open("ab", buffering=0) as file:
                file.write(line.encode())
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                f"cannot write {self._path}: {error.strerror}; make room and run again: what is done is kept"
            ) from None
        self.rows.append(row)

    def _claim(self, settings: dict[str, Any]) -> None:
        path = self.folder / "protocol.json"
        if not path.exists():
            if any(self.folder.iterdir()):
                raise InputError(f"{self.folder} is not empty and holds no results; choose another folder")
            write_json(path, settings)
            return
        known = json.loads(path.read_text())
        differing = [key for key in known | settings if known.get(key) != settings.get(key)]
        if differing:
            raise InputError(
                f"{self.folder} holds results of other settings ({', '.join(differing)}); those of one run"
                " are expected; choose another folder or remove it"
            )


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a results file; none where there is no file yet, and without a last line that is torn.

    Raises:
        InputError: a line is not JSON.
    """
    path = Path(path)
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise InputError(
                f"{path}, line {number} is damaged; a JSON object is expected; remove the line, and its head"
                " is done again"
            ) from None
    return rows


def write_json(path: str | Path, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all; numbers that are not finite become null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plain_json(value), allow_nan=False, indent=1) + "\n")


def plain_json(value: Any) -> Any:
    """The value as JSON gives it back: tuples as lists, keys as text, null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _drop_torn_line(path: Path) -> None:
    """Cuts off what a killed run left after the last line end."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
