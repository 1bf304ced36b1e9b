"""The training of networks of registered heads; its run folder is that of fields."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.lamm_layout import LAMMFolder
from implicit3dmm.errors import InputError
from implicit3dmm.mesh_models.base import Batch, build_network, network_configs
from implicit3dmm.mesh_models.meshes import TrainingMeshes
from implicit3dmm.mesh_models.model import MeshModel, load_network, save_network
from implicit3dmm.training.run import Run


@dataclass(frozen=True)
class MeshTrainingConfig:
    """How a network is trained."""

    seed: int = 0
    """Seed of weights and batches."""
    steps: int = 6000
    """Optimiser steps."""
    subjects: int | None = None
    """Only so many training subjects, the first; all by default."""
    batch: int = 32
    """Heads in a step."""
    learning_rate: float = 1e-3
    """Highest rate."""
    final_rate: float = 1e-6
    """Rate at the last step, where the cosine ends."""
    warmup: int = 200
    """Steps over which the rate rises from zero."""
    weight_decay: float = 0.0
    """Of AdamW."""
    controls: int = 6
    """Control points of each region."""
    half: bool = False
    """Whether the weights file keeps weights in half precision."""
    checkpoint_every: int = 500
    """Steps between checkpoints; a killed run loses at most these."""
    log_every: int = 50
    """Steps between log lines, which hold the means since the line before; the last step has a line too."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        for name in ("steps", "batch", "controls", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.subjects is not None and self.subjects < 2:
            raise InputError(f"subjects is {self.subjects}; expected at least 2, or null for all")
        if not 0 <= self.final_rate <= self.learning_rate or self.learning_rate <= 0:
            raise InputError(f"learning_rate is {self.learning_rate}; expected above 0 and at least final_rate")
        for name in ("warmup", "weight_decay"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 0")


@dataclass(frozen=True)
class MeshRunConfig:
    """A training run: which network, trained how."""

    network: Any = dataclasses.field(metadata={"choose": network_configs})
    """The architecture: `name` and its sizes."""
    training: MeshTrainingConfig = dataclasses.field(default_factory=MeshTrainingConfig)
    """How it is trained."""
    start: str | None = None
    """Weights file of a network of the same sizes that training starts from; by default weights are fresh."""


class MeshTrainer:
    """Trains one network on the registered heads of one recipe or folder of meshes in one run folder; see `Run`.

    Batches depend on the seed and the step alone, so a resumed run draws what an unbroken one would.
    """

    def __init__(self, config: MeshRunConfig, heads: Heads | LAMMFolder, folder: str | Path, *, device: str = "cpu"):
        """Makes the heads, and network and optimiser afresh; `resume` replaces these by the checkpoint's.

        Args:
            config: the network and how it is trained.
            heads: a corpus or a recipe, of which the training split counts; or a folder in LAMM's layout.
            folder: of the run; made if missing.
            device: where the network lives.

        Raises:
            InputError: there are fewer than two training subjects, the heads lack what the network learns from, the
                start is another network's, or the folder cannot be written to or holds a run of another network.
        """
        self.config = config
        self.device = torch.device(device)
        settings = config.training
        meshes = TrainingMeshes.of(heads)
        least = max(2, settings.subjects or 2)
        if meshes.count < least:
            raise InputError(f"{meshes.name} has {meshes.count} training subjects; expected {least}")
        topology = meshes.topology(settings.controls)
        self.run = Run(folder, config, of="network")
        self.data = meshes.registered(settings.subjects)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = build_network(config.network, topology)
        network.check(self.data)
        start = None if config.start is None else load_network(config.start)
        self._start = start and start.name
        self._origin = meshes.origin
        if start:
            network.start_from(start.network.state_dict())
        else:
            network.see(self.data)
        network.prepare(self.data)
        self.network = network.to(self.device)
        self.optimiser = network.optimiser(learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
        self._rates = [group["lr"] for group in self.optimiser.param_groups]
        self._vertices = torch.from_numpy(self.data.vertices)

    def resume(self) -> None:
        """Goes on from the folder's checkpoint; a folder without one starts afresh.

        Raises:
            InputError: the checkpoint is damaged, or of another network or corpus.
        """
        self.run.resume(self.network, self.optimiser)

    def train(self, *, progress: Callable[[Iterable], Iterable] = iter) -> MeshModel:
        """Runs to the configured number of steps, writes model.safetensors and returns the model.

        Args:
            progress: wraps the remaining steps, such as `tqdm`.

        Raises:
            InputError: a loss stopped being finite; the message names the step, and the last checkpoint stays.
        """
        self.run.go(self.network, self.optimiser, self._step, progress=progress)
        self.network.finish(self.data)
        model = self.model()
        save_network(self.run.folder / "model.safetensors", model, half=self.config.training.half)
        return model

    def model(self) -> MeshModel:
        """The model as it stands."""
        info = {**self._origin, "start": self._start, "heads": len(self.data), **self.run.info()}
        return MeshModel(self.network, info)

    def _step(self, step: int) -> dict[str, float]:
        settings = self.config.training
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * rate_factor(step, settings)
        losses = self.network.train_step(
            lambda count: self._draw(count, generator),
            self.optimiser,
            batch=settings.batch,
            generator=generator,
        )
        if not all(map(math.isfinite, losses.values())):
            raise InputError(
                f"the losses {losses} are not finite at step {step}; lower the learning rate and resume from the last "
                "checkpoint"
            )
        return losses

    def _draw(self, count: int, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(self.data), (count,), generator=generator)
        rest = torch.from_numpy(self.data.rest)[rows]
        labels = {name: torch.from_numpy(values)[rows] for name, values in self.data.labels.items()}
        return Batch(
            self._vertices[rows].to(self.device),
            self._vertices[rest].to(self.device),
            {name: values.to(self.device) for name, values in labels.items()},
        )


def rate_factor(step: int, settings: MeshTrainingConfig) -> float:
    """Factor of the learning rate at a step: a rise, then half a cosine down to `final_rate`."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    least = settings.final_rate / settings.learning_rate
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * done))
