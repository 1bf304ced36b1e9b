"""Several parts of a head changed at once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from implicit3dmm.errors import InputError
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


class Step(NamedTuple):
    """A head on the way to another, part by part."""

    part: str
    """The part that moves."""
    share: float
    """How far it has gone."""
    since: int
    """Number of the step that it goes on from, after which the part began to move; -1 for the head itself."""
    field: ConditionedField


def interpolate_in_turn(
    head: ConditionedField, donor: ConditionedField, parts: Sequence[str], shares: Sequence[float]
) -> Iterator[Step]:
    """Moves one part after the other to the donor, each through all shares (Gu and Pears, Figs. 2 and 8).

    Args:
        head: where the way begins.
        donor: whose parts are reached.
        parts: in their turn.
        shares: of each part's way, the last of which stays when the next part begins.

    Raises:
        InputError: the architecture has no such part, or cannot be interpolated, or a part is named twice.
    """
    if len(set(parts)) < len(parts):
        raise InputError(f"parts {', '.join(parts)} given; each has its turn once; name each once")
    for turn, part in enumerate(parts):
        start = head
        for share in shares:
            head = interpolate(start, donor, share, [part])
            yield Step(part, share, turn * len(shares) - 1, head)
