"""Files that are either whole or not there."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from implicit3dmm.errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; renames it to `path` when the block ends well, else removes it.

    The temporary name keeps the suffix of `path`, so writers that choose a format by suffix work.

    Raises:
        InputError: the folder does not exist or cannot be written to.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; choose a folder that exists and is writable"
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def staged_folder(folder: str | Path) -> Iterator[Path]:
    """Gives a temporary folder inside `folder`; when the block ends well its files move up, else they go.

    What several files say together, such as a mesh and its report, then comes from one and the same run.

    Raises:
        InputError: `folder` cannot be written to, or holds a folder by the name of a new file.
    """
    folder = writable_folder(folder)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as temporary:
        yield Path(temporary)
        names = sorted(path.name for path in Path(temporary).iterdir())
        taken = next((folder / name for name in names if (folder / name).is_dir()), None)
        if taken:
            raise InputError(f"{taken} is a folder; a file is to be written there; choose another folder")
        for name in names:
            os.replace(Path(temporary) / name, folder / name)


def writable_folder(path: str | Path) -> Path:
    """Makes the folder `path` where it is missing and proves that a file can be written in it.

    Raises:
        InputError: `path` is a file, or it cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {path}: {error.strerror}; choose another folder") from None
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
