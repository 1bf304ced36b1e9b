"""Named expression units in a fit: their prior, and trials of those that derivatives do not find."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit3dmm.data.sources.base import unit_groups

SPARSE = (1.0, 0.1)
"""Weight of an expression unit above which more costs little, at the first step and at the end."""

INDEPENDENT = 300
"""Points of a scan that say something of their own about expressions: what a model cannot follow is shared by
neighbours, and units would follow it into shapes that no face makes."""

TRIED_AT = (3, 7)
"""Steps before which expression units are tried."""
MORE_STEPS = 4
"""Steps beyond those of the config where expression units are looked for."""
TRIED_WEIGHT = 0.8
TRIED_POINTS = 1000
TRIED_AT_ONCE = 4
"""Trials of that many points that are evaluated together, so that their activations stay in cache."""
HELPFUL = 0.003
"""Share of the robust loss that a unit has to take away to be kept."""


def units_penalty(
    weights: Float[Tensor, " e"], group: Int[Tensor, " e"], sparse: float
) -> tuple[Float[Tensor, " e"], Float[Tensor, " e"]]:
    """Curvature and slope, halved, of the penalty of unit weights: see `solve_together`.

    Args:
        weights: of the units.
        group: the same number for the two sides of a movement.
        sparse: s.
    """
    outside = weights - weights.clamp(0, 1)
    strength = torch.zeros_like(weights).index_add(0, group, weights.clamp_min(0).square())[group]
    curvature = 2 / (sparse**2 + strength)
    pull = curvature * weights + 2 / sparse**2 * outside
    return curvature + torch.where(outside == 0, 0.0, 2 / sparse**2), pull


def group_of(names: Sequence[str]) -> Int[Tensor, " e"]:
    """Number of the movement that each unit is a side of."""
    number = {name: i for i, units in enumerate(unit_groups(names)) for name in units}
    return torch.tensor([number[name] for name in names])


def try_units(
    names: Sequence[str], weights: Float[Tensor, "1 e"], losses: Callable[[Float[Tensor, "b e"]], Float[Tensor, " b"]]
) -> Float[Tensor, "1 e"]:
    """Unit weights with those movements on that lower a loss, tried one by one.

    A closed eye is out of reach of derivatives at an open one. One movement after the other, of both sides and of each,
    the most helpful first, is given the weight `TRIED_WEIGHT` and kept where that takes `HELPFUL` of the loss away.

    Args:
        names: of the units.
        weights: where to start.
        losses: to be lowered, of several weights at once.
    """
    groups = unit_groups(names)
    movements = [*groups, *([unit] for group in groups if len(group) > 1 for unit in group)]
    masks = torch.tensor([[name in units for name in names] for units in movements], device=weights.device)
    least, *alone = losses(torch.cat([weights, torch.where(masks, TRIED_WEIGHT, weights)])).tolist()
    helpful = sorted((loss, number) for number, loss in enumerate(alone) if loss < (1 - HELPFUL) * least)
    for _, number in helpful:
        changed = torch.where(masks[number], TRIED_WEIGHT, weights)
        if (found := float(losses(changed))) < (1 - HELPFUL) * least:
            weights, least = changed, found
    return weights
