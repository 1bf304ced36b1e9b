"""SpiralNet++ (Gong, Chen, Bronstein, Zafeiriou, ICCV workshops 2019): convolutions along spirals over the mesh.

The encoder convolves and keeps a quarter of the vertices, four times; the decoder goes the same way back. Pooling as in
COMA (Ranjan et al. 2018): quadric simplification chooses the vertices that are kept, and those between get theirs from
the coarse triangle that they lie on. Both levels and spirals are found once, on the mean head, and are part of the
weights.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor, nn

from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.simplification import simplify, surface_weights
from implicit3dmm.geometry.spirals import spirals
from implicit3dmm.mesh_models.base import AutoEncoder, Batch, register_network
from implicit3dmm.mesh_models.sparse_map import SparseMap
from implicit3dmm.mesh_models.topology import Topology

COARSEST = 4
"""Vertices that a level has at least: those of a tetrahedron."""


@dataclass(frozen=True)
class SpiralNetConfig:
    """Sizes; the defaults are those that LAMM's authors and SD-VAE compare with."""

    latent_dim: int = 256
    """Numbers of the code."""
    channels: tuple[int, ...] = (32, 32, 32, 64)
    """Of the encoder's convolutions, the finest first; the decoder mirrors them. Each has a level of its own."""
    factor: int = 4
    """Of the numbers of vertices of a level and the next coarser one."""
    length: int = 9
    """Vertices of a spiral, its own among them."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        for name, least in (("latent_dim", 1), ("factor", 2), ("length", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if not self.channels or min(self.channels) < 1:
            raise InputError(f"channels is {list(self.channels)}; expected at least one number, each at least 1")


class SpiralConv(nn.Module):
    """One linear map of the features along each spiral, in two orders of the same sums."""

    def __init__(self, inputs: int, outputs: int, length: int):
        super().__init__()
        self.length = length
        self.linear = nn.Linear(length * inputs, outputs)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Float[Tensor, "b n i"], along: SparseMap) -> Float[Tensor, "b m o"]:
        """Gathers the features along m spirals, then maps them.

        Args:
            features: of the vertices.
            along: gives the s rows of the first spiral, then those of the next: (m s, n).
        """
        return self.linear(along(features).unflatten(1, (-1, self.length)).flatten(2))

    def spread(self, features: Float[Tensor, "b n i"], along: SparseMap) -> Float[Tensor, "b m o"]:
        """Maps features for every place in a spiral, then sums along m spirals.

        The fewer rows are mapped, the faster: here those of the coarse level, before they are interpolated.

        Args:
            features: of the vertices.
            along: of the features of vertex v for place k in row v s + k: (m, n s).
        """
        weight = self.linear.weight.unflatten(1, (self.length, -1)).transpose(0, 1).contiguous()
        return along(features, weight).add_(self.linear.bias)


@register_network("spiralnet", SpiralNetConfig)
class SpiralNet(AutoEncoder):
    """The auto-encoder."""

    def __init__(self, config: SpiralNetConfig, topology: Topology):
        super().__init__(config, topology, latent_dim=config.latent_dim)
        sizes = [topology.size]
        for _ in config.channels:
            sizes.append(-(-sizes[-1] // config.factor))
        if sizes[-1] < COARSEST:
            raise InputError(
                f"{len(config.channels)} channels bring {topology.size} vertices to {sizes[-1]}; expected at least "
                f"{COARSEST}; give fewer channels or a smaller factor"
            )
        self._sizes = sizes
        for level, (fine, coarse) in enumerate(itertools.pairwise(sizes)):
            self.register_buffer(f"spirals_{level}", torch.zeros(fine, config.length, dtype=torch.int32))
            self.register_buffer(f"kept_{level}", torch.zeros(coarse, dtype=torch.int32))
            self.register_buffer(f"corners_{level}", torch.zeros(fine, 3, dtype=torch.int32))
            self.register_buffer(f"weights_{level}", torch.zeros(fine, 3))
        widths = [3, *config.channels]
        outwards = [*config.channels[1:], config.channels[-1]]
        self.encoder = nn.ModuleList(map(SpiralConv, widths, config.channels, [config.length] * len(outwards)))
        features = sizes[-1] * config.channels[-1]
        self.down = nn.Linear(features, config.latent_dim)
        self.up = nn.Linear(config.latent_dim, features)
        self.decoder = nn.ModuleList(map(SpiralConv, outwards, config.channels, [config.length] * len(outwards)))
        self.last = SpiralConv(config.channels[0], 3, config.length)
        self._link()
        self.register_load_state_dict_post_hook(lambda network, _: network._link())

    def see(self, heads: RegisteredHeads) -> None:
        """Learns the mean head and the unit, and on that head the levels and their spirals.

        Raises:
            InputError: the mean head cannot be simplified.
        """
        super().see(heads)
        mesh = Mesh(heads.mean, self.topology.triangles)
        for level, vertices in enumerate(self._sizes[1:]):
            coarse = simplify(mesh, vertices)
            corners, weights = surface_weights(mesh.vertices, coarse.mesh)
            found = {"spirals": spirals(mesh, self.config.length), "kept": coarse.kept}
            for name, values in (found | {"corners": corners, "weights": weights}).items():
                self.get_buffer(f"{name}_{level}").copy_(torch.from_numpy(values))
            mesh = coarse.mesh
        self._link()

    def encode(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b d"]:
        """Codes of heads in canonical units."""
        return self.down(self.features(vertices))

    def decode(self, codes: Float[Tensor, "b d"]) -> Float[Tensor, "b v 3"]:
        """Heads of codes, canonical units."""
        return self.restored(self.decoded(codes))

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Float[Tensor, ""]]:
        """Mean absolute error in the network's unit ("total") and in canonical units ("heads")."""
        given = self.decoded(self.encode(batch.vertices))
        total = F.l1_loss(given, self.normalised(batch.vertices))
        return {"heads": (total * self.unit).detach(), "total": total}

    def restored(self, deviations: Float[Tensor, "b v 3"]) -> Float[Tensor, "b v 3"]:
        """Heads of normalised deviations from the mean head, canonical units."""
        return deviations * self.unit + self.mean

    def features(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b f"]:
        """What the encoder's convolutions leave of heads.

        A convolution is computed at the vertices that pooling keeps alone.
        """
        features = self.normalised(vertices)
        for conv, along in zip(self.encoder, self._down, strict=True):
            features = F.elu_(conv(features, along))
        return features.flatten(1)

    def decoded(self, codes: Float[Tensor, "b d"]) -> Float[Tensor, "b v 3"]:
        """Heads of codes, normalised."""
        features = self.up(codes).unflatten(1, (self._sizes[-1], -1))
        for conv, along in zip(reversed(self.decoder), reversed(self._up), strict=True):
            features = F.elu_(conv.spread(features, along))
        return self.last.spread(features, self._across)

    def _link(self) -> None:
        """Makes the maps along spirals from the buffers that say where these run."""
        self._down, self._up = nn.ModuleList(), nn.ModuleList()
        length = self.config.length
        for level, (fine, coarse) in enumerate(itertools.pairwise(self._sizes)):
            run, kept, corners, weights = (
                self.get_buffer(f"{name}_{level}").cpu().numpy() for name in ("spirals", "kept", "corners", "weights")
            )
            self._down.append(_map(run[kept].reshape(-1, 1), columns=fine))
            places = corners[run] * length + np.arange(length)[:, None]
            self._up.append(_map(places.reshape(fine, -1), weights[run].reshape(fine, -1), columns=coarse * length))
        run = self.spirals_0.cpu().numpy()
        self._across = _map(run * length + np.arange(length), columns=self.topology.size * length)
        self.to(self.mean.device)


def _map(places: np.ndarray, weights: np.ndarray | None = None, *, columns: int) -> SparseMap:
    """The matrix whose row i has weights_i, by default ones, in the columns places_i."""
    rows, entries = places.shape
    weights = np.ones(places.shape, np.float32) if weights is None else weights
    starts = np.arange(0, places.size + 1, entries)
    matrix = csr_array((weights.ravel(), places.ravel(), starts), shape=(rows, columns))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return SparseMap(matrix)
