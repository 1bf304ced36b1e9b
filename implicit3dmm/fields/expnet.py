"""Expressions by a SIREN: the first stage of Gu and Pears' cascade (ExpNet, section 3.3), before any neutral field.

A hyper-network makes the changes of a local SIREN from the expression code alone; the subject enters by the landmarks
that the local fields lie around. Unlike the paper's it leaves neutral where it is, whatever the weights are.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit3dmm.errors import InputError
from implicit3dmm.fields.base import register_field
from implicit3dmm.fields.expression_warp import ExpressionWarp, WarpConfig
from implicit3dmm.fields.siren import Layer, ModulatedSiren, ThinLayer
from implicit3dmm.heads.template import ANCHORS, average_anchors

LANDMARKS = ("mouth_corner_R", "mouth_corner_L", "eye_outer_R", "eye_outer_L", "chin")
"""The anchors that the local fields lie around."""

THIN_FROM = 64
"""From so many rows on, each has few points: a fit's points each have their own."""


@dataclass(frozen=True)
class ExpNetConfig(WarpConfig):
    """And the sizes of the networks."""

    width: int = 128
    """Width of the SIREN."""
    layers: int = 5
    """Its linear layers."""
    gate_width: int = 32
    """Width of the network that blends local fields."""
    hyper_width: int = 128
    """Width of the hyper-network's hidden layer."""
    rank: int = 32
    """Rank of the change that the hyper-network makes to each layer."""
    landmark_width: int = 128
    """Width of the landmark generator's hidden layer."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        super().validate()
        for name in ("width", "gate_width", "hyper_width", "rank", "landmark_width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.layers < 2:
            raise InputError(f"layers is {self.layers}; expected at least 2")


@register_field("expnet", ExpNetConfig)
class ExpNet(ExpressionWarp):
    """A field of neutral heads behind a SIREN."""

    def make_warp(self, traits: int, expression: int, outputs: int) -> nn.Module:
        """A SIREN around landmarks."""
        return SirenWarp(self.config, traits, expression, outputs)


class SirenWarp(nn.Module):
    """From a point, a subject's traits and an expression to a displacement and ambient coordinates."""

    def __init__(self, config: ExpNetConfig, traits: int, expression: int, outputs: int):
        super().__init__()
        self.lift = nn.Linear(expression, config.lifted_dim, bias=False)
        self.reduce = nn.Linear(traits, config.traits_dim)
        self.net = ModulatedSiren(
            config.lifted_dim,
            len(LANDMARKS),
            outputs,
            width=config.width,
            layers=config.layers,
            gate_width=config.gate_width,
            hyper_width=config.hyper_width,
            rank=config.rank,
            vanishing=True,
        )
        last = nn.Linear(config.landmark_width, 3 * len(LANDMARKS))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        reads = config.traits_dim + config.lifted_dim
        self.generator = nn.Sequential(nn.Linear(reads, config.landmark_width), nn.LeakyReLU(), last)
        places = average_anchors()[[ANCHORS.index(name) for name in LANDMARKS]]
        self.register_buffer("mean_landmarks", torch.tensor(places, dtype=torch.float32), persistent=False)

    def fold(self, reduced: Float[Tensor, "b r"], lifted: Float[Tensor, "b l"]) -> "FoldedSirenWarp":
        """All that depends on the codes alone."""
        moved = self.generator(torch.cat([reduced, lifted], dim=-1)).unflatten(-1, (-1, 3))
        modulations = self.net.modulations(lifted)
        thin = len(lifted) >= THIN_FROM
        return FoldedSirenWarp(self.net, self.net.folded(modulations, self.mean_landmarks + moved, thin=thin))


@dataclass(frozen=True)
class FoldedSirenWarp:
    """The warp of `b` given shapes: a function from points to displacements and ambient coordinates."""

    net: ModulatedSiren
    layers: list[Layer | ThinLayer]

    def __call__(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n o"]:
        """Displacement, canonical units, then the ambient coordinates."""
        return self.net(points, self.layers)
