"""What several sub-commands share."""

import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]


def tell(message: str) -> None:
    """Says something on the error stream, in one line."""
    print(f"implicit3dmm: {message}".replace("\n", " "), file=sys.stderr)


def first_paragraph(text: str) -> str:
    """The text up to its first empty line, in one line: what a licence notice says before the licence itself."""
    return " ".join(text.strip().partition("\n\n")[0].split())


def open_device(device: Device) -> str:
    """The device to use: CUDA where it is there, unless the CPU is asked for.

    Raises:
        InputError: CUDA is asked for and there is none.
    """
    import torch

    from implicit3dmm.errors import InputError

    torch.set_flush_denormal(True)  # Softplus makes denormals, which are many times slower than zeros
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is available; use --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def progress(label: str):
    """A progress bar on the error stream; silent where that is no terminal."""
    from tqdm import tqdm

    def wrap(items: Iterable) -> Iterable:
        return tqdm(items, desc=label, file=sys.stderr, disable=not sys.stderr.isatty(), leave=False)

    return wrap


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """The folder `path`, proven writable before any work; where the work fails and left it empty, it goes again.

    Raises:
        InputError: it cannot be made or written to.
    """
    from implicit3dmm.files import writable_folder

    missing = _missing_folders(path)
    try:
        yield writable_folder(path)
    except BaseException:
        _remove_empty(missing)
        raise


@contextmanager
def run_folder(path: Path, *, keeps: str, advice: str) -> Iterator[None]:
    """Keeps what a stopped run can go on from, and leaves nothing where it cannot.

    Args:
        path: the run's folder; it is made where it is missing and proven writable before any work.
        keeps: pattern of the entries of `path` that a later run goes on from.
        advice: how to go on, said when the user interrupts and there is such an entry.

    Raises:
        InputError: it cannot be made or written to.
    """
    from implicit3dmm.files import writable_folder

    missing = _missing_folders(path)
    before = set(path.iterdir()) if path.is_dir() else set()
    try:
        writable_folder(path)
        yield
    except BaseException as error:
        resumable = any(path.glob(keeps))
        if not resumable and path.is_dir():
            for added in set(path.iterdir()) - before:
                shutil.rmtree(added) if added.is_dir() else added.unlink()
            _remove_empty(missing)
        if isinstance(error, KeyboardInterrupt):
            kept = f"{path} keeps what is done: {advice}" if resumable else "too early to keep anything"
            raise KeyboardInterrupt(kept) from None
        raise


def _missing_folders(path: Path) -> list[Path]:
    """`path` and those of its parents that do not exist yet, the innermost first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
