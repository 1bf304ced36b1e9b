"""Several parts of a head changed at once."""

from collections.abc import Sequence

from implicit3dmm.fields import ConditionedField
from implicit3dmm.fields.base import Frames


def swap_parts(
    head: ConditionedField, donor: ConditionedField, parts: Sequence[str], *, frames: Frames = "part"
) -> ConditionedField:
    """The head with parts of the donor; see `ConditionedField.with_part`.

    Raises:
        InputError: the architecture has no such part.
    """
    for part in parts:
        head = head.with_part(part, donor, frames=frames)
    return head


def interpolate(
    head: ConditionedField, donor: ConditionedField, share: float, parts: Sequence[str] = ()
) -> ConditionedField:
    """The head, or those of its parts that are named, on the way to the donor; see `ConditionedField.towards`.

    Raises:
        InputError: the architecture has no such part, or cannot be interpolated.
    """
    target = head.towards(donor, share)
    return swap_parts(head, target, parts) if parts else target
