"""The state of a training as a safetensors file: weights, codes and the optimiser's moments; never pickle."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from implicit3dmm.errors import InputError
from implicit3dmm.files import atomic_path


def write_checkpoint(
    path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, step: int, seconds: float
) -> None:
    """Writes the state atomically, so that a killed run keeps the last whole checkpoint.

    Args:
        path: of the file.
        module: the objective, with field and codes.
        optimiser: of its parameters.
        step: number of finished steps.
        seconds: that they took.

    Raises:
        InputError: the folder cannot be written to.
    """
    tensors = {f"module.{name}": value.contiguous() for name, value in module.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value.contiguous() for name, value in state.items()}
    header = {"step": step, "seconds": seconds}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"implicit3dmm-checkpoint": json.dumps(header)})


def read_checkpoint(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    """Restores what `write_checkpoint` wrote; the optimiser keeps its own learning rates.

    Returns:
        The number of finished steps and the seconds that they took.

    Raises:
        InputError: the file is damaged, or of another field or corpus.
    """
    step, seconds, tensors = _read(path)
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
    return step, seconds


def _read(path: Path) -> tuple[int, float, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["implicit3dmm-checkpoint"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
        return header["step"], header["seconds"], tensors
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is no whole checkpoint ({error}); remove it to start afresh") from None
