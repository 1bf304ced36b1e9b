"""The L1 loss of many token states under one linear map to a region's vertices, without keeping any geometry.

LAMM's multilayer loss (Tarasiou et al. 2024, Eqns 1 and 2) decodes the tokens of every layer. The derivative of an
absolute value is a sign, so the products with it are taken at once and the decoded vertices are forgotten.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def region_loss(
    tokens: Float[Tensor, "s b d"],
    weight: Float[Tensor, "d c"],
    bias: Float[Tensor, " c"],
    targets: Sequence[Float[Tensor, "b c"]],
    factors: Sequence[float],
    share: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, " s"]]:
    """Sum over states s and heads b of share |tokens_sb W + bias - factors_s targets_sb|_1, differentiable once.

    Args:
        tokens: states of one region's token.
        weight: of the map to its c coordinates.
        bias: of the map.
        targets: coordinates that each state should decode to; no gradient reaches them.
        factors: what each is multiplied by.
        share: weight of each coordinate.

    Returns:
        The sum, and each state's part of it, which has no derivative.
    """
    return _RegionLoss.apply(tokens, weight, bias, targets, factors, share)


class _RegionLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens, weight, bias, targets, factors, share):
        flat = tokens.flatten(0, 1)
        missed = torch.addmm(bias, flat, weight)
        by_state = missed.view(*tokens.shape[:2], -1)
        for state, target, factor in zip(by_state, targets, factors, strict=True):
            state.sub_(target, alpha=factor)
        each = torch.linalg.vector_norm(by_state, 1, dim=(1, 2)) * share
        if any(ctx.needs_input_grad):
            slope = missed.sign_()
            by_tokens = (slope @ weight.T).mul_(share).view_as(tokens)
            ctx.save_for_backward(by_tokens, (flat.T @ slope).mul_(share), slope.sum(0).mul_(share))
        ctx.mark_non_differentiable(each)
        return each.sum(), each

    @staticmethod
    def backward(ctx, grad, _):
        return *(grad * slope for slope in ctx.saved_tensors), None, None, None
