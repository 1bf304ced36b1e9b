"""The two warps: what neutral is, what they start from, what edits keep, and that one undoes the other."""

import pytest
import torch

from implicit3dmm.errors import InputError
from implicit3dmm.fields import (
    DeepSDFConfig,
    ExpNet,
    ExpNetConfig,
    ExpressionWarp,
    ExpressionWarpConfig,
    ForwardWarp,
    ForwardWarpConfig,
    ImHead,
    ImHeadConfig,
    build_field,
)
from implicit3dmm.heads.template import anchor_group

UNITS = ("jawOpen", "browInnerUp")
IDENTITY = ImHeadConfig(
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
SIZES = dict(units=UNITS, lifted_dim=4, traits_dim=5, width=16, layers=3)


def with_ambient(ambient: int) -> ImHeadConfig:
    return ImHeadConfig(**{**vars(IDENTITY), "ambient": ambient})


def moving(kind=ExpressionWarp, config=ExpressionWarpConfig, ambient: int = 2, **changes):
    """A warp in float64 whose weights are large enough to move points by a few hundredths."""
    torch.manual_seed(0)
    field = kind(config(identity=with_ambient(ambient), **SIZES | changes)).double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        field.warp.out.weight *= 3
    return field


def codes(batch: int = 2, expression: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    drawn = {"identity": torch.randn(batch, 6, generator=generator, dtype=torch.float64)}
    return drawn | {"expression": expression * torch.rand(batch, 2, generator=generator, dtype=torch.float64)}


def points(count: int = 40) -> torch.Tensor:
    return 0.5 * torch.randn(2, count, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "config", "ambient"), [(ExpressionWarp, ExpressionWarpConfig, 2), (ForwardWarp, ForwardWarpConfig, 0)]
)
def test_a_neutral_head_is_the_neutral_field_whatever_the_weights_are(kind, config, ambient):
    field = moving(kind, config, ambient)
    conditioned = field.condition(codes(expression=0.0))
    assert torch.allclose(conditioned.to_canonical(points()), points(), atol=1e-12)
    flat = torch.cat([points(), torch.zeros(2, 40, ambient, dtype=torch.float64)], dim=-1)
    assert torch.allclose(conditioned.sdf(points()), field.identity.condition(codes()).sdf(flat), atol=1e-9)
    posed = field.condition(codes())
    assert (posed.to_canonical(points()) - points()).norm(dim=-1).mean() > 0.01


def test_a_warp_starts_from_the_weights_of_a_neutral_field_without_ambient_coordinates():
    torch.manual_seed(3)
    neutral = ImHead(IDENTITY).double()
    field = moving()
    field.start_from(neutral.state_dict())
    same = field.condition(codes(expression=0.0)).sdf(points())
    assert torch.allclose(same, neutral.condition(codes()).sdf(points()), atol=1e-9)
    again = moving()
    again.start_from(field.state_dict())
    assert torch.equal(again.condition(codes()).sdf(points()), field.condition(codes()).sdf(points()))


def sirens() -> ExpNet:
    """An expression SIREN whose weights move points, in float64."""
    torch.manual_seed(0)
    sizes = dict(width=16, layers=3, gate_width=6, hyper_width=8, rank=3, landmark_width=6)
    config = ExpNetConfig(identity=with_ambient(2), units=UNITS, lifted_dim=4, traits_dim=5, **sizes)
    field = ExpNet(config).double()
    with torch.no_grad():
        for parameter in field.warp.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    return field


def test_a_siren_leaves_neutral_where_it_is_whatever_the_weights_are_and_moves_an_expression():
    field = sirens()
    assert torch.allclose(field.condition(codes(expression=0.0)).to_canonical(points()), points(), atol=1e-12)
    assert (field.condition(codes()).to_canonical(points()) - points()).norm(dim=-1).mean() > 0.01


def test_a_siren_is_the_same_for_points_of_one_shape_and_for_shapes_of_one_point():
    field = sirens()
    one = {name: table[:1] for name, table in codes().items()}
    many = torch.randn(70, 1, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    each = field.condition({name: table.expand(70, -1) for name, table in one.items()}).to_canonical(many)
    assert torch.allclose(field.condition(one).to_canonical(many.transpose(0, 1))[0], each[:, 0], atol=1e-10)


def test_weights_of_another_field_are_refused():
    with pytest.raises(InputError, match="the weights to start from are not those of this ImHead"):
        moving().start_from(build_field(DeepSDFConfig(latent_dim=6, width=16, layers=2)).state_dict())


def test_ambient_coordinates_change_the_distance_and_the_dense_twin_agrees():
    field = ImHead(with_ambient(2)).double()
    flat = torch.cat([points(), torch.zeros(2, 40, 2, dtype=torch.float64)], dim=-1)
    raised = flat + torch.tensor([0, 0, 0, 0.1, -0.1], dtype=torch.float64)
    conditioned = field.condition(codes())
    assert not torch.allclose(conditioned.sdf(raised), conditioned.sdf(flat))
    assert torch.allclose(conditioned.sdf(raised), conditioned.sdf_dense(raised), atol=1e-12)


def test_an_edit_keeps_the_expression_and_a_new_expression_keeps_the_subject():
    field = moving()
    conditioned = field.condition(codes())
    donor = field.condition({name: table.flip(0) for name, table in codes().items()})
    edited = conditioned.with_part("nose", donor)
    assert torch.equal(edited.expression, conditioned.expression)
    assert torch.equal(edited.embeddings, conditioned.inner.with_part("nose", donor.inner).embeddings)
    neutral = conditioned.with_expression(torch.zeros(2, 2, dtype=torch.float64))
    assert neutral.inner is conditioned.inner
    assert torch.equal(neutral.to_canonical(points()), points())
    half = conditioned.towards(neutral, 0.5)
    assert torch.allclose(half.expression, conditioned.expression / 2)


def test_a_head_of_embeddings_is_the_head_of_the_code():
    field = moving()
    whole = field.condition(codes())
    again = field.condition_on_embeddings(whole.embeddings, whole.anchors, whole.expression)
    assert torch.equal(again.sdf(points()), whole.sdf(points()))
    neutral = field.condition_on_embeddings(whole.embeddings, whole.anchors)
    assert torch.equal(neutral.to_canonical(points()), points())


def test_a_mirrored_part_keeps_the_expression_and_a_part_without_sides_is_refused():
    conditioned = moving().condition(codes())
    mirrored = conditioned.with_mirrored("ears_L")
    assert torch.equal(mirrored.expression, conditioned.expression)
    left, right = list(anchor_group("ears_L")), list(anchor_group("ears_R"))
    assert torch.equal(mirrored.embeddings[:, right], conditioned.embeddings[:, left])
    assert torch.equal(mirrored.anchors[:, right], conditioned.anchors[:, left] * torch.tensor([-1.0, 1, 1]).double())
    with pytest.raises(InputError, match="'ears' names none; give it as ears_L or ears_R"):
        conditioned.with_mirrored("ears")


def test_the_forward_warp_finds_the_places_that_it_moved():
    field = moving(ForwardWarp, ForwardWarpConfig, 0, tolerance=1e-10, iterations=40)
    conditioned = field.condition(codes())
    neutral = points() * 0.5
    posed = neutral + conditioned._warp(neutral)
    found, sure = conditioned.root(posed)
    assert sure.all()
    assert torch.allclose(found, neutral, atol=1e-8)
    assert torch.allclose(conditioned.warp_error(posed, neutral), torch.full((2, 40), 1e-6).double(), atol=1e-9)


def test_points_without_a_root_tell_the_fit_nothing():
    field = moving(ForwardWarp, ForwardWarpConfig, 0, tolerance=1e-14, iterations=1)
    one = {name: table[:1] for name, table in codes().items()}
    with torch.no_grad():
        lost = ~field.condition(one).root(points()[:1])[1][0]
    jacobian = field.jacobian(one, points()[0])
    assert lost.any()
    assert not jacobian.by_codes["identity"][lost].any()
    assert not jacobian.by_codes["expression"][lost].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"free_dim": 3}, "free_dim is 3 with 2 units; give either of them"),
        ({"units": ()}, "free_dim is 0 with 0 units"),
        ({"units": ("jawOpen", "jawOpen")}, "units names a unit twice"),
        ({"layers": 1}, "layers is 1; expected at least 2"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_sizes_that_make_no_warp_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        ExpressionWarpConfig(identity=IDENTITY, **SIZES | changes).validate()


def test_a_forward_warp_has_no_ambient_coordinates():
    with pytest.raises(InputError, match="a forward warp has none; give 0"):
        ForwardWarpConfig(identity=with_ambient(2), **SIZES).validate()
