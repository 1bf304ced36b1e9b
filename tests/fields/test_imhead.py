"""imHead's identity field against the paper's equations written out, and what its parts may and may not touch."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from implicit3dmm.errors import InputError
from implicit3dmm.fields import BlendConfig, ImHead, ImHeadConfig
from implicit3dmm.fields.blending import compact_weights
from implicit3dmm.fields.layers import softplus
from implicit3dmm.heads.template import ANCHOR_GROUPS, ANCHOR_PAIRS, ANCHORS, anchor_group, average_anchors

SIZES = dict(
    latent_dim=6,
    local_dim=3,
    octaves=3,
    local_width=10,
    local_layers=2,
    feature_dim=5,
    fusion_width=12,
    fusion_layers=2,
    landmark_width=8,
)


def field(neighbours: int = 4, **changes) -> ImHead:
    """A field in float64 without a zero weight, so that nothing is hidden."""
    torch.manual_seed(0)
    model = ImHead(ImHeadConfig(**SIZES | changes, blend=BlendConfig(neighbours))).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def codes(batch: int = 2) -> dict[str, torch.Tensor]:
    return {"identity": torch.randn(batch, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)}


def places(batch: int = 2, count: int = 40, seed: int = 2) -> torch.Tensor:
    drawn = torch.rand(batch, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.tensor([1.0, 1.6, 1.4]) * (drawn - 0.5)


def as_published(model: ImHead, code: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """The signed distance at one point of the unit ball, anchor by anchor, equation by equation."""
    config = model.config
    embeddings = (model.decompose.weight @ code + model.decompose.bias).reshape(len(ANCHORS), -1)  # Eqn 1
    anchors = model.mean_anchors + model.landmarks(embeddings.flatten()).reshape(-1, 3)  # Eqn 3
    distance = ((point - anchors).square().sum(1) + config.blend.softening**2).sqrt()
    decay = torch.exp(-distance / config.blend.sigma)
    if config.blend.neighbours:  # the compact form of Eqn 5
        decay = (decay - decay.sort(descending=True).values[config.blend.neighbours]).clamp_min(0) ** 2
    weights = decay / decay.sum()
    blended = torch.zeros(config.feature_dim, dtype=point.dtype)
    for j, name in enumerate(ANCHORS):
        local = point - anchors[j]
        if name.endswith("_R"):
            local = local * torch.tensor([-1.0, 1.0, 1.0], dtype=point.dtype)
        waves = [f(math.pi * 2**octave * local) for octave in range(config.octaves) for f in (torch.sin, torch.cos)]
        network = ANCHOR_PAIRS.index(name[:-2]) if name[-2:] in ("_R", "_L") else j - len(ANCHOR_PAIRS)
        values = torch.cat([local, *waves]) @ model.local.weights[0][network] + model.local.biases[0][network]
        values = values + embeddings[j] @ model.local_embed[network]
        for weight, bias in zip(model.local.weights[1:], model.local.biases[1:], strict=True):
            values = softplus(values) @ weight[network] + bias[network]  # Eqn 2
        blended = blended + weights[j] * values  # Eqn 4
    values = model.fusion.point(point) + model.fusion.features(blended)
    for layer in model.fusion.hidden:
        values = layer(softplus(values))
    return model.fusion.out(softplus(values))[0]  # Eqn 6


@pytest.mark.parametrize("neighbours", [0, 3, 4, 8])
def test_the_field_is_the_papers_written_out(neighbours):
    model, given, points = field(neighbours), codes(), 0.6 * places(count=6)
    expected = torch.stack(
        [
            torch.stack([as_published(model, code, point) for point in row])
            for code, row in zip(given["identity"], points, strict=True)
        ]
    )
    conditioned = model.condition(given)
    assert torch.allclose(conditioned.sdf(points), expected, atol=1e-9)
    assert torch.allclose(conditioned.sdf_dense(points), expected, atol=1e-9)


def test_the_default_sizes_are_the_papers():
    model = ImHead(ImHeadConfig())
    assert model.decompose.weight.shape == (39 * 32, 256)
    assert [tuple(w.shape) for w in model.local.weights] == [(23, 45, 200), *[(23, 200, 200)] * 4]
    assert [layer.out_features for layer in model.fusion.hidden] == [200] * 3
    assert model.landmarks[0].in_features == 1248


def test_fresh_anchors_are_the_average_ones_whatever_the_code():
    torch.manual_seed(0)
    conditioned = ImHead(ImHeadConfig(**SIZES)).condition({"identity": torch.randn(3, 6)})
    assert torch.equal(conditioned.anchors, torch.tensor(average_anchors()).float().expand(3, -1, -1))


def test_right_and_left_of_a_pair_share_a_network_and_the_right_one_is_mirrored():
    model = field()
    for pair in range(len(ANCHOR_PAIRS)):
        assert model.network[2 * pair] == model.network[2 * pair + 1] == pair
        assert ANCHORS[2 * pair].endswith("_R")
        assert model.flip[2 * pair : 2 * pair + 2].tolist() == [-1, 1]
    assert model.network[32:].tolist() == list(range(16, 23))
    assert model.flip[32:].tolist() == [1] * 7


def test_embeddings_can_stand_in_for_the_code():
    model, points = field(), places()
    conditioned = model.condition(codes())
    same = model.condition_on_embeddings(conditioned.embeddings)
    assert torch.equal(same.anchors, conditioned.anchors)
    assert torch.equal(same.sdf(points), conditioned.sdf(points))


def test_compact_weights_are_the_stated_formula():
    distance = torch.tensor([0.1, 0.15, 0.2, 0.3], dtype=torch.float64)
    raw = [(math.exp(-d / 0.1) - math.exp(-0.3 / 0.1)) ** 2 for d in (0.1, 0.15, 0.2)]
    expected = torch.tensor(raw, dtype=torch.float64) / sum(raw)
    assert torch.allclose(compact_weights(distance, 0.1), expected, atol=1e-10)


def test_a_compact_weight_vanishes_with_its_gradient_where_an_anchor_leaves():
    last = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    distance = torch.stack([torch.tensor(0.1).double(), torch.tensor(0.2).double(), last, last.detach()])
    weights = compact_weights(distance, 0.1)
    assert weights[2] < 1e-10
    assert torch.autograd.grad(weights[2], last)[0].abs() < 1e-10


def test_compact_weights_do_not_change_when_all_distances_grow_alike():
    distance = torch.tensor([0.01, 0.02, 0.03, 0.05, 0.06], dtype=torch.float64)
    assert torch.allclose(compact_weights(distance, 0.1), compact_weights(distance + 50, 0.1), atol=1e-9)


def test_compact_weights_have_the_derivative_of_the_formula():
    distance = torch.tensor([[0.1, 0.15, 0.2, 0.3], [0.2, 0.21, 0.22, 0.23]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda d: compact_weights(d, 0.1), (distance,))


def test_equally_far_anchors_share_the_weight():
    weights = compact_weights(torch.full((5,), 0.4, dtype=torch.float64), 0.1)
    assert weights.tolist() == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("neighbours", [3, 6])
def test_part_weights_name_the_nearest_anchors_in_order(neighbours):
    conditioned, points = field(neighbours).condition(codes()), 0.6 * places()
    indices, weights = conditioned.part_weights(points)
    distance = torch.cdist(points, conditioned.anchors)
    assert torch.equal(indices, distance.argsort(-1)[..., :neighbours])
    assert (weights.diff(dim=-1) <= 0).all()
    assert torch.allclose(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_outside_the_ball_the_weights_are_those_of_its_nearest_point():
    conditioned = field().condition(codes())
    directions = torch.nn.functional.normalize(places(), dim=-1)
    for near, far in zip(conditioned.part_weights(directions), conditioned.part_weights(7 * directions), strict=True):
        assert torch.allclose(near.double(), far.double(), atol=1e-6)


def test_an_embedding_acts_where_its_anchor_is_among_the_neighbours_and_nowhere_else():
    model, points = field(), places(count=300)
    conditioned = model.condition(codes())
    nose = ANCHORS.index("nose_tip")
    embeddings = conditioned.embeddings.clone()
    embeddings[:, nose] += 0.5
    edited = type(conditioned)(model, embeddings, conditioned.anchors)
    acts = (conditioned.part_weights(points)[0] == nose).any(-1)
    changed = edited.sdf(points) != conditioned.sdf(points)
    assert acts.any()
    assert not acts.all()
    assert torch.equal(changed, acts)


def test_every_anchor_belongs_to_exactly_one_part():
    owned = [index for name in ImHead.parts for index in anchor_group(name)]
    assert sorted(owned) == list(range(len(ANCHORS)))
    assert ImHead.parts == tuple(ANCHOR_GROUPS)


@pytest.mark.parametrize("name", ImHead.parts)
def test_a_part_moves_its_own_anchors_and_no_others(name):
    model = field()
    ours, theirs = model.condition(codes()), model.condition({"identity": codes()["identity"].flip(0)})
    edited, own = ours.with_part(name, theirs), list(anchor_group(name))
    others = [index for index in range(len(ANCHORS)) if index not in own]
    for before, after, source in (
        (ours.embeddings, edited.embeddings, theirs.embeddings),
        (ours.anchors, edited.anchors, theirs.anchors),
    ):
        assert torch.equal(after[:, own], source[:, own])
        assert torch.equal(after[:, others], before[:, others])


def test_all_parts_of_another_head_make_that_head():
    model, points = field(), places()
    edited, theirs = model.condition(codes()), model.condition({"identity": codes()["identity"].flip(0)})
    for name in ImHead.parts:
        edited = edited.with_part(name, theirs)
    assert torch.equal(edited.sdf(points), theirs.sdf(points))


def test_an_unknown_part_is_refused_with_the_known_ones():
    conditioned = field().condition(codes())
    with pytest.raises(InputError, match="no part 'beard'; its parts are nose, mouth"):
        conditioned.with_part("beard", conditioned)


def test_mirroring_twice_changes_nothing():
    conditioned, points = field().condition(codes()), places()
    assert torch.equal(conditioned.mirrored().mirrored().sdf(points), conditioned.sdf(points))


def test_features_mirror_where_pairs_alone_act_and_need_not_on_the_midline():
    model, points = field(), places(count=300)
    conditioned = model.condition(codes())
    flip = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    features, reflected = conditioned.features(points), conditioned.mirrored().features(flip * points)
    paired = (conditioned.part_weights(points)[0] < 2 * len(ANCHOR_PAIRS)).all(-1)
    assert 0.2 < paired.double().mean() < 0.8
    assert torch.allclose(reflected[paired], features[paired], atol=1e-12)
    assert not torch.isclose(reflected[~paired], features[~paired], atol=1e-3).all()


def test_the_distance_mirrors_there_too_once_the_fusion_net_does_not_see_x():
    model, points = field(), 0.6 * places(count=300)
    flip = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    conditioned = model.condition(codes())
    paired = (conditioned.part_weights(points)[0] < 2 * len(ANCHOR_PAIRS)).all(-1)
    assert not torch.isclose(conditioned.mirrored().sdf(flip * points), conditioned.sdf(points), atol=1e-3)[
        paired
    ].all()
    with torch.no_grad():
        model.fusion.point.weight[:, 0] = 0
    reflected = conditioned.mirrored().sdf(flip * points)
    assert torch.allclose(reflected[paired], conditioned.sdf(points)[paired], atol=1e-12)


def test_sparse_and_dense_agree_in_float32_without_gradients():
    model, points = field().float(), places(count=200).float()
    conditioned = model.condition({"identity": codes()["identity"].float()})
    with torch.no_grad():
        assert torch.allclose(conditioned.sdf(points), conditioned.sdf_dense(points), atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"neighbours": 1}, {"neighbours": 2}, {"neighbours": 39}, {"neighbours": -1}, {"sigma": 0.0}, {"softening": 0.0}],
    ids=str,
)
def test_a_blend_that_would_jump_or_kink_is_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        BlendConfig(**wrong).validate()


@pytest.mark.parametrize(
    "wrong", [{"local_width": 0}, {"octaves": -1}, {"octave_decay": 0.0}, {"exterior_radius": 0.0}], ids=str
)
def test_sizes_that_make_no_network_are_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ImHeadConfig(**wrong).validate()
    ImHeadConfig().validate()
