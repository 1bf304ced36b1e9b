"""Methods under test: anything that turns surface points into a head, with what tables say of it."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from implicit3dmm.errors import InputError
from implicit3dmm.extraction import extract
from implicit3dmm.fitting.config import FitConfig
from implicit3dmm.fitting.fit import fit
from implicit3dmm.fitting.head_fit import HeadFit
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.mesh_models.pca import PCAModel, is_pca_file, load_pca
from implicit3dmm.mesh_models.pca_fit import PCAFit, PCAFitConfig, fit_pca
from implicit3dmm.models import HeadModel, load_model, released_models, training_heads

BATCH = ("shapes", "surface_points", "distance_points")
"""Keys of a training's settings that say how many points a step reads."""


@runtime_checkable
class FittedHead(Protocol):
    """What a method gives back."""

    @property
    def mesh(self) -> Mesh:
        """The reconstructed surface, in the frame and unit of the points that were given."""
        ...


@dataclass(frozen=True)
class MethodInfo:
    """What stands beside a method's figures; None for what its file does not say."""

    training_set: str | None = None
    """Heads that it was trained on, such as "1000 makehuman"."""
    training_points: int | None = None
    """Points that its training read, surface and distance points together."""
    training_seconds: float | None = None
    """Wall-clock seconds of the training."""
    training_cpu_seconds: float | None = None
    """Processor-seconds of the training."""
    gate: str | None = None
    """The known figure that the method first had to reach, and what it reached."""


@runtime_checkable
class Method(Protocol):
    """What a protocol needs of a method."""

    @property
    def name(self) -> str:
        """What tables and folders call it."""
        ...

    @property
    def latent_size(self) -> int:
        """Numbers that describe a head."""
        ...

    @property
    def info(self) -> MethodInfo:
        """What stands beside its figures."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that decides on its results, as JSON values."""
        ...

    @property
    def mean_head(self) -> Mesh:
        """What it knows of heads before it sees one, canonical units."""
        ...

    def fit(self, points: Float[np.ndarray, "n 3"]) -> FittedHead:
        """Finds the head whose surface the points are from, in an unknown pose and unit."""
        ...

    def sample(self, count: int, *, temperature: float, rng: np.random.Generator) -> Iterator[Mesh]:
        """Draws new heads, canonical units; `temperature` scales the standard deviations.

        Draws of equal seeds differ between temperatures in their scale alone.
        """
        ...


@dataclass(frozen=True, eq=False)
class FieldMethod:
    """A trained field with our own fit and extraction."""

    model: HeadModel
    config: FitConfig
    """Of the fit."""
    resolution: int
    """Cells along the longest side of the meshes' box."""
    digest: str
    """Of the weights file."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def latent_size(self) -> int:
        """Numbers in all codes of a head."""
        return sum(spec.dim for spec in self.model.field.latent_specs)

    @property
    def info(self) -> MethodInfo:
        """As the weights file says."""
        return describe_training(self.model.info)

    @property
    def settings(self) -> dict[str, Any]:
        """Weights, solver and resolution."""
        return {
            "model": self.name,
            "weights": self.digest,
            "fit": asdict(self.config),
            "resolution": self.resolution,
        }

    @cached_property
    def mean_head(self) -> Mesh:
        """The mesh of the prior's mean codes."""
        return extract(self.model, self.model.prior.mean(), resolution=self.resolution).mesh

    def fit(self, points: Float[np.ndarray, "n 3"]) -> HeadFit:
        """Pose, unit and codes from the points alone."""
        return fit(points, self.model, config=self.config, resolution=self.resolution)

    def sample(self, count: int, *, temperature: float, rng: np.random.Generator) -> Iterator[Mesh]:
        """Heads of codes drawn from the prior."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        drawn = self.model.prior.sample(count, temperature=temperature, generator=generator)
        for number in range(count):
            codes = {name: table[number : number + 1] for name, table in drawn.items()}
            yield extract(self.model, codes, resolution=self.resolution).mesh


@dataclass(frozen=True, eq=False)
class PCAMethod:
    """A linear model of registered heads with its fit to loose points."""

    model: PCAModel
    config: PCAFitConfig
    """Of the fit."""
    digest: str
    """Of the model's file."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def latent_size(self) -> int:
        """Number of components."""
        return len(self.model.deviations)

    @property
    def info(self) -> MethodInfo:
        """As the model's file says."""
        return describe_training(self.model.info)

    @property
    def settings(self) -> dict[str, Any]:
        """Components and solver."""
        return {"model": self.name, "weights": self.digest, "fit": asdict(self.config)}

    @cached_property
    def mean_head(self) -> Mesh:
        """The mean of the training heads."""
        return self.model.mesh(np.zeros(self.latent_size))

    def fit(self, points: Float[np.ndarray, "n 3"]) -> PCAFit:
        """Pose, unit and coefficients from the points alone."""
        return fit_pca(points, self.model, config=self.config)

    def sample(self, count: int, *, temperature: float, rng: np.random.Generator) -> Iterator[Mesh]:
        """Heads of coefficients drawn from the training heads' spread."""
        for coefficients in self.model.sample(count, temperature=temperature, rng=rng):
            yield self.model.mesh(coefficients)


def describe_training(info: Mapping[str, Any]) -> MethodInfo:
    """What a weights file's `info` says of the training; a key "gate" is text, taken as it stands."""
    training = info.get("training", {})
    known = "steps" in info and training.keys() >= set(BATCH)
    per_step = training["shapes"] * (training["surface_points"] + training["distance_points"]) if known else 0
    return MethodInfo(
        training_set=training_heads(info) or None,
        training_points=info["steps"] * per_step if known else None,
        training_seconds=info.get("seconds"),
        training_cpu_seconds=info.get("cpu_seconds"),
        gate=info.get("gate"),
    )


def open_method(
    model: str | Path, *, device: torch.device | str = "cpu", config: FitConfig | None = None, resolution: int = 256
) -> Method:
    """Opens a method by its file.

    Args:
        model: name of a released model, or a weights file.
        device: where a field computes.
        config: of the fit; a linear model takes its seed and points, and has its own solver.
        resolution: cells along the longest side of the box of a field's meshes.

    Raises:
        InputError: there is no such model, or a setting is out of range.
    """
    config = config or FitConfig()
    config.validate()
    path = released_models().get(str(model), Path(model))
    if is_pca_file(path):
        pca_config = PCAFitConfig(seed=config.seed, points=config.points)
        return PCAMethod(load_pca(path), pca_config, file_digest(path))
    loaded = load_model(model, device=device)
    return FieldMethod(loaded, config, resolution, file_digest(path))


def open_methods(models: Sequence[str | Path], open_one: Callable[[str | Path], Method] = open_method) -> list[Method]:
    """Opens several methods, whose names must differ.

    Raises:
        InputError: two have the same name, or none is given.
    """
    if not models:
        raise InputError("no model is given; name one or more")
    methods = [open_one(model) for model in models]
    names = [method.name for method in methods]
    for name, model in zip(names, models, strict=True):
        if names.count(name) > 1:
            raise InputError(f"{model} and another model are both called {name!r}; give models of different names")
    return methods


def file_digest(path: Path) -> str:
    """First half of the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
