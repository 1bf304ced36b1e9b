"""The command line in this process, where it is quick, and as a process of its own, where only that tells."""

import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from implicit3dmm.cli import run
from implicit3dmm.geometry.mesh import read_mesh
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.resources import asset

PATIENCE = 240
"""Seconds that a process may take to get somewhere on a machine that does much else."""


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def command(capfd) -> Callable[..., Result]:
    """Runs `implicit3dmm` with these words in this process, where every warning is an error."""

    def call(*words: object) -> Result:
        capfd.readouterr()
        try:
            code = run([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        return Result(code, *capfd.readouterr())

    return call


@pytest.fixture
def no_picture(monkeypatch) -> None:
    """A blank picture in place of one that takes seconds."""
    monkeypatch.setattr("implicit3dmm.fitting.files.picture", lambda _: np.zeros((4, 4, 3), np.uint8))


@pytest.fixture(scope="session")
def scan_points() -> np.ndarray:
    """3000 points of the shipped scan, in centimetres."""
    return sample_surface(read_mesh(asset("example_scan.ply")), 3000, rng=np.random.default_rng(0)).points


@pytest.fixture
def scan(tmp_path, scan_points) -> Path:
    """A small scan in a folder of its own."""
    path = tmp_path / "scans" / "person.npy"
    path.parent.mkdir()
    np.save(path, scan_points)
    return path


@pytest.fixture
def process(tmp_path):
    """Starts the installed program; whatever still runs when the test ends is killed."""
    script = Path(sysconfig.get_path("scripts")) / "implicit3dmm"
    started = []

    def start(*words: object, program: tuple[object, ...] = (script,)) -> subprocess.Popen:
        started.append(
            subprocess.Popen(
                [str(word) for word in (*program, *words)],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                # A shell's background job ignores SIGINT, and so would its children.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        )
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture
def wait_for():
    """Waits until something is there, and gives it; fails when the process ends before."""

    def wait(find: Callable[[], object], child: subprocess.Popen) -> object:
        for _ in range(PATIENCE * 50):
            if found := find():
                return found
            assert child.poll() is None, child.communicate()
            time.sleep(0.02)
        raise AssertionError("it took too long")

    return wait


@pytest.fixture
def finish():
    """The result of a process that is about to end."""

    def wait(child: subprocess.Popen) -> Result:
        out, err = child.communicate(timeout=PATIENCE)
        return Result(child.returncode, out, err)

    return wait


@pytest.fixture
def assert_refused():
    """Holds a result to what a refusal looks like: exit code 2 and one line on the error stream."""

    def check(result: Result, message: str) -> None:
        assert result.code == 2
        assert result.out == ""
        assert result.err.startswith("implicit3dmm: ")
        assert result.err.count("\n") == 1
        assert message in result.err

    return check


@pytest.fixture
def untouched(tmp_path):
    """Asserts that a test has neither made, changed nor removed a file since this fixture's `note`."""

    class Folder:
        def __init__(self) -> None:
            self.noted: dict[Path, object] = {}

        def contents(self) -> dict[Path, object]:
            return {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}

        def note(self) -> None:
            self.noted = self.contents()

        def check(self) -> None:
            assert self.contents() == self.noted

    return Folder()
