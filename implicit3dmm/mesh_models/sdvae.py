"""SD-VAE (Foti, Koo, Stoyanov, Clarkson, CVPR 2022): a variational SpiralNet++ whose code has a part for each region.

Every batch swaps one region among a few heads, in all combinations. Heads that share the region have to agree in its
part of the code, and heads that share the rest in the rest of it. The published losses and their weights; what remained
open in the text is said where it was decided.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.sparse import csr_array, diags_array
from torch import Tensor, nn

from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.mesh_models.base import Batch, register_network
from implicit3dmm.mesh_models.sparse_map import SparseMap
from implicit3dmm.mesh_models.spiralnet import SpiralNet, SpiralNetConfig
from implicit3dmm.mesh_models.topology import Topology

LEAST_SPREAD = 0.01
"""Least standard deviation that a coordinate is given, in the network's unit: some do not vary at all."""


@dataclass(frozen=True)
class SDVAEConfig(SpiralNetConfig):
    """Sizes and weights of losses; the defaults are the paper's. A step of b heads learns from b x b of them."""

    latent_dim: int = 60
    """Numbers of the code; every region has as many of them."""
    laplacian: float = 1.0
    """Weight of the decoded vertices' distances from the middle of their neighbours, canonical units."""
    divergence: float = 1e-4
    """Weight of the codes' divergence from a normal distribution."""
    consistency: float = 0.5
    """Weight of the codes' agreement after swaps."""
    margin: float = 0.5
    """By how much, squared, codes of different heads have to lie farther apart than those that should agree."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        super().validate()
        for name in ("laplacian", "divergence", "consistency", "margin"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 0")


@register_network("sdvae", SDVAEConfig)
class SDVAE(SpiralNet):
    """The variational auto-encoder; its code is the mean that the encoder gives."""

    def __init__(self, config: SDVAEConfig, topology: Topology):
        super().__init__(config, topology)
        regions = len(topology.names)
        if config.latent_dim % regions:
            raise InputError(
                f"latent_dim is {config.latent_dim}; the head has {regions} regions with equal parts of the code; "
                f"give a multiple of {regions}"
            )
        self.register_buffer("spread", torch.ones(topology.size, 3))
        self.log_variance = nn.Linear(self.down.in_features, config.latent_dim)
        self.register_buffer("_labels", torch.from_numpy(np.asarray(topology.labels, np.int64)), persistent=False)
        self._uneven = SparseMap(uniform_laplacian(topology))

    def part(self, region: str) -> slice:
        """The region's part of the code: changing it changes the region.

        Raises:
            InputError: there is no such region.
        """
        return self._part(self.topology.region(region))

    def see(self, heads: RegisteredHeads) -> None:
        """Learns also the standard deviation of each coordinate.

        Errors are measured in it, as in COMA and the models after it, so that a nose, which varies less than a neck,
        counts as much.

        Raises:
            InputError: the mean head cannot be simplified.
        """
        super().see(heads)
        deviation = np.sqrt(sum(np.square(row - heads.mean) for row in heads.vertices) / len(heads))
        self.spread.copy_(torch.from_numpy(np.maximum(deviation, LEAST_SPREAD * float(self.unit))))

    def normalised(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b v 3"]:
        """Deviations from the mean head in standard deviations of each coordinate."""
        return (vertices - self.mean) / self.spread

    def restored(self, deviations: Float[Tensor, "b v 3"]) -> Float[Tensor, "b v 3"]:
        """Heads of such deviations, canonical units."""
        return deviations * self.spread + self.mean

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Float[Tensor, ""]]:
        """The losses of a batch whose heads are swapped in a region that is drawn; see `SDVAEConfig`.

        "heads" is the mean absolute error, canonical units, as SpiralNet's.
        """
        config = self.config
        number = int(torch.randint(len(self.topology.names), (), generator=generator))
        vertices = swapped(batch.vertices, self._labels == number).flatten(0, 1)
        features = self.features(vertices)
        mean, log_variance = self.down(features), self.log_variance(features)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        codes = mean + torch.exp(0.5 * log_variance) * noise
        deviations = self.decoded(codes)
        given = self.restored(deviations)
        parts = {
            "error": F.mse_loss(deviations, self.normalised(vertices)),
            "laplacian": config.laplacian * self._uneven(given).norm(dim=-1).mean(),
            "divergence": config.divergence * divergence(mean, log_variance),
            "consistency": config.consistency * swap_inconsistency(codes, self._part(number), config.margin),
        }
        return {"heads": F.l1_loss(given.detach(), vertices)} | parts | {"total": sum(parts.values())}

    def with_region(
        self, source: Float[Tensor, "b v 3"], donor: Float[Tensor, "b v 3"], name: str
    ) -> Float[Tensor, "b v 3"]:
        """Heads of the sources' codes with the region's part of the donors'."""
        codes, part = self.encode(source), self.part(name)
        codes[:, part] = self.encode(donor)[:, part]
        return self.decode(codes)

    def with_new_region(
        self, source: Float[Tensor, "b v 3"], name: str, *, rng: np.random.Generator
    ) -> Float[Tensor, "b v 3"]:
        """Heads of the sources' codes with the region's part drawn from the Gaussian of all codes."""
        codes, part = self.encode(source), self.part(name)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        codes[:, part] = self.sample(len(codes), temperature=1.0, generator=generator)[:, part]
        return self.decode(codes)

    def _part(self, number: int) -> slice:
        size = self.latent_dim // len(self.topology.names)
        return slice(number * size, (number + 1) * size)


def swapped(vertices: Float[Tensor, "b v 3"], region: Bool[Tensor, " v"]) -> Float[Tensor, "b b v 3"]:
    """All combinations: place (i, j) holds the region of head i in head j, vertices as they are."""
    return torch.where(region[:, None], vertices[:, None], vertices[None])


def divergence(mean: Float[Tensor, "b d"], log_variance: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence from the standard normal distribution: summed over a code, mean of heads."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()


def swap_inconsistency(codes: Float[Tensor, "b2 d"], part: slice, margin: float) -> Float[Tensor, ""]:
    """The inconsistency of the swapped region's part of the codes, and that of the rest of them.

    Args:
        codes: of the heads of `swapped`, row by row.
        part: the region's.
        margin: squared distance.
    """
    grid = codes.unflatten(0, (math.isqrt(len(codes)), -1))
    rest = torch.cat([grid[..., : part.start], grid[..., part.stop :]], dim=-1)
    return inconsistency(grid[..., part], margin) + inconsistency(rest.transpose(0, 1), margin)


def inconsistency(codes: Float[Tensor, "b b d"], margin: float) -> Float[Tensor, ""]:
    """How far codes are from lying closer within a row, where they should agree, than across rows.

    Mean over b^2 (b - 1) triplets of max(0, |c_ij - c_i,j+s|^2 - |c_ij - c_i+s,j|^2 + margin), indices around: the
    paper's number of terms. Its text leaves open which distances are paired.

    Args:
        codes: those of one row share a source.
        margin: squared distance.
    """
    terms = []
    for shift in range(1, len(codes)):
        alike = (codes - codes.roll(shift, 1)).square().sum(-1)
        other = (codes - codes.roll(shift, 0)).square().sum(-1)
        terms.append(F.relu(alike - other + margin))
    return torch.stack(terms).mean() if terms else codes.new_zeros(())


def uniform_laplacian(topology: Topology) -> csr_array:
    """The matrix (v, v) that gives the mean of each vertex's neighbours less the vertex itself."""
    edges, size = topology.edges, topology.size
    both = np.concatenate([edges, edges[:, ::-1]])
    adjacent = csr_array((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(size, size))
    shares = diags_array(1 / np.maximum(adjacent.sum(axis=1), 1))
    return csr_array(shares @ adjacent - diags_array(np.ones(size)))
