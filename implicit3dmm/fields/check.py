"""The axioms that every field keeps, as a public suite: run it on an architecture before trusting it with data.

Each is broken by some published code, where the mistake stayed in the figures: values that depend on the chunk, a
blend that dies away from its anchors, a train mode of its own, a jump where neighbours change.
"""

from collections.abc import Callable

import torch

from implicit3dmm.fields import check_derivatives, check_values
from implicit3dmm.fields.base import Field
from implicit3dmm.fields.check_case import Case, Problems

AXIOMS: dict[str, Callable[[Case], Problems]] = {
    "interface": check_values.interface,
    "mode": check_values.mode,
    "pointwise": check_values.pointwise,
    "batch": check_values.batch,
    "condition": check_values.condition,
    "finite": check_values.finite,
    "gradient": check_derivatives.gradient,
    "jacobian": check_derivatives.jacobian,
    "second derivative": check_derivatives.second_derivative,
    "continuity": check_derivatives.continuity,
    "exterior": check_values.exterior,
    "parts": check_values.parts,
    "between": check_values.between,
    "twin": check_derivatives.twin,
    "mirror": check_values.mirror,
}
"""The axioms by name, in the order in which `check_field` looks at them."""


class FieldCheckError(AssertionError):
    """A field breaks an axiom; the message starts with the axiom's name."""


def check_field(field: Field, *, generator: torch.Generator, points: int = 48, shapes: int = 3) -> None:
    """Holds a field to the axioms of `Field` and `ConditionedField`, one after the other.

    - interface: specs and bounds make sense, shapes and dtypes are as declared, no points give no values.
    - mode: values depend neither on train/eval mode, nor on recording gradients, nor on the calls before.
    - pointwise: the value at a point depends neither on the other points, nor on their order, nor on the chunk.
    - batch: it depends neither on the other shapes of the batch nor on their order.
    - condition: codes are read by `condition` alone, and gradients reach each of them.
    - finite: values and gradients are finite, at the origin, at the anchors and far away too.
    - gradient: `sdf_and_gradient` gives the derivative, by finite differences.
    - jacobian: `jacobian` gives the derivatives by codes and points of every point by itself.
    - second derivative: the gradient can be differentiated again, by points, codes and weights, and rightly so.
    - continuity: no jumps along lines between random points and anchors, and bounded difference quotients.
    - exterior: outside the bounds the field is positive and grows with a slope of about one along each ray.
    - parts: weights of parts with anchors are at least zero and add up to one; a part taken from the field itself
      changes nothing, one of another shape changes nothing where it does not act; other names are refused by
      `InputError`.
    - between: `towards` another shape starts at the field itself and ends at the other, unless it refuses.
    - twin: where the conditioned field has a method `sdf_dense`, both are one function: values, and first and second
      derivatives by points, codes, embeddings, anchors and weights.
    - mirror: where it has methods `mirrored` (embeddings swapped within mirrored pairs, anchors reflected in x = 0)
      and `features`, weights mirror everywhere, and features wherever paired parts alone act. Distances need not: a
      network that also sees absolute coordinates may be asymmetric.

    A copy in float64 is checked. Its weights are those of `field`, except that a tensor of zeros gets small random
    values: layers that start at zero hide what lies behind them. The suite takes some 20,000 evaluations, most of them
    with gradients, so build a large architecture at small sizes.

    Args:
        field: fresh or trained.
        generator: on the CPU; chooses codes, points and lines.
        points: points of each shape, at least 8.
        shapes: shapes in a batch, at least 2.

    Raises:
        FieldCheckError: an axiom does not hold. Exceptions that the field itself raises pass through.
    """
    case = Case.of(field, generator, points=points, shapes=shapes)
    for name, axiom in AXIOMS.items():
        for problem in axiom(case):
            if problem:
                raise FieldCheckError(f"{name}: {problem}")
