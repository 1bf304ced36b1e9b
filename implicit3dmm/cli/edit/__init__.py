"""implicit3dmm edit: parts of a head taken from another, drawn anew, mirrored or moved; other expressions."""

from typing import Annotated, Any, Union

from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from implicit3dmm.cli.edit import fields, registered

EDITS = {
    "swap": fields.swap,
    "sample": fields.sample,
    "interpolate": fields.interpolate,
    "mirror": fields.mirror,
    "express": fields.express,
    "transfer": fields.transfer,
    "drag": registered.drag,
}

Choice = Union[tuple(Annotated[Any, subcommand(name, constructor=run)] for name, run in EDITS.items())]  # noqa: UP007


def edit(choice: OmitSubcommandPrefixes[OmitArgPrefixes[Choice]]) -> int:
    """Changes nose, mouth, eyes, ears, chin, forehead, cheeks, cranium or neck of a head, or its expression.

    docs/edit.md says what happens and shows the results.

    Args:
        choice: What to do; each has its own --help.
    """
    return choice
