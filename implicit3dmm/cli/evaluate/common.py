"""What protocols share: which models, which heads, and where the results go."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes

from implicit3dmm.cli.common import Device, open_device, run_folder

if TYPE_CHECKING:
    from implicit3dmm.evaluation.cases import HeldOut
    from implicit3dmm.evaluation.methods import Method

Split = Literal["test", "validation", "train"]


@dataclass(frozen=True)
class Models:
    """What is tested, and how it fits."""

    model: tuple[str, ...] = ("imhead",)
    """Released models, weights files of fields or of principal components; differences are taken to the first."""
    steps: int | None = None
    """Steps of a field's solver; its own default where none are given."""
    resolution: int = 256
    """Cells along the longest side of the box of a field's meshes."""
    device: Device = "auto"
    """Where to compute."""

    def open(self, *, seed: int) -> "list[Method]":
        """The methods, whose fits draw from `seed`."""
        from implicit3dmm.evaluation.methods import open_method, open_methods
        from implicit3dmm.fitting import FitConfig

        config = FitConfig(seed=seed) if self.steps is None else FitConfig(seed=seed, steps=self.steps)
        device = open_device(self.device)
        return open_methods(
            self.model, lambda name: open_method(name, device=device, config=config, resolution=self.resolution)
        )


@dataclass(frozen=True)
class Heads:
    """Which heads are reconstructed."""

    split: Split = "test"
    """Which of the corpus's heads."""
    heads: int | None = None
    """Only the first so many."""
    seed: int = 0
    """Seed of points, poses and samples."""

    def held_out(self) -> "HeldOut":
        """The library's form of it."""
        from implicit3dmm.evaluation.cases import HeldOut

        return HeldOut(split=self.split, heads=self.heads, seed=self.seed)


TheModels = OmitArgPrefixes[Models]
TheHeads = OmitArgPrefixes[Heads]


@contextmanager
def results(out: Path, *, keeps: str = "*/results.jsonl") -> Iterator[None]:
    """The folder of a run, kept where a later one can go on from what matches `keeps`."""
    with run_folder(out, keeps=keeps, advice="the same command goes on with it"):
        yield


def show(out: Path) -> int:
    """Prints the summary."""
    print((out / "summary.md").read_text(encoding="utf-8"))
    return 0
