"""The state of a training as a safetensors file: weights, codes and the optimiser's moments; never pickle."""

import json
import time
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from implicit3dmm.errors import InputError
from implicit3dmm.files import atomic_path


class Spent(NamedTuple):
    """Time that a training has taken, over all its runs."""

    seconds: float = 0.0
    """By the clock on the wall."""
    cpu_seconds: float | None = 0.0
    """Of all processor cores together; None where a checkpoint does not say."""

    @classmethod
    def now(cls) -> "Spent":
        """The two clocks of this process."""
        return cls(time.monotonic(), time.process_time())

    def plus(self, since: "Spent") -> "Spent":
        """With what has passed since `now()` was `since`."""
        wall, cpu = (now - then for now, then in zip(Spent.now(), since, strict=True))
        return Spent(self.seconds + wall, None if self.cpu_seconds is None else self.cpu_seconds + cpu)


def write_checkpoint(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, step: int, spent: Spent) -> None:
    """Writes the state atomically, so that a killed run keeps the last whole checkpoint.

    Args:
        path: of the file.
        module: the objective, with field and codes.
        optimiser: of its parameters.
        step: number of finished steps.
        spent: the time that they took.

    Raises:
        InputError: the folder cannot be written to.
    """
    tensors = {f"module.{name}": value.contiguous() for name, value in module.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value.contiguous() for name, value in state.items()}
    header = {"step": step, **spent._asdict()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"implicit3dmm-checkpoint": json.dumps(header)})


def read_checkpoint(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, Spent]:
    """Restores what `write_checkpoint` wrote; the optimiser keeps its own learning rates.

    Returns:
        The number of finished steps and the time that they took.

    Raises:
        InputError: the file is damaged, or of another field or corpus.
    """
    step, spent, tensors = _read(path)
    weights = {name.removeprefix("module."): t for name, t in tensors.items() if name.startswith("module.")}
    moments: dict[int, dict[str, Tensor]] = {}
    for name in tensors.keys() - {f"module.{weight}" for weight in weights}:
        _, number, key = name.split(".")
        moments.setdefault(int(number), {})[key] = tensors[name]
    try:
        module.load_state_dict(weights)
    except RuntimeError:
        raise InputError(f"{path} is of another field or corpus; choose another run folder") from None
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return step, spent


def _read(path: Path) -> tuple[int, Spent, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["implicit3dmm-checkpoint"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
        return header["step"], Spent(header["seconds"], header.get("cpu_seconds")), tensors
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is no whole checkpoint ({error}); remove it to start afresh") from None
