"""What every training does beside its steps: a folder of its own, checkpoints, metrics, a clock, and going on."""

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
import yaml
from torch import nn

from implicit3dmm.config import from_mapping, to_mapping
from implicit3dmm.errors import InputError
from implicit3dmm.files import atomic_path, writable_folder
from implicit3dmm.training.checkpoints import Spent, read_checkpoint, write_checkpoint
from implicit3dmm.yaml_files import read_yaml

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"


class Pace(Protocol):
    """What a run reads of a training's settings."""

    steps: int
    checkpoint_every: int
    log_every: int


class Run:
    """A run folder: config.yaml, checkpoint.safetensors, metrics.jsonl and tensorboard events."""

    def __init__(self, folder: str | Path, config: Any, *, of: str):
        """Claims the folder and writes config.yaml.

        Args:
            folder: of the run; made if missing.
            config: the run's config, with `training`.
            of: the field of `config` that says what is trained; a checkpoint of another one is not overwritten.

        Raises:
            InputError: the folder cannot be written to, or holds a run of another architecture.
        """
        self.folder = writable_folder(folder)
        self.pace: Pace = config.training
        self.step = 0
        self.spent = Spent()
        self.means: dict[str, float] = {}
        """Of the losses, as last logged."""
        path = self.folder / "config.yaml"
        if path.exists() and self.begun:
            held = from_mapping(type(config), {of: read_yaml(path).get(of, {})}, where=str(path))
            if getattr(held, of) != getattr(config, of):
                raise InputError(f"{self.folder} holds a run of another {of}; choose another folder")
        with atomic_path(path) as temporary:
            temporary.write_text(yaml.safe_dump(to_mapping(config), sort_keys=False))

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return (self.folder / CHECKPOINT).exists()

    def resume(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Goes on from the folder's checkpoint; a folder without one starts afresh.

        Raises:
            InputError: the checkpoint is damaged, or of another field or corpus.
        """
        if self.begun:
            self.step, self.spent = read_checkpoint(self.folder / CHECKPOINT, module, optimiser)
            log.info("resumed at step %d", self.step)

    def go(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        one_step: Callable[[int], dict[str, float]],
        *,
        progress: Callable[[Iterable], Iterable] = iter,
    ) -> None:
        """Takes the steps that are left.

        Args:
            module: what checkpoints hold.
            optimiser: of its parameters.
            one_step: from the step's number to its losses; draws from that number alone, so that a resumed run draws
                what an unbroken one would.
            progress: wraps the steps, such as `tqdm`.
        """
        torch.set_flush_denormal(True)  # Softplus makes denormals, which are many times slower than zeros
        started, before = Spent.now(), self.spent
        with _Log(self.folder, self.step) as metrics:
            for step in progress(range(self.step, self.pace.steps)):
                metrics.add(one_step(step))
                self.step = step + 1
                self.spent = before.plus(started)
                last = self.step == self.pace.steps
                if last or self.step % self.pace.log_every == 0:
                    self.means = metrics.write(self.step, self.spent.seconds)
                if last or self.step % self.pace.checkpoint_every == 0:
                    write_checkpoint(self.folder / CHECKPOINT, module, optimiser, self.step, self.spent)

    def info(self) -> dict[str, Any]:
        """Name, settings, steps and time, as a weights file says them."""
        return {
            "name": self.folder.resolve().name,
            "training": to_mapping(self.pace),
            "steps": self.step,
            **{clock: round(spent) for clock, spent in self.spent._asdict().items() if spent is not None},
        }


class _Log:
    """Means of the losses, in metrics.jsonl and as tensorboard scalars.

    What a killed run wrote after `step`, its last checkpoint, is dropped.
    """

    def __init__(self, folder: Path, step: int):
        self._folder = folder
        self._step = step
        self._added: list[dict[str, float]] = []

    def __enter__(self) -> "_Log":
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        path = self._folder / "metrics.jsonl"
        _truncate_metrics(path, self._step)
        self._file = path.open("a")
        self._board = SummaryWriter(self._folder / "tensorboard", purge_step=self._step + 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()

    def add(self, losses: dict[str, float]) -> None:
        self._added.append(losses)

    def write(self, step: int, seconds: float) -> dict[str, float]:
        """One line, which is returned, with the means of what was added since the last one."""
        means = {name: fmean(losses[name] for losses in self._added) for name in self._added[0]}
        row = {"step": step, "seconds": round(seconds, 1)} | {k: float(f"{v:.6g}") for k, v in means.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in means.items():
            self._board.add_scalar(f"loss/{name}", value, step)
        self._added.clear()
        return row


def _truncate_metrics(path: Path, step: int) -> None:
    """Drops the lines after `step`, the last of which may be cut off."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))
