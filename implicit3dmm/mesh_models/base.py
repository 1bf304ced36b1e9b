"""What a network of registered heads is, and the file that one becomes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit3dmm.config import from_mapping, to_mapping
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.mesh_models.topology import Topology
from implicit3dmm.mesh_models.weights import checked_header, has_format, read_arrays, write_weights
from implicit3dmm.models import FRAME, model_file

FORMAT = "implicit3dmm-mesh-network"
FORMAT_VERSION = 1
FINISHED_AT_ONCE = 32
"""Heads that are encoded at once after a training."""
TOPOLOGY = ("triangles", "cap", "labels", "controls")


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


@dataclass(frozen=True, eq=False)
class MeshModel:
    """A trained network and what one has to know of it."""

    network: MeshNetwork
    info: Mapping[str, Any]
    """Name, licence, corpus recipe, training config and time, as written in the file."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.info["name"]

    @property
    def topology(self) -> Topology:
        """Its topology."""
        return self.network.topology

    @torch.no_grad()
    def encode(self, vertices: Float[np.ndarray, "b v 3"]) -> Float[np.ndarray, "b d"]:
        """Codes of registered heads in canonical units.

        Raises:
            InputError: the heads are of another topology.
        """
        self.topology.check(vertices, what="the head")
        return self.network.encode(torch.as_tensor(np.asarray(vertices, np.float32))).numpy()

    @torch.no_grad()
    def decode(self, codes: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b v 3"]:
        """Vertices of codes, canonical units.

        Raises:
            InputError: the codes are of another size.
        """
        if codes.ndim != 2 or codes.shape[1] != self.network.latent_dim:
            raise InputError(f"codes of shape {codes.shape} given; {self.name} has (b, {self.network.latent_dim})")
        return self.network.decode(torch.as_tensor(np.asarray(codes, np.float32))).numpy()

    def mesh(self, vertices: Float[np.ndarray, "v 3"]) -> Mesh:
        """The closed head of some vertices."""
        return Mesh(vertices, self.topology.triangles)


def save_network(path: str | Path, model: MeshModel, *, half: bool = False) -> None:
    """Writes a network with its topology into one safetensors file; it is replaced as a whole or not at all.

    Args:
        path: the file.
        model: whose `info` is plain values.
        half: whether weights are kept in half precision; the mean head and the topology are always whole.

    Raises:
        InputError: the folder cannot be written to.
    """
    weights = {f"network.{name}": value.cpu().numpy() for name, value in model.network.state_dict().items()}
    if half:
        own = {f"network.{name}" for name, _ in model.network.named_parameters()}
        weights = {name: value.astype(np.float16) if name in own else value for name, value in weights.items()}
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "frame": FRAME,
        "regions": list(model.topology.names),
        "network": to_mapping(Architecture(model.network.config))["network"],
        "info": dict(model.info),
    }
    topology = {name: getattr(model.topology, name) for name in TOPOLOGY}
    small = {name: each.astype(np.int32) if each.dtype == np.int64 else each for name, each in topology.items()}
    write_weights(path, weights | small, header)


def is_network_file(path: str | Path) -> bool:
    """Whether a file holds a network of registered heads; its header alone is read."""
    return has_format(path, FORMAT)


def load_network(name_or_path: str | Path) -> MeshModel:
    """Reads a model that `save_network` wrote; nothing in the file is executed.

    Args:
        name_or_path: a released network by name, or a weights file.

    Raises:
        InputError: there is no such file, or it is damaged, foreign or of a newer version.
    """
    path = model_file(name_or_path)
    what = "network of registered heads; give a file that 'implicit3dmm train' wrote"
    header = checked_header(path, FORMAT, FORMAT_VERSION, {"info", "network", "regions"}, what=what)
    config = from_mapping(Architecture, {"network": header["network"]}, where=str(path)).network
    known = {
        name: each.astype(bool if name == "cap" else np.int64) for name, each in read_arrays(path, TOPOLOGY).items()
    }
    topology = Topology(**known, names=tuple(header["regions"]))
    network = build_network(config, topology)
    names = {f"network.{name}": name for name in network.state_dict()}
    arrays = read_arrays(path, tuple(names))
    weights = {names[key]: torch.from_numpy(array.astype(np.float32, copy=False)) for key, array in arrays.items()}
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise InputError(f"{path} lacks weights of its own architecture; get the file again") from None
    return MeshModel(network.eval().requires_grad_(False), header["info"])
