"""A trained network of registered heads, and the file that it becomes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from implicit3dmm.config import from_mapping, to_mapping
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.mesh_models.base import Architecture, MeshNetwork, build_network
from implicit3dmm.mesh_models.topology import Topology
from implicit3dmm.mesh_models.weights import checked_header, has_format, read_arrays, write_weights
from implicit3dmm.models import FRAME, model_file

FORMAT = "implicit3dmm-mesh-network"
FORMAT_VERSION = 1
TOPOLOGY = ("triangles", "cap", "labels", "controls")
"""What a file keeps of a topology."""


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
        return self.network.encode(self._tensor(vertices)).cpu().numpy()

    @torch.no_grad()
    def decode(self, codes: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b v 3"]:
        """Vertices of codes, canonical units.

        Raises:
            InputError: the codes are of another size.
        """
        if codes.ndim != 2 or codes.shape[1] != self.network.latent_dim:
            raise InputError(f"codes of shape {codes.shape} given; {self.name} has (b, {self.network.latent_dim})")
        return self.network.decode(self._tensor(codes)).cpu().numpy()

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, np.float32), device=self.network.mean.device)

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
