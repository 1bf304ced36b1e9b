"""What a network of registered heads is, and the file that one becomes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.mesh_models.topology import Topology

FINISHED_AT_ONCE = 32
"""Heads that are encoded at once after a training."""


class Batch(NamedTuple):
    """Heads that a step learns from."""

    vertices: Float[Tensor, "b v 3"]
    """Canonical units."""
    rest: Float[Tensor, "b v 3"]
    """The neutral heads of the same subjects."""
    labels: dict[str, Int[Tensor, " b"]]
    """As `RegisteredHeads.labels`."""


Draw = Callable[[int], Batch]
"""Draws so many training heads."""


class MeshNetwork(nn.Module, ABC):
    """An architecture: vertices of a fixed topology to a code of `latent_dim` numbers, and back.

    A new one derives from this class in a file of its own and registers itself; training, evaluation and the command
    line then work on it. The mean head and the unit of vertices are learnt from the heads, and are part of the
    weights.
    """

    config: Any
    """The dataclass that it was built from, which the weights file keeps."""
    latent_dim: int
    """Numbers that describe a head."""
    factors: Sequence[str] = ()
    """What heads can share, such as the person; each has a part of the code. Most architectures know none."""

    def __init__(self, config: Any, topology: Topology, *, latent_dim: int):
        super().__init__()
        self.config = config
        self.topology = topology
        self.latent_dim = latent_dim
        self.register_buffer("mean", torch.zeros(topology.size, 3))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("code_mean", torch.zeros(latent_dim))
        self.register_buffer("code_axes", torch.eye(latent_dim))

    def check(self, heads: RegisteredHeads) -> None:
        """Asks, before a training, whether the heads have what the network learns from.

        Raises:
            InputError: they have not.
        """

    def see(self, heads: RegisteredHeads) -> None:
        """Learns the mean head and the unit, in which coordinates deviate from it by about 1, before the first step."""
        self.mean.copy_(torch.from_numpy(heads.mean))
        deviation = np.sqrt(np.mean([np.square(row - heads.mean).mean() for row in heads.vertices]))
        self.unit.fill_(float(deviation))

    def prepare(self, heads: RegisteredHeads) -> None:
        """Makes what only the training needs, once the weights are those that it starts from; by default nothing."""

    @property
    def remark(self) -> str:
        """What who starts a training should know, once it is prepared; by default nothing."""
        return ""

    def finish(self, heads: RegisteredHeads) -> None:
        """Learns, after the last step, what codes and edits are drawn from; by default the codes' Gaussian."""
        with torch.no_grad():
            rows = torch.from_numpy(heads.vertices).to(self.mean.device).split(FINISHED_AT_ONCE)
            codes = torch.cat([self.encode(part) for part in rows]).double()
        self.code_mean.copy_(codes.mean(0))
        variance, axes = torch.linalg.eigh(torch.cov(codes.T))
        self.code_axes.copy_(axes * variance.clamp_min(0).sqrt())

    def sample(self, count: int, *, temperature: float, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Draws codes; `temperature` scales the standard deviations."""
        drawn = torch.randn(count, self.latent_dim, generator=generator).to(self.code_mean)
        return self.unwhiten(temperature * drawn)

    def unwhiten(self, whitened: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Codes of coordinates in which likely heads are standard normal."""
        return self.code_mean + whitened @ self.code_axes.T

    def place(self, factor: str) -> slice:
        """Where in a code the part of a factor stands.

        Raises:
            InputError: there is no such factor.
        """
        raise InputError(f"no factor {factor!r}: {type(self).__name__} has one code for everything; give adversarial")

    @abstractmethod
    def optimiser(self, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Of all weights that are trained."""

    @abstractmethod
    def train_step(
        self, draw: Draw, optimiser: torch.optim.Optimizer, *, batch: int, generator: torch.Generator
    ) -> dict[str, float]:
        """Takes one step.

        Args:
            draw: draws training heads.
            optimiser: of the network, whose rates are set.
            batch: heads of a step.
            generator: of all that the step draws.

        Returns:
            Losses by name, "total" among them; those that are lengths are in canonical units.
        """

    @abstractmethod
    def encode(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b d"]:
        """Codes of heads in canonical units."""

    @abstractmethod
    def decode(self, codes: Float[Tensor, "b d"]) -> Float[Tensor, "b v 3"]:
        """Heads of codes, canonical units."""

    def with_region(
        self, source: Float[Tensor, "b v 3"], donor: Float[Tensor, "b v 3"], name: str
    ) -> Float[Tensor, "b v 3"]:
        """What the architecture makes of source heads that get one region of the donors'.

        Raises:
            InputError: it has no such edit, or there is no such region.
        """
        raise self._no_regions()

    def with_new_region(
        self, source: Float[Tensor, "b v 3"], name: str, *, rng: np.random.Generator
    ) -> Float[Tensor, "b v 3"]:
        """What the architecture makes of source heads whose region is drawn anew, each by itself.

        Raises:
            InputError: it has no such edit, or there is no such region.
        """
        raise self._no_regions()

    def normalised(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b v 3"]:
        """Deviations from the mean head in the network's unit."""
        return (vertices - self.mean) / self.unit

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over the weights of a trained network of the same sizes.

        Raises:
            InputError: they are those of another one.
        """
        try:
            self.load_state_dict(weights)
        except RuntimeError:
            raise InputError(f"the weights to start from are not those of this {type(self).__name__}") from None

    def _no_regions(self) -> InputError:
        return InputError(f"{type(self).__name__} has no regions that can be edited one by one; give lamm or sdvae")


class AutoEncoder(MeshNetwork):
    """A network that learns by giving heads back: each step lowers one sum of losses of a batch by AdamW."""

    def optimiser(self, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """As in `MeshNetwork`."""
        return torch.optim.AdamW(self.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)

    def train_step(
        self, draw: Draw, optimiser: torch.optim.Optimizer, *, batch: int, generator: torch.Generator
    ) -> dict[str, float]:
        """As in `MeshNetwork`."""
        optimiser.zero_grad(set_to_none=True)
        losses = self.losses(draw(batch), generator=generator)
        losses["total"].backward()
        optimiser.step()
        return {name: loss.item() for name, loss in losses.items()}

    @abstractmethod
    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Float[Tensor, ""]]:
        """Losses by name: "total" is what a step lowers, those that are lengths are in canonical units."""


NETWORKS: dict[str, tuple[type, type[MeshNetwork]]] = {}


def register_network(name: str, config: type) -> Callable[[type[MeshNetwork]], type[MeshNetwork]]:
    """Registers an architecture, built as `NetworkClass(config, topology)`, with the dataclass that configures it."""

    def register(network: type[MeshNetwork]) -> type[MeshNetwork]:
        NETWORKS[name] = (config, network)
        return network

    return register


def network_configs() -> dict[str, type]:
    """The config classes of the registered architectures by name."""
    _load_architectures()
    return {name: config for name, (config, _) in NETWORKS.items()}


def build_network(config: Any, topology: Topology) -> MeshNetwork:
    """The network that a config describes, with fresh weights."""
    network_configs()
    return next(network for known, network in NETWORKS.values() if type(config) is known)(config, topology)


@cache
def _load_architectures() -> None:
    from implicit3dmm.mesh_models import adversarial, lamm, sdvae, spiralnet  # noqa: F401 (they register themselves)


@dataclass(frozen=True)
class Architecture:
    """Which network."""

    network: Any = field(metadata={"choose": network_configs})
    """The architecture: `name` and its sizes."""
