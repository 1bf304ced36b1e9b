"""imHead's identity field (Potamias et al., "A Large-scale Implicit Morphable Model for Localized Head Modeling").

One compact identity code is decomposed into 39 local embeddings (DecNet); these place 39 anchors (LandmarkNet)
and condition 39 local-part networks in the anchors' frames; the networks' features are blended by distance
(Eqns 4 and 5) and a fusion network turns the blend into the signed distance (Eqn 6).
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit3dmm.errors import InputError
from implicit3dmm.fields.base import ConditionedField, Field, register_field
from implicit3dmm.fields.layers import (
    ExteriorBall,
    GroupedMLP,
    permute_rows,
    positional_encoding,
    softplus,
)
from implicit3dmm.heads.template import (
    ANCHOR_GROUPS,
    ANCHOR_PAIRS,
    ANCHORS,
    anchor_group,
    anchor_mirror,
    average_anchors,
)
from implicit3dmm.latents import Codes, LatentSpec


@dataclass(frozen=True)
class BlendConfig:
    """How the local networks are weighted at a point (Eqn 5)."""

    neighbours: int = 4
    """Networks that act at a point, by compact support; 0 is the paper's softmax over all 39."""
    sigma: float = 0.1
    """Length over which a network's weight falls, canonical units; the paper does not give it. 0.1 is 20 mm, the
    spacing of the anchors in the face."""
    softening: float = 0.01
    """Distances are sqrt(d^2 + softening^2), canonical units, so that the field has no kink at an anchor."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        # With one or two neighbours the weights jump: everywhere between two anchors, or along the lines that are
        # equally far from three.
        if self.neighbours != 0 and not 3 <= self.neighbours < len(ANCHORS):
            raise InputError(f"neighbours is {self.neighbours}; give 0 (all) or 3 to {len(ANCHORS) - 1}")
        if self.sigma <= 0:
            raise InputError(f"sigma is {self.sigma}; expected above 0, canonical units")
        if self.softening <= 0:
            raise InputError(f"softening is {self.softening}; expected above 0, canonical units")


@dataclass(frozen=True)
class ImHeadConfig:
    """Sizes of imHead's identity field; the defaults are the paper's where it gives them."""

    latent_dim: int = 256
    """Size of the identity code."""
    local_dim: int = 32
    """Size of each of the 39 local embeddings."""
    octaves: int = 7
    """Octaves of the positional encoding of local coordinates."""
    octave_decay: float = 0.5
    """Initial first-layer weights of octave l are scaled by octave_decay ** l, so that training starts smooth."""
    local_width: int = 200
    """Width of the local-part networks."""
    local_layers: int = 4
    """Hidden layers of the local-part networks."""
    feature_dim: int = 200
    """Size of the blended features; the paper does not give it."""
    fusion_width: int = 200
    """Width of the fusion network."""
    fusion_layers: int = 4
    """Hidden layers of the fusion network."""
    landmark_width: int = 256
    """Width of the landmark network's two hidden layers; the paper does not give it."""
    exterior_radius: float = 1.0
    """Radius of the ball, canonical units, outside which the distance is extended explicitly."""
    blend: BlendConfig = field(default_factory=BlendConfig)
    """How the local networks are weighted."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        for name in (
            "latent_dim", "local_dim", "local_width", "local_layers", "feature_dim",
            "fusion_width", "fusion_layers", "landmark_width",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.octaves < 0:
            raise InputError(f"octaves is {self.octaves}; expected at least 0")
        if self.octave_decay <= 0 or self.exterior_radius <= 0:
            raise InputError("octave_decay and exterior_radius must be above 0")


@register_field("imhead", ImHeadConfig)
class ImHead(Field):
    """The identity field. Mirrored anchors share one network, so there are 23 for 39 anchors."""

    parts = tuple(ANCHOR_GROUPS)

    def __init__(self, config: ImHeadConfig):
        super().__init__()
        self.config = config
        self.latent_specs = (LatentSpec("identity", config.latent_dim, config.latent_dim**-0.5, "subject"),)
        self.exterior = ExteriorBall(config.exterior_radius)
        pairs, count = len(ANCHOR_PAIRS), len(ANCHORS)
        network = torch.cat([torch.arange(pairs).repeat_interleave(2), torch.arange(pairs, count - pairs)])
        flip = torch.ones(count)
        flip[: 2 * pairs : 2] = -1  # the even one of a pair is on the subject's right: mirrored to the left
        self.register_buffer("network", network, persistent=False)
        self.register_buffer("flip", flip, persistent=False)
        self.register_buffer("mean_anchors", torch.tensor(average_anchors(), dtype=torch.float32))

        self.decompose = nn.Linear(config.latent_dim, count * config.local_dim)
        self.landmarks = _landmark_net(count, config)
        encoding = 3 + 6 * config.octaves
        hidden = [config.local_width] * config.local_layers
        decay = config.octave_decay ** torch.arange(config.octaves).repeat_interleave(6)
        self.local = GroupedMLP(
            count - pairs, [encoding, *hidden, config.feature_dim], torch.cat([torch.ones(3), decay])
        )
        embed = torch.randn(count - pairs, config.local_dim, config.local_width)
        self.local_embed = nn.Parameter(embed * config.local_dim**-0.5)
        self.fusion = FusionNet(config.feature_dim, config.fusion_width, config.fusion_layers)

    def condition(self, codes: Codes) -> "ConditionedImHead":
        """Decomposes the identity code, places the anchors, folds the embeddings into first-layer biases."""
        embeddings = self.decompose(codes["identity"]).unflatten(-1, (len(ANCHORS), -1))
        return self.condition_on_embeddings(embeddings)

    def condition_on_embeddings(self, embeddings: Float[Tensor, "b 39 e"]) -> "ConditionedImHead":
        """The field of given local embeddings, which need not come from one identity code."""
        offsets = self.landmarks(embeddings.flatten(1)).unflatten(-1, (-1, 3))
        return ConditionedImHead(self, embeddings, self.mean_anchors + offsets)


class ConditionedImHead(ConditionedField):
    """imHead's field for `b` given shapes."""

    def __init__(self, model: ImHead, embeddings: Float[Tensor, "b 39 e"], anchors: Float[Tensor, "b 39 3"]):
        self.model = model
        self.embeddings = embeddings
        self.anchors = anchors
        bias = model.local.biases[0][model.network]
        # (39, b, h): anchors first, because rows are sorted by anchor and then by shape.
        self._first_bias = torch.einsum("bke,keh->kbh", embeddings, model.local_embed[model.network]) + bias[:, None]

    def sdf(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
        """Signed distance, canonical units; only the few networks that act at a point are evaluated there."""
        inside, outside = self.model.exterior.split(points)
        return self.model.fusion(inside, self._features(inside)) + outside

    def sdf_dense(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
        """The same function with all 39 networks evaluated at every point: the obvious twin of `sdf`."""
        inside, outside = self.model.exterior.split(points)
        return self.model.fusion(inside, self._features_dense(inside)) + outside

    def features(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n f"]:
        """Blended features of the local networks (Eqn 4), which the fusion network reads."""
        return self._features(self.model.exterior.split(points)[0])

    def part_weights(self, points: Float[Tensor, "b n 3"]) -> tuple[Int[Tensor, "b n k"], Float[Tensor, "b n k"]]:
        """Anchors that act at each point, and their weights, which add up to one (Eqn 5)."""
        return self._weights(self.model.exterior.split(points)[0])

    def with_part(self, name: str, other: "ConditionedImHead") -> "ConditionedImHead":
        """Takes the embeddings of one group of anchors from `other`, and their places; nothing else moves.

        Raises:
            InputError: `name` is no part of the model.
        """
        if name not in ANCHOR_GROUPS:
            raise InputError(f"imhead has no part {name!r}; its parts are {', '.join(ANCHOR_GROUPS)}")
        taken = torch.zeros(len(ANCHORS), 1, dtype=torch.bool, device=self.anchors.device)
        taken[list(anchor_group(name))] = True
        return ConditionedImHead(
            self.model,
            torch.where(taken, other.embeddings, self.embeddings),
            torch.where(taken, other.anchors, self.anchors),
        )

    def mirrored(self) -> "ConditionedImHead":
        """Swaps the embeddings within each pair and reflects the anchors in the midplane x = 0.

        Weights then mirror everywhere, and features wherever paired networks alone act. The distance need not: the
        midline networks and the fusion network see coordinates as they are.
        """
        order = torch.as_tensor(anchor_mirror(), device=self.anchors.device)
        flip = self.anchors.new_tensor([-1.0, 1.0, 1.0])
        return ConditionedImHead(self.model, self.embeddings[:, order], flip * self.anchors[:, order])

    def _weights(self, points: Float[Tensor, "b n 3"]) -> tuple[Int[Tensor, "b n k"], Float[Tensor, "b n k"]]:
        blend = self.model.config.blend
        if not blend.neighbours:
            distance = _distance(points[:, :, None] - self.anchors[:, None], blend.softening)
            indices = torch.arange(len(ANCHORS), device=points.device).expand(distance.shape)
            return indices, torch.softmax(-distance / blend.sigma, dim=-1)
        nearest = _nearest(points, self.anchors, blend.neighbours + 1)
        rows = nearest[..., None].expand(-1, -1, -1, 3)
        chosen = self.anchors[:, None].expand(-1, points.shape[1], -1, -1).gather(2, rows)
        distance = _distance(points[:, :, None] - chosen, blend.softening)
        return nearest[..., :-1], compact_weights(distance, blend.sigma)

    def _features_dense(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n f"]:
        batch, count, _ = points.shape
        local = points[None] - self.anchors.transpose(0, 1)[:, :, None]  # (39, b, n, 3)
        flipped = torch.cat([local[..., :1] * self.model.flip[:, None, None, None], local[..., 1:]], dim=-1)
        encoded = positional_encoding(flipped, self.model.config.octaves).flatten(1, 2)
        bias = self._first_bias[:, :, None].expand(-1, -1, count, -1).flatten(1, 2)
        features = self.model.local.dense(encoded, bias, self.model.network).unflatten(1, (batch, count))
        indices, weights = self._weights(points)
        dense = torch.zeros(batch, count, len(ANCHORS), dtype=weights.dtype, device=weights.device)
        return torch.einsum("kbnf,bnk->bnf", features, dense.scatter(2, indices, weights))

    def _features(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n f"]:
        if not self.model.config.blend.neighbours:
            return self._features_dense(points)
        indices, weights = self._weights(points)
        batch, count, neighbours = indices.shape
        shape_of = torch.arange(batch, device=points.device)[:, None, None]
        key = (indices * batch + shape_of).flatten()  # sorted by network, then anchor, then shape
        order = key.argsort(stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)

        segment = key[order]
        anchor = segment.div(batch, rounding_mode="floor")
        network = self.model.network[anchor]
        counts = torch.bincount(network, minlength=len(self.model.local.weights[0])).tolist()
        row = order.div(neighbours, rounding_mode="floor")
        centres = self.anchors.transpose(0, 1).flatten(0, 1).index_select(0, segment)
        local = points.flatten(0, 1).index_select(0, row) - centres
        local = torch.cat([local[:, :1] * self.model.flip[anchor, None], local[:, 1:]], dim=-1)
        encoded = positional_encoding(local, self.model.config.octaves)
        features = self.model.local(encoded, self._first_bias.flatten(0, 1), segment, network, counts)
        features = permute_rows(features, inverse, order).unflatten(0, (batch * count, neighbours))
        return torch.einsum("rkf,rk->rf", features, weights.flatten(0, 1)).unflatten(0, (batch, count))


def compact_weights(distance: Float[Tensor, "*n m"], sigma: float) -> Float[Tensor, "*n m-1"]:
    """Blend weights with compact support, from the distances to the m = k + 1 nearest anchors in rising order.

    Proportional to (exp(-d_j / sigma) - exp(-d_m / sigma))^2. An anchor's weight and its gradient vanish where it
    stops being among the k nearest, so evaluating k networks is exact and nothing jumps. The other weights know d_m
    too, and its gradient jumps where the m-th anchor changes: there the field is continuous with a faint crease.
    """
    decay = torch.exp((distance[..., :1].detach() - distance) / sigma)
    raw = (decay[..., :-1] - decay[..., -1:]).square() + 1e-12
    return raw / raw.sum(-1, keepdim=True)


def _nearest(points: Tensor, anchors: Tensor, count: int) -> Int[Tensor, "b n k"]:
    """Indices of the nearest anchors, by rising distance; each pair by itself, so that chunks do not matter."""
    with torch.no_grad():
        squared = torch.zeros(*points.shape[:2], anchors.shape[1], dtype=points.dtype, device=points.device)
        for axis in range(3):
            squared += (points[..., None, axis] - anchors[:, None, :, axis]).square_()
        return squared.topk(count, dim=-1, largest=False).indices


def _distance(offset: Tensor, softening: float) -> Tensor:
    return (offset.square().sum(-1) + softening**2).sqrt()


def _landmark_net(count: int, config: ImHeadConfig) -> nn.Sequential:
    """Three layers from all local embeddings to the anchors' offsets, which start at zero."""
    last = nn.Linear(config.landmark_width, 3 * count)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(count * config.local_dim, config.landmark_width),
        nn.ReLU(),
        nn.Linear(config.landmark_width, config.landmark_width),
        nn.ReLU(),
        last,
    )


class FusionNet(nn.Module):
    """Signed distance from a point and its blended features (Eqn 6)."""

    def __init__(self, feature_dim: int, width: int, layers: int):
        """Starts near the distance to a ball about the origin (Atzmon and Lipman 2020, section 5).

        Its radius would be 0.5 with ReLU; the bend of Softplus makes it smaller, the more so the deeper the network.
        """
        super().__init__()
        self.point = nn.Linear(3, width)
        self.features = nn.Linear(feature_dim, width, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.out = nn.Linear(width, 1)
        for layer in (self.point, *self.hidden):
            nn.init.normal_(layer.weight, 0, (2 / width) ** 0.5)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.features.weight, 0, 0.1 * (2 / width) ** 0.5)
        nn.init.normal_(self.out.weight, (torch.pi / width) ** 0.5, 1e-4)
        nn.init.constant_(self.out.bias, -0.5)

    def forward(self, points: Float[Tensor, "b n 3"], features: Float[Tensor, "b n f"]) -> Float[Tensor, "b n"]:
        """Signed distance before the exterior is added, canonical units."""
        values = softplus(self.point(points) + self.features(features))
        for layer in self.hidden:
            values = softplus(layer(values))
        return self.out(values).squeeze(-1)
