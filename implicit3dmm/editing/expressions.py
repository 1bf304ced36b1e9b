"""Expressions put on a head: from named units, or from another head."""

from collections.abc import Mapping
from typing import Literal

import torch

from implicit3dmm.data.sources import open_source
from implicit3dmm.errors import InputError
from implicit3dmm.fields import ConditionedField
from implicit3dmm.latents import EXPRESSION, LatentSpec
from implicit3dmm.models import HeadModel

How = Literal["replace", "add"]
"""Whether a head takes over another one's expression, or has it on top of its own."""


def named_expression(model: HeadModel, weights: Mapping[str, float]) -> torch.Tensor:
    """The code of an expression, (1, d).

    Args:
        model: one whose expression code is the weights of units.
        weights: of units, such as jawOpen, or of whole expressions of the built-in heads, such as smile; they add up.
            None at all is neutral.

    Raises:
        InputError: the model has no such code, or a name is neither a unit nor an expression of it.
    """
    spec = _expression_spec(model)
    if weights and not spec.names:
        raise InputError(f"the expressions of {model.name} are free codes without names; give a head that shows one")
    known = {
        name: units for name, units in open_source("makehuman").expressions.items() if units.keys() <= set(spec.names)
    }
    code = torch.zeros(1, spec.dim)
    for name, weight in weights.items():
        if name not in known and name not in spec.names:
            raise InputError(
                f"{model.name} has no expression {name!r}; there are {', '.join(known)}, and the units "
                f"{', '.join(spec.names)}"
            )
        for unit, share in known.get(name, {name: 1.0}).items():
            code[0, spec.names.index(unit)] += weight * share
    return code.to(model.device)


def transfer_expression(head: ConditionedField, donor: ConditionedField, *, how: How = "replace") -> ConditionedField:
    """The head with the expression of another one.

    Raises:
        InputError: the architecture has no expressions.
    """
    if head.expression is None or donor.expression is None:
        return head.with_expression(donor.expression)  # which refuses
    return head.with_expression(donor.expression + (head.expression if how == "add" else 0))


def _expression_spec(model: HeadModel) -> LatentSpec:
    for spec in model.field.latent_specs:
        if spec.name == EXPRESSION:
            return spec
    raise InputError(f"{model.name} has no expressions; use a model with a warp, such as imhead")
