"""New regions and corrupted tokens: what is counted, what stays where it was, and equal draws."""

import numpy as np
import pytest
import torch
import trimesh

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.region_edits import corrupted_tokens, new_regions
from implicit3dmm.mesh_models.lamm import LAMM, LAMMConfig
from implicit3dmm.mesh_models.model import MeshModel
from implicit3dmm.mesh_models.spiralnet import SpiralNet, SpiralNetConfig
from implicit3dmm.mesh_models.topology import Topology

SMALL = LAMMConfig(width=12, latent_dim=5, encoder_layers=1, decoder_layers=2, control_widths=(6, 7))


@pytest.fixture(scope="module")
def ball() -> Topology:
    """A sphere of 162 vertices with three regions of unequal size, two of which have control points."""
    sphere = trimesh.creation.icosphere(subdivisions=2)
    members = np.digitize(np.asarray(sphere.vertices)[:, 1], [-0.5, 0.3])
    regions = {name: np.flatnonzero(members == number) for number, name in enumerate(("low", "middle", "high"))}
    controls = {"low": regions["low"][:2], "high": regions["high"][:1]}
    return Topology.of_regions(sphere.faces, np.zeros(len(sphere.faces), bool), 162, regions, controls)


@pytest.fixture
def network(ball) -> LAMM:
    torch.manual_seed(0)
    made = LAMM(SMALL, ball).requires_grad_(False)
    made.move_covariance.copy_(0.01 * torch.eye(9))
    return made


@pytest.fixture
def heads(ball) -> torch.Tensor:
    return torch.randn(3, ball.size, 3, generator=torch.Generator().manual_seed(1))


def unmixed(network: LAMM) -> LAMM:
    """The network without what passes from token to token in its decoder."""
    for layer in network.decoder.layers:
        for module in layer.over_tokens:
            if isinstance(module, torch.nn.Linear):
                module.weight.zero_()
                module.bias.zero_()
    return network


def test_a_token_that_no_other_reads_moves_its_region_alone(network, heads):
    found = corrupted_tokens(unmixed(network), heads)
    for name, row in found.items():
        assert row.own.mean == pytest.approx(row.regions[name])
        assert row.own.mean > 1
        assert row.others.mean == row.ratio.mean == 0
        assert row.own.count == 3


def test_corruption_is_counted_over_vertices_of_all_regions(network, heads, ball):
    found = corrupted_tokens(network, heads)["middle"]
    weights = {name: len(region) for name, region in zip(ball.names, ball.regions, strict=True) if name != "middle"}
    others = sum(found.regions[name] * weight for name, weight in weights.items()) / sum(weights.values())
    assert found.others.mean == pytest.approx(others)
    assert others > 0
    assert found == corrupted_tokens(network, heads)["middle"]


def test_a_corrupted_token_keeps_its_mean_and_size(network, heads, monkeypatch):
    seen = []
    monkeypatch.setattr(network, "decode_tokens", lambda tokens: seen.append(tokens) or heads * len(seen))
    network.decoder_tokens[1] = 3 + 0.5 * torch.randn(12)
    corrupted_tokens(network, heads)
    drawn = torch.stack([tokens[:, 2] for tokens in seen[21:41]])
    assert all(torch.equal(tokens[:, [0, 1, 3]], seen[0][:, [0, 1, 3]]) for tokens in seen[21:41])
    assert torch.equal(drawn[:, 0], drawn[:, 2])
    assert drawn.mean().item() == pytest.approx(network.decoder_tokens[1].mean().item(), abs=0.1)
    assert drawn.std().item() == pytest.approx(network.decoder_tokens[1].std().item(), rel=0.15)


def test_new_regions_are_measured_from_what_is_given_back_and_from_the_head(network, heads, ball):
    model = MeshModel(unmixed(network), {"name": "small"})
    found = new_regions(model, heads, ["high"])
    back = 200 * (network.decode(network.encode(heads)) - heads).norm(dim=-1).numpy()
    np.testing.assert_allclose(found.given_back, back.mean(0), rtol=1e-5)
    high = ball.labels == 2
    assert (found.changes["high"][high] > 0).all()
    assert found.changes["high"][~high].max() < 1e-3
    row = found.drawn["high"]
    assert row.inside.mean == pytest.approx(found.changes["high"][high].mean())
    assert row.outside.mean < 1e-3
    assert row.from_input.mean == pytest.approx(back[:, ~high].mean(), rel=1e-5)
    again = new_regions(model, heads, ["high"])
    assert again.drawn == found.drawn


def test_networks_and_names_without_regions_are_refused(network, heads, ball):
    spiral = MeshModel(SpiralNet(SpiralNetConfig(latent_dim=4, channels=(4, 4), length=5), ball), {"name": "spiral"})
    for model, name, message in (
        (spiral, "high", "SpiralNet has no regions that can be edited one by one; give lamm or sdvae"),
        (MeshModel(network, {"name": "small"}), "beard", "no region 'beard'; there are low, middle, high"),
    ):
        with pytest.raises(InputError, match=message):
            model.network.with_new_region(heads, name, rng=np.random.default_rng(0))
