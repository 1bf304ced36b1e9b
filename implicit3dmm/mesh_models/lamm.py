"""LAMM: locally adaptive morphable models (Tarasiou, Potamias, O'Sullivan, Ploumpis, Zafeiriou, CVPR 2024).

Every region of the head becomes one token by a linear map of its own. An encoder of a few layers gathers the head in an
identity token, which is the code; a decoder of learnt tokens gives the regions back. Displacements of control points
change the tokens of their regions, and with them the regions, in the same pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.mesh_models.base import AutoEncoder, Batch, register_network
from implicit3dmm.mesh_models.control import move_statistics, moves_towards, placed_region
from implicit3dmm.mesh_models.region_loss import region_loss
from implicit3dmm.mesh_models.tokens import MixerLayer, Stack, TransformerLayer
from implicit3dmm.mesh_models.topology import Topology

Pair = Literal["identity", "expression", "region"]

WINDOW_MM = 10.0
"""Within this distance of its rim a region that is taken from another head passes over into its own."""

LEAST_RIM = 3
"""Vertices that fix a rigid motion."""


@dataclass(frozen=True)
class LAMMLearning:
    """What the network is taught."""

    task: Literal["heads", "control"] = "heads"
    """To give heads back, or to follow control points too (the paper's second stage, which starts from the first)."""
    targets: Literal["schedule", "input", "last"] = "schedule"
    """Of the layers: the way from the head to the mean and back (Eqns 1 and 2); the head itself at every layer; or the
    last layer alone is taught."""
    pairs: tuple[Pair, ...] = ("identity",)
    """What moves the control points: another head, the same subject's expression of its neutral head, or one region of
    another head, which alone changes; of several, each has its share of a batch."""
    least: float = 0.25
    """Least share of the way from source to target head that a pair goes; the most is all of it."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if not self.pairs:
            raise InputError("pairs is empty; give one kind or more")
        if not 0 <= self.least <= 1:
            raise InputError(f"least is {self.least}; give a share from 0 to 1")


@dataclass(frozen=True)
class LAMMConfig:
    """Sizes; the defaults are the paper's."""

    backbone: Literal["mixer", "transformer"] = "mixer"
    """What mixes the tokens."""
    width: int = 512
    """Of the tokens."""
    rank: int = 0
    """Of the linear maps between a region's coordinates and its token, whose weights are nearly all there are; 0 leaves
    them whole, as in the paper."""
    latent_dim: int = 256
    """Numbers of the code; more than `width` say no more."""
    encoder_layers: int = 5
    """Layers of the encoder."""
    decoder_layers: int = 3
    """Layers of the decoder."""
    control_widths: tuple[int, int] = (64, 256)
    """Hidden widths of the networks that read displacements."""
    dropout: float = 0.0
    """Share of the activations that is dropped in training."""
    learning: LAMMLearning = field(default_factory=LAMMLearning)
    """What the network is taught."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        for name in ("width", "latent_dim", "encoder_layers", "decoder_layers"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.rank < 0:
            raise InputError(f"rank is {self.rank}; expected at least 0")
        if min(self.control_widths) < 1:
            raise InputError(f"control_widths is {self.control_widths}; expected at least 1 each")
        if self.width % 2 or (self.backbone == "transformer" and self.width > 64 and self.width % 64):
            raise InputError(f"width is {self.width}; give an even one, and a multiple of 64 to a transformer above it")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; give a share from 0 to below 1")


@register_network("lamm", LAMMConfig)
class LAMM(AutoEncoder):
    """The auto-encoder with its control networks."""

    def __init__(self, config: LAMMConfig, topology: Topology):
        super().__init__(config, topology, latent_dim=config.latent_dim)
        sizes = [3 * len(region) for region in topology.regions]
        count, width = len(sizes), config.width
        inner = config.rank or width
        self.tokenisers = nn.ModuleList(nn.Linear(size, inner) for size in sizes)
        self.widened = nn.ModuleList(nn.Linear(inner, width) if config.rank else nn.Identity() for _ in sizes)
        self.region_embedding = nn.Parameter(torch.randn(count, width))
        self.identity_token = nn.Parameter(torch.randn(width))
        self.encoder = Stack(config.encoder_layers, width, lambda: _layer(config, count + 1))
        self.down = nn.Linear(width, config.latent_dim)
        self.up = nn.Linear(config.latent_dim, width)
        self.decoder_tokens = nn.Parameter(torch.randn(count, width))
        self.decoder = Stack(config.decoder_layers, width, lambda: _layer(config, count + 1))
        self.narrowed = nn.ModuleList(nn.Linear(width, inner) if config.rank else nn.Identity() for _ in sizes)
        self.heads = nn.ModuleList(Head(inner, size) for size in sizes)
        steered = np.unique(topology.control_regions).tolist()
        first, second = config.control_widths
        self.control_nets = nn.ModuleDict(
            {
                topology.names[number]: nn.Sequential(
                    nn.Linear(3 * int((topology.control_regions == number).sum()), first, bias=False),
                    nn.GELU(),
                    nn.Linear(first, second, bias=False),
                    nn.GELU(),
                    nn.Linear(second, width, bias=False),
                )
                for number in steered
            }
        )
        order = np.concatenate(topology.regions)
        self.register_buffer("_order", torch.from_numpy(order), persistent=False)
        self.register_buffer("_back", torch.from_numpy(np.argsort(order)), persistent=False)
        self.register_buffer("_controls", torch.from_numpy(np.asarray(topology.controls, np.int64)), persistent=False)
        self._sizes = sizes
        count = len(topology.controls)
        self.register_buffer("move_mean", torch.zeros(count, 3))
        self.register_buffer("move_covariance", torch.zeros(3 * count, 3 * count))
        self.register_buffer("window", torch.zeros(topology.size))

    def encode(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b d"]:
        """Codes: the identity token after the last layer, reduced."""
        return self.down(self.encoder(self.tokenised(self.by_region(vertices)))[-1][:, 0])

    def decode(
        self, codes: Float[Tensor, "b d"], displacements: Float[Tensor, "b c 3"] | None = None
    ) -> Float[Tensor, "b v 3"]:
        """Heads of codes, canonical units; only the last layer's vertices are made.

        Args:
            codes: of the heads.
            displacements: of the control points from where the code alone has them, canonical units; None and zeros
                give the same head to the last bit.
        """
        return self.decode_tokens(self.decoder_input(codes, displacements))

    def decode_tokens(self, tokens: Float[Tensor, "b k+1 d"]) -> Float[Tensor, "b v 3"]:
        """Heads of what enters the decoder, see `decoder_input`; canonical units."""
        tokens = self.decoder(tokens)[-1]
        outlets = zip(self.narrowed, self.heads, strict=True)
        parts = [head(narrow(tokens[:, number])) for number, (narrow, head) in enumerate(outlets, 1)]
        merged = torch.cat(parts, dim=1).unflatten(1, (-1, 3))
        return merged.index_select(1, self._back).mul_(self.unit).add_(self.mean)

    def losses(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Float[Tensor, ""]]:
        """The multilayer loss of heads, and of heads whose control points are moved (section 3.2).

        A batch's sources are encoded once: what they give back and what moved sources give share the encoder.
        """
        learning = self.config.learning
        source, target = batch.vertices, batch.vertices
        moving = learning.task == "control"
        if moving:
            source, target = self._pairs(batch, generator)
            way = learning.least + (1 - learning.least) * torch.rand(len(source), 1, 1, generator=generator)
            target = torch.lerp(source, target, way.to(source))
        targets = [self.by_region(source)]
        inside = self.encoder(self.tokenised(targets[0]))
        codes = self.down(inside[-1][:, 0])
        states = _scheduled(inside, learning.targets, towards="mean")
        states += _scheduled(self.decoder(self.decoder_input(codes)), learning.targets, towards="head")
        named = {"heads": len(states) - 1}
        if moving:
            moves = (target - source)[:, self._controls]
            moved = self.decoder(self.decoder_input(codes, moves))
            taught = _scheduled(moved, learning.targets, towards="head")
            # The first state is left out: the displacement is in its tokens already.
            states += [state._replace(moved=True) for state in taught if state.tokens is not moved[0]]
            named["control"] = len(states) - 1
            targets.append(self.by_region(target))
        total, missed = self._layer_losses(states, targets)
        last = {name: missed[number] * self.unit for name, number in named.items()}
        return last | {"total": total}

    def check(self, heads: RegisteredHeads) -> None:
        """Asks for expressions where they move the control points, and for regions with rims, which place them.

        Raises:
            InputError: no head shows an expression, or a region touches no other.
        """
        learning = self.config.learning
        rests = bool((heads.rest == np.arange(len(heads))).all())
        if learning.task == "control" and "expression" in learning.pairs and rests:
            others = ",".join(kind for kind in learning.pairs if kind != "expression") or "identity"
            raise InputError(
                "network.learning.pairs has expression, but no head is known to show one; give network.learning.pairs="
                f"[{others}]"
            )
        for name, rim in zip(self.topology.names, self.topology.rims, strict=True):
            if len(rim) < LEAST_RIM:
                raise InputError(
                    f"region {name} has {len(rim)} vertices beside other regions; at least {LEAST_RIM} are needed to "
                    "place it on another head; join it to another region"
                )

    def see(self, heads: RegisteredHeads) -> None:
        """Mean head and unit, and how far each vertex lies from its region's rim."""
        super().see(heads)
        window = np.zeros(self.topology.size, np.float32)
        for number in range(len(self.topology.names)):
            region, rim = self.topology.regions[number], self.topology.rims[number]
            if len(rim):
                away = NearestNeighbours(heads.mean[rim].astype(np.float64)).query(heads.mean[region])[0]
                share = np.clip(away * UNIT_MM / WINDOW_MM, 0, 1)
                window[region] = share**2 * (3 - 2 * share)
        self.window.copy_(torch.from_numpy(window))

    def finish(self, heads: RegisteredHeads) -> None:
        """The Gaussians of codes and of the displacements between people's regions."""
        super().finish(heads)
        mean, covariance = move_statistics(self.topology, heads)
        self.move_mean.copy_(torch.from_numpy(mean))
        self.move_covariance.copy_(torch.from_numpy(covariance))

    def with_region(
        self, source: Float[Tensor, "b v 3"], donor: Float[Tensor, "b v 3"], name: str
    ) -> Float[Tensor, "b v 3"]:
        """The region's control points go to where the donor's region, rigidly placed, has them."""
        pairs = zip(source.cpu().numpy(), donor.cpu().numpy(), strict=True)
        moves = [moves_towards(self.topology, *pair, [name]) for pair in pairs]
        return self.decode(self.encode(source), torch.from_numpy(np.stack(moves)).to(source))

    def with_new_region(
        self, source: Float[Tensor, "b v 3"], name: str, *, rng: np.random.Generator
    ) -> Float[Tensor, "b v 3"]:
        """The region's control points move as those between people's regions do (section 4.3)."""
        moves = self.drawn_moves([name], len(source), temperature=1.0, rng=rng)
        return self.decode(self.encode(source), torch.from_numpy(moves).to(source))

    def drawn_moves(
        self, names: Sequence[str], count: int, *, temperature: float, rng: np.random.Generator
    ) -> Float[np.ndarray, "n c 3"]:
        """Displacements drawn from the Gaussian of those between people's regions, canonical units.

        Args:
            names: regions that are drawn; control points of others stay.
            count: how many.
            temperature: scales the standard deviations; 0 gives the mean.
            rng: that they are drawn from.

        Raises:
            InputError: there is no such region.
        """
        chosen = np.isin(self.topology.control_regions, [self.topology.region(name) for name in names])
        flat = np.repeat(chosen, 3)
        spread = temperature**2 * self.move_covariance.double().cpu().numpy()[np.ix_(flat, flat)]
        mean = self.move_mean.double().cpu().numpy()[chosen].ravel()
        moves = np.zeros((count, len(flat)))
        moves[:, flat] = rng.multivariate_normal(mean, spread, size=count, method="eigh")
        return moves.reshape(count, -1, 3)

    def by_region(self, vertices: Float[Tensor, "b v 3"]) -> list[Float[Tensor, "b c"]]:
        """Coordinates of each region, normalised."""
        return list(self.normalised(vertices).index_select(1, self._order).flatten(1).split(self._sizes, dim=1))

    def tokenised(self, regions: list[Float[Tensor, "b c"]]) -> Float[Tensor, "b k+1 d"]:
        """The identity token, then one of each region."""
        inlets = zip(self.tokenisers, self.widened, regions, strict=True)
        tokens = [widen(tokeniser(part)) for tokeniser, widen, part in inlets]
        embedded = torch.stack(tokens, dim=1) + self.region_embedding
        return torch.cat([self.identity_token.expand(len(embedded), 1, -1), embedded], dim=1)

    def decoder_input(
        self, codes: Float[Tensor, "b d"], displacements: Float[Tensor, "b c 3"] | None = None
    ) -> Float[Tensor, "b k+1 d"]:
        """The code, then a learnt token of each region with what its control points add."""
        tokens = self.decoder_tokens
        if displacements is not None:
            moves = displacements / self.unit
            added = codes.new_zeros(len(codes), *tokens.shape)
            for name, net in self.control_nets.items():
                number = self.topology.region(name)
                added[:, number] = net(moves[:, self.topology.control_regions == number].flatten(1))
            tokens = tokens + added
        return torch.cat([self.up(codes)[:, None], tokens.expand(len(codes), -1, -1)], dim=1)

    def _pairs(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Source and target heads of a batch, of each kind its share."""
        others = batch.vertices[torch.randperm(len(batch.vertices), generator=generator).to(batch.vertices.device)]
        kinds = self.config.learning.pairs
        sources, targets = [], []
        shares = (part.tensor_split(len(kinds)) for part in (batch.vertices, batch.rest, others))
        for kind, own, rest, other in zip(kinds, *shares, strict=True):
            sources.append(rest if kind == "expression" else own)
            if kind == "region":
                targets += [self._with_part(*pair, generator)[None] for pair in zip(own, other, strict=True)]
            else:
                targets.append(own if kind == "expression" else other)
        return torch.cat(sources), torch.cat(targets)

    def _with_part(
        self, source: Float[Tensor, "v 3"], donor: Float[Tensor, "v 3"], generator: torch.Generator
    ) -> Float[Tensor, "v 3"]:
        """A head with one region of another, drawn evenly, which passes over into its own towards the rim."""
        number = int(torch.randint(len(self.topology.names), (), generator=generator))
        placed = placed_region(self.topology, source.cpu().numpy(), donor.cpu().numpy(), number)
        region = torch.from_numpy(self.topology.regions[number]).to(source.device)
        moved = torch.from_numpy(placed).to(source)
        return source.index_copy(0, region, torch.lerp(source[region], moved, self.window[region, None]))

    def _layer_losses(
        self, states: list["_State"], targets: list[list[Float[Tensor, "b c"]]]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " s"]]:
        """Sum over states of their mean absolute error, region by region, and the error of each; the network's units.

        Args:
            states: of the tokens.
            targets: regions of the sources, and of the heads that their control points were moved to.
        """
        tokens = torch.stack([state.tokens for state in states])
        factors = [state.factor for state in states]
        share = 1 / (tokens.shape[1] * sum(self._sizes))
        total, missed = 0.0, tokens.new_zeros(len(states))
        for number, (narrow, head, *own) in enumerate(zip(self.narrowed, self.heads, *targets, strict=True), 1):
            wanted = [own[state.moved] for state in states]
            loss, each = region_loss(narrow(tokens[:, :, number]), head.weight, head.bias, wanted, factors, share)
            total = total + loss
            missed += each
        return total, missed


class Head(nn.Module):
    """The linear map from a token to its region's coordinates.

    Its weight is stored by inputs, not by outputs as in `nn.Linear`: decoding one head is spent on reading it, and a
    product that adds up whole rows reads it twice as fast.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, tokens: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Coordinates."""
        return torch.addmm(self.bias, tokens, self.weight)


class _State(NamedTuple):
    """Tokens of some heads after a layer, and what they should decode to."""

    tokens: Float[Tensor, "b k+1 d"]
    factor: float
    """Of the head's deviation from the mean."""
    moved: bool = False
    """Whether the head is the one that the control points were moved to."""


def _scheduled(
    states: list[Float[Tensor, "b k+1 d"]], targets: str, *, towards: Literal["mean", "head"]
) -> list[_State]:
    """What the layers of one stack should decode to (Eqns 1 and 2)."""
    last = len(states) - 1
    if targets == "last":
        return [_State(states[-1], 1.0)] if towards == "head" else []
    way = [number / last for number in range(last + 1)]
    factors = [1.0] * (last + 1) if targets == "input" else way if towards == "head" else way[::-1]
    return list(map(_State, states, factors))


def _layer(config: LAMMConfig, tokens: int) -> nn.Module:
    if config.backbone == "mixer":
        return MixerLayer(tokens, config.width, config.dropout)
    return TransformerLayer(config.width, config.dropout)
