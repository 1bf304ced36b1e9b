"""Which local networks act at a point, and how much: blend weights of compact support."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit3dmm.errors import InputError
from implicit3dmm.heads.template import ANCHORS


@dataclass(frozen=True)
class BlendConfig:
    """How the local networks are weighted at a point (imHead, Eqn 5)."""

    neighbours: int = 4
    """Networks that act at a point, by compact support; 0 is the paper's softmax over all 39."""
    sigma: float = 0.1
    """Length over which a network's weight falls, canonical units; the paper does not give it. 0.1 is 20 mm, the
    spacing of the anchors in the face."""
    softening: float = 0.01
    """Distances are sqrt(d^2 + softening^2), canonical units, so that the field has no kink at an anchor."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        # With one or two neighbours the weights jump: everywhere between two anchors, or along the lines that are
        # equally far from three.
        if self.neighbours != 0 and not 3 <= self.neighbours < len(ANCHORS):
            raise InputError(f"neighbours is {self.neighbours}; give 0 (all) or 3 to {len(ANCHORS) - 1}")
        if self.sigma <= 0:
            raise InputError(f"sigma is {self.sigma}; expected above 0, canonical units")
        if self.softening <= 0:
            raise InputError(f"softening is {self.softening}; expected above 0, canonical units")


class Nearby(NamedTuple):
    """The anchors around each point, by rising distance: those that act there and, last, the one that bounds them."""

    indices: Int[Tensor, "b n m"]
    centres: Float[Tensor, "b n m 3"]


def find_nearby(points: Float[Tensor, "b n 3"], anchors: Float[Tensor, "b a 3"], neighbours: int) -> Nearby:
    """The `neighbours` nearest anchors of each point and the next one."""
    indices = _nearest(points, anchors, neighbours + 1)
    rows = indices[..., None].expand(-1, -1, -1, 3)
    return Nearby(indices, anchors[:, None].expand(-1, points.shape[1], -1, -1).gather(2, rows))


def compact_weights(distance: Float[Tensor, "*n m"], sigma: float) -> Float[Tensor, "*n m-1"]:
    """Blend weights with compact support, from the distances to the m = k + 1 nearest anchors in rising order.

    Proportional to (exp(-d_j / sigma) - exp(-d_m / sigma))^2. An anchor's weight and its gradient vanish where it
    stops being among the k nearest, so evaluating k networks is exact and nothing jumps. The other weights know d_m
    too, and its gradient jumps where the m-th anchor changes: there the field is continuous with a faint crease.
    """
    decay = torch.exp((distance[..., :1].detach() - distance) / sigma)
    raw = (decay[..., :-1] - decay[..., -1:]).square() + 1e-12
    return raw / raw.sum(-1, keepdim=True)


def nearby_weights(points: Float[Tensor, "b n 3"], nearby: Nearby, blend: BlendConfig) -> Float[Tensor, "b n k"]:
    """Weights of the anchors that act at each point; they add up to one."""
    return compact_weights(_distance(points[:, :, None] - nearby.centres, blend.softening), blend.sigma)


def softmax_weights(
    points: Float[Tensor, "b n 3"], anchors: Float[Tensor, "b a 3"], blend: BlendConfig
) -> Float[Tensor, "b n a"]:
    """Weights of all anchors by softmax(-d / sigma) (imHead, Eqn 5)."""
    distance = _distance(points[:, :, None] - anchors[:, None], blend.softening)
    return torch.softmax(-distance / blend.sigma, dim=-1)


def _nearest(points: Tensor, anchors: Tensor, count: int) -> Int[Tensor, "b n k"]:
    """Indices of the nearest anchors, by rising distance; each pair by itself, so that chunks do not matter."""
    with torch.no_grad():
        squared = torch.zeros(*points.shape[:2], anchors.shape[1], dtype=points.dtype, device=points.device)
        for axis in range(3):
            squared += (points[..., None, axis] - anchors[:, None, :, axis]).square_()
        return squared.topk(count, dim=-1, largest=False).indices


def _distance(offset: Tensor, softening: float) -> Tensor:
    return (offset.square().sum(-1) + softening**2).sqrt()
