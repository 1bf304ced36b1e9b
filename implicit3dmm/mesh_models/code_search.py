"""The codes of given displacements under a generator of two linear layers, found by damped Gauss-Newton steps."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit3dmm.mesh_models.adversarial_networks import SLOPE, Generator

STEPS = 40
"""Of the search; each either lowers a head's energy or is taken back and damped more."""


@torch.no_grad()
def nearest_codes(generator: Generator, wanted: Float[Tensor, "b v 3"], *, unit_mm: float) -> Float[Tensor, "b d"]:
    """Codes that are likely and come near: least sum of squared distances in mm^2, plus the code's squared norm.

    That is Abrevaya et al. 2019, equation 13, of all vertices and with a weight of 1. The generator's last layer is
    linear: distances within what it can reach are those of a few coordinates, whatever the number of vertices.

    Args:
        generator: whose codes are standard normal.
        wanted: displacements, in the generator's unit.
        unit_mm: that unit.
    """
    first = generator.hidden[0]
    orthogonal, triangular = torch.linalg.qr(generator.basis.weight * unit_mm)
    target = (wanted.flatten(1) - generator.basis.bias) * unit_mm @ orthogonal
    effects = triangular @ generator.mix.weight if isinstance(generator.mix, nn.Linear) else triangular
    codes = first.weight.new_zeros(len(wanted), first.in_features)
    damping = codes.new_ones(len(codes))
    identity = torch.eye(first.in_features).to(codes)
    activation, error, energy = _state(generator, effects, codes, target)
    for _ in range(STEPS):
        slopes = torch.where(activation > 0, 1.0, SLOPE)
        jacobian = effects @ (slopes[:, :, None] * first.weight)  # b, r, d
        gradient = (jacobian.mT @ error[:, :, None])[..., 0] + codes
        curvature = jacobian.mT @ jacobian + (1 + damping)[:, None, None] * identity
        tried = codes - torch.linalg.solve(curvature, gradient)
        better_activation, better_error, better_energy = _state(generator, effects, tried, target)
        lower = better_energy < energy
        codes = torch.where(lower[:, None], tried, codes)
        activation = torch.where(lower[:, None], better_activation, activation)
        error = torch.where(lower[:, None], better_error, error)
        energy = torch.where(lower, better_energy, energy)
        damping = torch.where(lower, damping / 3, damping * 3)
    return codes


def _state(
    generator: Generator, effects: Float[Tensor, "r h"], codes: Float[Tensor, "b d"], target: Float[Tensor, "b r"]
) -> tuple[Float[Tensor, "b h"], Float[Tensor, "b r"], Float[Tensor, " b"]]:
    """Hidden units, errors in mm and energy of codes."""
    hidden = generator.hidden(codes)
    error = hidden @ effects.T - target
    return hidden, error, error.square().sum(1) + codes.square().sum(1)
