"""Coordinates and normals as two-byte integers, as corpora keep them."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

QUANTUM = 1 / 30000
"""Canonical units of one step: 6.7 micrometres."""


def quantised(values: Float[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
    """Nearest multiples of `QUANTUM`, int16; what lies beyond 1.09 canonical units is brought to there."""
    return np.clip(np.round(values / QUANTUM), -32767, 32767).astype(np.int16)


def dequantised(values: Int[np.ndarray, "*n"]) -> Float[Tensor, "*n"]:
    """Canonical units."""
    return torch.from_numpy(values).float() * QUANTUM


def to_octahedron(normals: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, "n 2"]:
    """Unit vectors folded onto the octahedron's square, two int16 each (Cigolle et al. 2014)."""
    flat = normals / np.abs(normals).sum(1, keepdims=True).clip(1e-12)
    folded = (1 - np.abs(flat[:, 1::-1])) * np.where(flat[:, :2] >= 0, 1, -1)
    return np.round(np.where(flat[:, 2:] < 0, folded, flat[:, :2]) * 32767).astype(np.int16)


def from_octahedron(folded: Int[np.ndarray, "*n 2"]) -> Float[Tensor, "*n 3"]:
    """Unit vectors from what `to_octahedron` gave."""
    flat = torch.from_numpy(folded).float() / 32767
    z = 1 - flat.abs().sum(-1, keepdim=True)
    back = z.clamp_max(0) * torch.where(flat >= 0, 1, -1)
    return torch.nn.functional.normalize(torch.cat([flat + back, z], dim=-1), dim=-1)
