"""Losses as pure functions; training and fitting call the same ones. Distances are in canonical units."""

import torch
from jaxtyping import Float
from torch import Tensor

from implicit3dmm.heads.template import ANCHOR_PAIRS
from implicit3dmm.latents import Codes


def surface_loss(sdf: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """The field vanishes on the surface: mean |f(x)| (imHead, Eqn 9, first term)."""
    return sdf.abs().mean()


def distance_loss(sdf: Float[Tensor, "*n"], distance: Float[Tensor, "*n"], *, softness: float) -> Float[Tensor, ""]:
    """The field is the signed distance: mean |f(x) - d| / (1 + |d| / softness).

    Errors far from the surface count less, by their distance in units of `softness`: only the sign and the order of
    magnitude matter there.
    """
    return ((sdf - distance).abs() / (1 + distance.abs() / softness)).mean()


def normal_loss(gradient: Float[Tensor, "*n 3"], normals: Float[Tensor, "*n 3"]) -> Float[Tensor, ""]:
    """The gradient is the normal on the surface: mean ||grad f - n|| (imHead, Eqn 9, second term)."""
    return (gradient - normals).square().sum(-1).add(1e-12).sqrt().mean()


def eikonal_loss(gradient: Float[Tensor, "*n 3"]) -> Float[Tensor, ""]:
    """The gradient has length one: mean (||grad f|| - 1)^2 (imHead, Eqn 10)."""
    return (gradient.square().sum(-1).add(1e-12).sqrt() - 1).square().mean()


def landmark_loss(anchors: Float[Tensor, "b k 3"], truth: Float[Tensor, "b k 3"]) -> Float[Tensor, ""]:
    """Predicted anchors lie at the true ones: mean distance (imHead, Eqn 11)."""
    return (anchors - truth).square().sum(-1).add(1e-12).sqrt().mean()


def symmetry_loss(embeddings: Float[Tensor, "b k e"]) -> Float[Tensor, ""]:
    """Embeddings of mirrored anchors are alike: mean distance over the 16 pairs (NPHM, Eqn 8; imHead, L_sym)."""
    left, right = (embeddings[:, side : 2 * len(ANCHOR_PAIRS) : 2] for side in (1, 0))
    return (left - right).square().sum(-1).add(1e-12).sqrt().mean()


def correspondence_loss(error: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """The warp takes expressive points to where they lie on the neutral head: mean distance."""
    return error.mean()


def code_loss(codes: Codes) -> Float[Tensor, ""]:
    """Codes stay small: mean squared norm, summed over the code names (imHead, L_reg)."""
    return torch.stack([table.square().sum(-1).mean() for table in codes.values()]).sum()
