"""DeepSDF against the network of the paper written out."""

import pytest
import torch

from implicit3dmm.errors import InputError
from implicit3dmm.fields import DeepSDF, DeepSDFConfig
from implicit3dmm.fields.layers import softplus


def field(latent_dim: int = 6, width: int = 24, layers: int = 5) -> DeepSDF:
    torch.manual_seed(0)
    return DeepSDF(DeepSDFConfig(latent_dim, width, layers))


def uniform(*shape: int) -> torch.Tensor:
    return 1.2 * torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.6


def as_published(model: DeepSDF, code: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """One matrix a layer; code and point are concatenated to the first layer's input and to the middle one's."""
    inputs = torch.cat([code.expand(len(points), -1), points], dim=-1)
    first = torch.cat([model.first_code.weight, model.first.weight], dim=1)
    values = softplus(inputs @ first.T + model.first_code.bias)
    for number, layer in enumerate(model.hidden, start=1):
        weight = layer.weight
        if number == model.middle:
            values = torch.cat([values, inputs], dim=-1)
            weight = torch.cat([weight, model.middle_code.weight, model.middle_point.weight], dim=1)
        assert weight.shape[1] == values.shape[1]
        values = softplus(values @ weight.T + layer.bias)
    return (values @ model.out.weight.T + model.out.bias)[:, 0]


@pytest.mark.parametrize("layers", [2, 5, 8])
def test_the_folded_code_gives_the_published_network(layers):
    model, codes, points = field(layers=layers), uniform(3, 6), uniform(3, 20, 3)
    for bias in (model.first_code.bias, *(layer.bias for layer in model.hidden)):
        torch.nn.init.normal_(bias, 0, 0.1)
    expected = torch.stack([as_published(model, code, p) for code, p in zip(codes, points, strict=True)])
    assert torch.allclose(model.condition({"identity": codes}).sdf(points), expected, atol=1e-5)


def test_the_default_sizes_are_the_papers():
    model = DeepSDF(DeepSDFConfig())
    widths = [model.first.out_features, *(layer.out_features for layer in model.hidden)]
    assert widths == [512, 512, 512, 253, 512, 512, 512, 512]
    assert model.hidden[3].in_features + model.middle_code.in_features + model.middle_point.in_features == 512
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(1.84e6, rel=0.01)


@pytest.mark.parametrize("config", [DeepSDFConfig(16, 64, 4), DeepSDFConfig()], ids=["tiny", "paper"])
def test_a_fresh_field_is_about_the_distance_to_a_ball(config):
    torch.manual_seed(0)
    model = DeepSDF(config)
    directions = torch.nn.functional.normalize(torch.randn(100, 1, 3), dim=-1)
    rays = (torch.linspace(0, 0.9, 10)[:, None] * directions).flatten(0, 1)
    with torch.no_grad():
        sdf = model.condition({"identity": torch.zeros(1, config.latent_dim)}).sdf(rays[None]).unflatten(1, (100, 10))
    assert sdf[0, 0, 0] < 0
    assert (sdf[0, :, -1] > 0.2).all()
    assert (sdf[0].mean(0).diff() > 0).all()


@pytest.mark.parametrize("wrong", [{"latent_dim": 0}, {"layers": 1}, {"width": 259}, {"exterior_radius": 0.0}], ids=str)
def test_sizes_that_make_no_network_are_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        DeepSDFConfig(**wrong).validate()
    DeepSDFConfig(width=260).validate()
