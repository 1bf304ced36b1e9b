"""imHead's identity field (Potamias et al., "A Large-scale Implicit Morphable Model for Localized Head Modeling").

One compact identity code is decomposed into 39 local embeddings (DecNet); these place 39 anchors (LandmarkNet)
and condition 39 local-part networks in the anchors' frames; the networks' features are blended by distance
(Eqns 4 and 5) and a fusion network turns the blend into the signed distance (Eqn 6).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit3dmm.errors import InputError
from implicit3dmm.fields.base import ConditionedField, Field, Frames, Jacobian, register_field
from implicit3dmm.fields.blending import BlendConfig, Nearby, find_nearby, nearby_weights, softmax_weights
from implicit3dmm.fields.layers import BallOffset, ExteriorBall, GroupedMLP, permute_rows, positional_encoding, softplus
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
class ImHeadConfig:
    """Sizes of imHead's identity field; the defaults are the paper's where it gives them."""

    codes: Literal["compact", "local"] = "compact"
    """compact: one identity code, from which the local embeddings are made (DecNet); local: they are codes themselves
    (NPHM)."""
    latent_dim: int = 256
    """Size of the identity code, where codes are compact."""
    local_dim: int = 32
    """Size of each of the 39 local embeddings."""
    global_dim: int = 0
    """Size of a global code beside local ones; all local networks read it, and the landmark network reads it alone
    (NPHM)."""
    local_frames: bool = True
    """Whether each local network reads points relative to its anchor (Eqn 13), or all read them as they are."""
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
    fusion: bool = True
    """Whether a fusion network makes the distance from blended features; else the local networks give signed distances,
    and these are blended (NPHM)."""
    fusion_width: int = 200
    """Width of the fusion network."""
    fusion_layers: int = 4
    """Hidden layers of the fusion network."""
    ambient: int = 0
    """Ambient coordinates of a point beside its place, which an expression warp hands over; see expression_warp."""
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
        for name in ("octaves", "global_dim", "ambient"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 0")
        if self.global_dim and self.codes == "compact":
            raise InputError(f"global_dim is {self.global_dim} with compact codes; give codes: local, or global_dim: 0")
        if self.octave_decay <= 0 or self.exterior_radius <= 0:
            raise InputError("octave_decay and exterior_radius must be above 0")


@register_field("imhead", ImHeadConfig)
class ImHead(Field):
    """The identity field. Mirrored anchors share one network, so there are 23 for 39 anchors."""

    parts = tuple(ANCHOR_GROUPS)

    def __init__(self, config: ImHeadConfig):
        super().__init__()
        self.config = config
        self.latent_specs = _latent_specs(config)
        self.ambient = config.ambient
        self.exterior = ExteriorBall(config.exterior_radius)
        pairs, count = len(ANCHOR_PAIRS), len(ANCHORS)
        network = torch.cat([torch.arange(pairs).repeat_interleave(2), torch.arange(pairs, count - pairs)])
        flip = torch.ones(count)
        flip[: 2 * pairs : 2] = -1  # the even one of a pair is on the subject's right: mirrored to the left
        self.register_buffer("network", network, persistent=False)
        self.register_buffer("flip", flip, persistent=False)
        self.register_buffer("mean_anchors", torch.tensor(average_anchors(), dtype=torch.float32))

        embed_dim = config.local_dim + config.global_dim
        if config.codes == "compact":
            self.decompose = nn.Linear(config.latent_dim, count * config.local_dim)
        self.landmarks = _landmark_net(config.global_dim or count * embed_dim, config.landmark_width, count)
        encoding = 3 + 6 * config.octaves
        hidden = [config.local_width] * config.local_layers
        decay = config.octave_decay ** torch.arange(config.octaves).repeat_interleave(6)
        self.local = GroupedMLP(
            count - pairs,
            [encoding + config.ambient, *hidden, config.feature_dim if config.fusion else 1],
            torch.cat([torch.ones(3), decay, torch.ones(config.ambient)]),
        )
        embed = torch.randn(count - pairs, embed_dim, config.local_width)
        self.local_embed = nn.Parameter(embed * embed_dim**-0.5)
        if config.fusion:
            self.fusion = FusionNet(3 + config.ambient, config.feature_dim, config.fusion_width, config.fusion_layers)
        else:
            self.fusion = BallOffset()

    def condition(self, codes: Codes) -> "ConditionedImHead":
        """Makes the local embeddings, places the anchors, folds the embeddings into first-layer biases."""
        return self.condition_on_embeddings(self._embeddings(codes))

    def condition_on_embeddings(
        self,
        embeddings: Float[Tensor, "b 39 e"],
        anchors: Float[Tensor, "b 39 3"] | None = None,
        expression: None = None,
    ) -> "ConditionedImHead":
        """The field of given local embeddings, which need not come from one identity code; see `Field`."""
        return ConditionedImHead(self, embeddings, self._anchors(embeddings) if anchors is None else anchors)

    def traits(self, codes: Codes) -> Float[Tensor, "b f"]:
        """The local embeddings, which an edit of a part changes too."""
        return self._embeddings(codes).flatten(1)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """As in `Field`; what the ambient coordinates do starts at zero."""
        own = self.state_dict()
        for name in ("local.weights.0", "fusion.point.weight"):
            if name in own and name in weights:
                padded = torch.zeros_like(own[name])
                padded[tuple(slice(size) for size in weights[name].shape)] = weights[name]
                weights = {**weights, name: padded}
        super().start_from(weights)

    def jacobian(self, codes: Codes, points: Float[Tensor, "n 3+a"]) -> Jacobian:
        """As in `Field`, through the few embeddings and anchors that act at each point."""
        if not self.config.blend.neighbours:
            return super().jacobian(codes, points)
        with torch.no_grad():
            embeddings = self._embeddings(codes)
            sdf, by_embeddings, by_anchors, by_points = self.condition(codes).sensitivities(points)
            by_embeddings += (by_anchors.flatten(1) @ self._anchor_jacobian(embeddings)).view_as(by_embeddings)
            return Jacobian(sdf, self._pull_back(by_embeddings), by_points)

    def _embeddings(self, codes: Codes) -> Float[Tensor, "b 39 e"]:
        if self.config.codes == "compact":
            return self.decompose(codes["identity"]).unflatten(-1, (len(ANCHORS), -1))
        local = codes["local"].unflatten(-1, (len(ANCHORS), -1))
        if not self.config.global_dim:
            return local
        return torch.cat([local, codes["global"][:, None].expand(-1, len(ANCHORS), -1)], dim=-1)

    def _pull_back(self, by_embeddings: Float[Tensor, "n 39 e"]) -> Codes:
        """Derivatives by the codes from those by the embeddings, which are linear in them."""
        if self.config.codes == "compact":
            return {"identity": by_embeddings.flatten(1) @ self.decompose.weight}
        local, shared = by_embeddings.split([self.config.local_dim, self.config.global_dim], dim=-1)
        return {"local": local.flatten(1)} | ({"global": shared.sum(1)} if self.config.global_dim else {})

    def _anchors(self, embeddings: Float[Tensor, "b 39 e"]) -> Float[Tensor, "b 39 3"]:
        read = embeddings[:, 0, self.config.local_dim :] if self.config.global_dim else embeddings.flatten(1)
        return self.mean_anchors + self.landmarks(read).unflatten(-1, (-1, 3))

    def _anchor_jacobian(self, embeddings: Float[Tensor, "1 39 e"]) -> Float[Tensor, "117 f"]:
        with torch.enable_grad():
            copies = embeddings.detach().expand(3 * len(ANCHORS), -1, -1).clone().requires_grad_()
            (rows,) = torch.autograd.grad(self._anchors(copies).flatten(1).diagonal().sum(), copies)
        return rows.flatten(1)


class ConditionedImHead(ConditionedField):
    """imHead's field for `b` given shapes."""

    def __init__(self, model: ImHead, embeddings: Float[Tensor, "b 39 e"], anchors: Float[Tensor, "b 39 3"]):
        self.model = model
        self.embeddings = embeddings
        self.anchors = anchors
        bias = model.local.biases[0][model.network]
        # (39, b, h): anchors first, because rows are sorted by anchor and then by shape.
        self._first_bias = torch.einsum("bke,keh->kbh", embeddings, model.local_embed[model.network]) + bias[:, None]

    def sdf(self, points: Float[Tensor, "b n 3+a"]) -> Float[Tensor, "b n"]:
        """Signed distance, canonical units; only the few networks that act at a point are evaluated there."""
        inside, outside = self.model.exterior.split(points)
        return self.model.fusion(inside, self._features(inside)) + outside

    def sdf_dense(self, points: Float[Tensor, "b n 3+a"]) -> Float[Tensor, "b n"]:
        """The same function with all 39 networks evaluated at every point: the obvious twin of `sdf`."""
        inside, outside = self.model.exterior.split(points)
        return self.model.fusion(inside, self._features_dense(inside)) + outside

    def features(self, points: Float[Tensor, "b n 3+a"]) -> Float[Tensor, "b n f"]:
        """Blended features of the local networks (Eqn 4), which the fusion network reads."""
        return self._features(self.model.exterior.split(points)[0])

    def sensitivities(
        self, points: Float[Tensor, "n 3+a"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 39 e"], Float[Tensor, "n 39 3"], Float[Tensor, "n 3+a"]]:
        """Signed distances of the first shape, and their derivatives by embeddings, anchors and points.

        One backward pass: each point gets its own copy of the biases and centres of the few anchors that act there.
        """
        with torch.enable_grad():
            points = points.detach()[None].requires_grad_()
            inside, outside = self.model.exterior.split(points)
            found = find_nearby(inside[..., :3].detach(), self.anchors[:1].detach(), self.model.config.blend.neighbours)
            nearby = Nearby(found.indices, found.centres.requires_grad_())
            rows = self._rows(nearby.indices[..., :-1])
            bias = self._first_bias.detach()[:, 0].index_select(0, rows.segment).requires_grad_()
            own = rows._replace(segment=torch.arange(len(bias), device=bias.device))
            sdf = self.model.fusion(inside, self._blend(inside, nearby, own, bias)) + outside
            by_bias, by_centres, by_points = torch.autograd.grad(sdf.sum(), [bias, nearby.centres, points])
        with torch.no_grad():
            by_anchors = _scatter(found.indices[0], by_centres[0])
            # Sorted by network, every network's rows meet its embedding matrix in one product.
            matrices = self.model.local_embed.transpose(1, 2)
            parts = zip(by_bias.split(rows.counts), matrices, strict=True)
            acting = torch.cat([part @ matrix for part, matrix in parts])[rows.inverse]
            by_embeddings = _scatter(found.indices[0, :, :-1], acting.unflatten(0, (len(points[0]), -1)))
        return sdf[0].detach(), by_embeddings, by_anchors, by_points[0]

    def part_weights(self, points: Float[Tensor, "b n 3"]) -> tuple[Int[Tensor, "b n k"], Float[Tensor, "b n k"]]:
        """Anchors that act at each point, and their weights, which add up to one (Eqn 5)."""
        return self._weights(self.model.exterior.split(points)[0][..., :3])

    def with_part(self, name: str, other: "ConditionedImHead", *, frames: Frames = "part") -> "ConditionedImHead":
        """Takes the embeddings of one group of anchors from `other`, and their places; nothing else moves.

        Args:
            name: one of `parts`, with "_L" or "_R" only the half of it on that side of the subject.
            other: a field of the same model.
            frames: "all" lets the landmark network place all anchors anew, as it reads every embedding.

        Raises:
            InputError: `name` is no part of the model.
        """
        try:
            group = anchor_group(name)
        except KeyError:
            raise InputError(
                f"imhead has no part {name!r}; its parts are {', '.join(ANCHOR_GROUPS)}, or one side "
                "of one, such as ears_L"
            ) from None
        group = list(group)
        embeddings, anchors = self.embeddings.clone(), self.anchors.clone()
        own = slice(self.model.config.local_dim)  # a global code belongs to the head, not to its parts
        embeddings[:, group, own] = other.embeddings[:, group, own]
        anchors[:, group] = other.anchors[:, group]
        return self.model.condition_on_embeddings(embeddings, anchors if frames == "part" else None)

    def with_mirrored(self, name: str) -> "ConditionedImHead":
        """Gives the embeddings of one side of a part to the other side, and its anchors the mirrored places."""
        stem, side = name[:-2], name[-2:]
        if side not in ("_L", "_R"):
            raise InputError(f"imhead mirrors one side of a part; {name!r} names none; give it as ears_L or ears_R")
        return self.with_part(f"{stem}_{'R' if side == '_L' else 'L'}", self.mirrored())

    def towards(self, other: "ConditionedImHead", share: float) -> "ConditionedImHead":
        """Moves embeddings and anchors along straight lines; embeddings are affine in the codes, so codes do too."""
        embeddings = torch.lerp(self.embeddings, other.embeddings, share)
        return self.model.condition_on_embeddings(embeddings, torch.lerp(self.anchors, other.anchors, share))

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
            weights = softmax_weights(points, self.anchors, blend)
            return torch.arange(len(ANCHORS), device=points.device).expand(weights.shape), weights
        nearby = find_nearby(points, self.anchors, blend.neighbours)
        return nearby.indices[..., :-1], nearby_weights(points, nearby, blend)

    def _features_dense(self, points: Float[Tensor, "b n 3+a"]) -> Float[Tensor, "b n f"]:
        batch, count, _ = points.shape
        points, ambient = points[..., :3], points[..., 3:]
        origins = self.anchors if self.model.config.local_frames else torch.zeros_like(self.anchors)
        local = points[None] - origins.transpose(0, 1)[:, :, None]  # (39, b, n, 3)
        flipped = torch.cat([local[..., :1] * self.model.flip[:, None, None, None], local[..., 1:]], dim=-1)
        encoded = positional_encoding(flipped, self.model.config.octaves)
        encoded = torch.cat([encoded, ambient.expand(len(ANCHORS), -1, -1, -1)], dim=-1).flatten(1, 2)
        bias = self._first_bias[:, :, None].expand(-1, -1, count, -1).flatten(1, 2)
        features = self.model.local.dense(encoded, bias, self.model.network).unflatten(1, (batch, count))
        indices, weights = self._weights(points)
        dense = torch.zeros(batch, count, len(ANCHORS), dtype=weights.dtype, device=weights.device)
        return torch.einsum("kbnf,bnk->bnf", features, dense.scatter(2, indices, weights))

    def _features(self, points: Float[Tensor, "b n 3+a"]) -> Float[Tensor, "b n f"]:
        neighbours = self.model.config.blend.neighbours
        if not neighbours:
            return self._features_dense(points)
        nearby = find_nearby(points[..., :3], self.anchors, neighbours)
        return self._blend(points, nearby, self._rows(nearby.indices[..., :-1]), self._first_bias.flatten(0, 1))

    def _rows(self, indices: Int[Tensor, "b n k"]) -> "_Rows":
        batch = len(indices)
        shape_of = torch.arange(batch, device=indices.device)[:, None, None]
        key = (indices * batch + shape_of).flatten()  # sorted by network, then anchor, then shape
        order = key.argsort(stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        segment = key[order]
        anchor = segment.div(batch, rounding_mode="floor")
        network = self.model.network[anchor]
        counts = torch.bincount(network, minlength=len(self.model.local.weights[0])).tolist()
        return _Rows(order, inverse, segment, anchor, network, counts)

    def _blend(
        self, points: Float[Tensor, "b n 3+a"], nearby: Nearby, rows: "_Rows", first_bias: Float[Tensor, "s h"]
    ) -> Float[Tensor, "b n f"]:
        """Features of the rows' networks, whose first biases are `first_bias[rows.segment]`, blended at each point."""
        batch, count, neighbours = nearby.indices[..., :-1].shape
        points, ambient = points[..., :3], points[..., 3:]
        origins = nearby.centres[:, :, :-1]
        local = points[:, :, None] - (origins if self.model.config.local_frames else torch.zeros_like(origins))
        if self.model.ambient:
            local = torch.cat([local, ambient[:, :, None].expand(-1, -1, neighbours, -1)], dim=-1)
        local = permute_rows(local.flatten(0, 2), rows.order, rows.inverse)
        place = torch.cat([local[:, :1] * self.model.flip[rows.anchor, None], local[:, 1:3]], dim=-1)
        encoded = positional_encoding(place, self.model.config.octaves)
        if self.model.ambient:
            encoded = torch.cat([encoded, local[:, 3:]], dim=-1)
        features = self.model.local(encoded, first_bias, rows.segment, rows.network, rows.counts)
        features = permute_rows(features, rows.inverse, rows.order).unflatten(0, (batch * count, neighbours))
        weights = nearby_weights(points, nearby, self.model.config.blend).flatten(0, 1)
        return torch.einsum("rkf,rk->rf", features, weights).unflatten(0, (batch, count))


class _Rows(NamedTuple):
    """Pairs of a point and an anchor that acts there, sorted so that each local network has its rows together."""

    order: Int[Tensor, " r"]
    inverse: Int[Tensor, " r"]
    segment: Int[Tensor, " r"]
    """Row of the table of first biases."""
    anchor: Int[Tensor, " r"]
    network: Int[Tensor, " r"]
    counts: list[int]
    """Rows of each network."""


def _scatter(indices: Int[Tensor, "n k"], values: Float[Tensor, "n k d"]) -> Float[Tensor, "n 39 d"]:
    whole = values.new_zeros(len(indices), len(ANCHORS), values.shape[-1])
    return whole.scatter_(1, indices[..., None].expand_as(values), values)


def _latent_specs(config: ImHeadConfig) -> tuple[LatentSpec, ...]:
    if config.codes == "compact":
        return (LatentSpec("identity", config.latent_dim, config.latent_dim**-0.5, "subject"),)
    local = LatentSpec("local", len(ANCHORS) * config.local_dim, config.local_dim**-0.5, "subject", per_anchor=True)
    if not config.global_dim:
        return (local,)
    return (LatentSpec("global", config.global_dim, config.global_dim**-0.5, "subject"), local)


def _landmark_net(inputs: int, width: int, count: int) -> nn.Sequential:
    """Three layers to the anchors' offsets, which start at zero."""
    last = nn.Linear(width, 3 * count)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)


class FusionNet(nn.Module):
    """Signed distance from a point and its blended features (Eqn 6)."""

    def __init__(self, point_dim: int, feature_dim: int, width: int, layers: int):
        """Starts near the distance to a ball about the origin (Atzmon and Lipman 2020, section 5).

        Its radius would be 0.5 with ReLU; the bend of Softplus makes it smaller, the more so the deeper the network.
        """
        super().__init__()
        self.point = nn.Linear(point_dim, width)
        self.features = nn.Linear(feature_dim, width, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.out = nn.Linear(width, 1)
        for layer in (self.point, *self.hidden):
            nn.init.normal_(layer.weight, 0, (2 / width) ** 0.5)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.features.weight, 0, 0.1 * (2 / width) ** 0.5)
        nn.init.normal_(self.out.weight, (torch.pi / width) ** 0.5, 1e-4)
        nn.init.constant_(self.out.bias, -0.5)

    def forward(self, points: Float[Tensor, "b n 3+a"], features: Float[Tensor, "b n f"]) -> Float[Tensor, "b n"]:
        """Signed distance before the exterior is added, canonical units."""
        values = softplus(self.point(points) + self.features(features))
        for layer in self.hidden:
            values = softplus(layer(values))
        return self.out(values).squeeze(-1)
