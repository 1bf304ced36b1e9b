"""implicit3dmm evaluate: figures on heads that a model has never seen; one sub-command a protocol."""

from typing import Annotated, Any, Union

from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from implicit3dmm.cli.evaluate import fields, networks

PROTOCOLS = {
    "reconstruction": fields.reconstruction,
    "parts": fields.parts,
    "noise": fields.noise,
    "partial": fields.partial,
    "specificity": fields.specificity,
    "scale": fields.scale,
    "alignment": fields.alignment,
    "expressions": fields.expressions,
    "registration": fields.registration,
    "locality": fields.locality,
    "compare": networks.compare,
    "control": networks.control,
    "decoupling": networks.decoupling,
    "landmarks": networks.landmarks,
}

Protocol = Union[tuple(Annotated[Any, subcommand(name, constructor=run)] for name, run in PROTOCOLS.items())]  # noqa: UP007


def evaluate(protocol: OmitSubcommandPrefixes[OmitArgPrefixes[Protocol]]) -> int:
    """Measures models on heads that they have never seen; a stopped run goes on where it stopped.

    docs/metrics.md defines the figures and the protocols.

    Args:
        protocol: What to measure; each has its own --help.
    """
    return protocol
