"""The registry, plug-ins, and what every conditioned field inherits."""

from dataclasses import dataclass

import pytest
import torch

from implicit3dmm.errors import InputError
from implicit3dmm.fields import (
    ConditionedField,
    DeepSDFConfig,
    Field,
    ImHeadConfig,
    base,
    build_field,
    field_configs,
    field_from_mapping,
    field_to_mapping,
    register_field,
)


class ConditionedBall(ConditionedField):
    def __init__(self, radius):
        self.radius = radius

    def sdf(self, points):
        return points.norm(dim=-1) - self.radius


@pytest.fixture
def registry(monkeypatch):
    """A copy of the registry, which the test may add to."""
    monkeypatch.setattr(base, "FIELDS", dict(base.FIELDS))
    base._load_plugins.cache_clear()
    yield base.FIELDS
    base._load_plugins.cache_clear()


def test_the_gradient_of_a_ball_points_outwards():
    points = torch.rand(2, 9, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    radius = torch.tensor([[0.5], [0.7]], requires_grad=True)
    sdf, gradient = ConditionedBall(radius).sdf_and_gradient(points)
    assert torch.equal(sdf, points.norm(dim=-1) - radius)
    assert torch.allclose(gradient, torch.nn.functional.normalize(points, dim=-1))
    assert not sdf.requires_grad
    assert not gradient.requires_grad


def test_create_graph_keeps_what_losses_differentiate():
    points = torch.rand(1, 4, 3, generator=torch.Generator().manual_seed(0))
    radius = torch.tensor(0.5, requires_grad=True)
    with torch.no_grad():
        sdf, gradient = ConditionedBall(radius).sdf_and_gradient(points, create_graph=True)
    assert sdf.requires_grad
    assert gradient.requires_grad
    assert torch.autograd.grad(sdf.sum(), radius)[0].item() == -4


def test_a_field_without_parts_or_warp_says_so():
    ball, points = ConditionedBall(0.5), torch.zeros(1, 2, 3)
    assert ball.to_canonical(points) is points
    assert ball.embeddings is None
    assert ball.anchors is None
    with pytest.raises(InputError, match="ConditionedBall has no parts"):
        ball.part_weights(points)
    with pytest.raises(InputError, match="no part 'nose'"):
        ball.with_part("nose", ball)


@pytest.mark.parametrize("config", [DeepSDFConfig(8, 32, 3), ImHeadConfig(latent_dim=8, octaves=2)], ids=type)
def test_a_config_survives_its_mapping(config):
    mapping = field_to_mapping(config)
    assert next(iter(mapping)) == "name"
    assert field_from_mapping(mapping, where="file") == config


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"model\.safetensors: no architecture 'nphm'; there are .*deepsdf"):
        field_from_mapping({"name": "nphm"}, where="model.safetensors")


def test_a_wrong_size_in_a_file_is_refused_by_its_path():
    with pytest.raises(InputError, match=r"model\.safetensors: field\.width"):
        field_from_mapping({"name": "deepsdf", "width": 3}, where="model.safetensors: field")


def test_a_taken_name_or_config_class_is_refused(registry):
    @dataclass(frozen=True)
    class OtherConfig:
        size: int = 1

    class Other(Field):
        def condition(self, codes):
            return ConditionedBall(0.5)

    with pytest.raises(InputError, match=r"Other registers 'imhead' .* choose another name"):
        register_field("imhead", OtherConfig)(Other)
    with pytest.raises(InputError, match=r"with DeepSDFConfig, which .*DeepSDF has as 'deepsdf'"):
        register_field("other", DeepSDFConfig)(Other)
    with pytest.raises(InputError, match="no architecture is registered with OtherConfig"):
        build_field(OtherConfig())
    assert register_field("other", OtherConfig)(Other) is Other
    register_field("other", OtherConfig)(Other)  # loaded again
    assert registry["other"] == (OtherConfig, Other)


PLUGIN = """
from dataclasses import dataclass
from implicit3dmm.fields import DeepSDF, DeepSDFConfig, register_field

@dataclass(frozen=True)
class DeeperConfig(DeepSDFConfig):
    latent_dim: int = 4
    width: int = 16
    layers: int = 12

@register_field("deeper", DeeperConfig)
class Deeper(DeepSDF):
    pass
"""


def test_an_installed_package_brings_its_architecture_by_an_entry_point(registry, monkeypatch, tmp_path):
    (tmp_path / "deeper_field.py").write_text(PLUGIN)
    info = tmp_path / "deeper_field-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deeper-field\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[implicit3dmm.fields]\ndeeper = deeper_field\n")
    monkeypatch.syspath_prepend(tmp_path)
    field = build_field(field_from_mapping({"name": "deeper", "width": 20}, where="run"))
    assert field_configs()["deeper"].__name__ == "DeeperConfig"
    assert type(field).__name__ == "Deeper"
    assert field.config.width == 20
