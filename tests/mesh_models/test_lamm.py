"""LAMM against its equations, written out the long way."""

import numpy as np
import pytest
import torch
from torch import Tensor

from implicit3dmm.errors import InputError
from implicit3dmm.mesh_models.base import Batch
from implicit3dmm.mesh_models.control import placed_region
from implicit3dmm.mesh_models.lamm import LAMM, LAMMConfig, LAMMLearning
from implicit3dmm.mesh_models.region_loss import region_loss
from implicit3dmm.mesh_models.topology import Topology

VERTICES = 14
REGIONS = {"a": [0, 2, 4, 6], "b": [1, 3, 5], "c": [7, 8, 9, 10, 11, 12, 13]}
CONTROLS = {"a": [2, 6], "c": [8]}
SIZES = dict(width=12, latent_dim=5, encoder_layers=2, decoder_layers=3, control_widths=(6, 7))


def lamm(task="heads", targets="schedule", pairs=("identity",), **sizes) -> LAMM:
    """A network in float64 with a mean head and a unit that are no zeros and ones."""
    torch.manual_seed(0)
    topology = Topology.of_regions(np.array([[0, 1, 2]]), np.zeros(1, bool), VERTICES, REGIONS, CONTROLS)
    network = LAMM(LAMMConfig(**SIZES | sizes, learning=LAMMLearning(task, targets, pairs)), topology).double()
    network.mean.normal_()
    network.unit.fill_(0.3)
    return network


def heads(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, VERTICES, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch() -> Batch:
    return Batch(heads(), heads(seed=2), {})


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def merged(network: LAMM, tokens: Tensor) -> Tensor:
    """All vertices of some tokens in the network's unit, the long way."""
    out = torch.zeros(len(tokens), VERTICES, 3, dtype=tokens.dtype)
    for number, region in enumerate(network.topology.regions):
        part = network.heads[number](network.narrowed[number](tokens[:, number + 1]))
        out = out.index_add(1, torch.from_numpy(region), part.unflatten(1, (-1, 3)))
    return out


@pytest.mark.parametrize("sizes", [{}, {"rank": 4}, {"backbone": "transformer"}])
def test_the_loss_and_its_gradients_are_those_of_decoding_every_layer(sizes):
    network = lamm(**sizes)
    losses = network.losses(batch(), generator=generator())
    gradients = torch.autograd.grad(losses["total"], list(network.parameters()), allow_unused=True)

    wanted = (heads() - network.mean) / network.unit
    inside = network.encoder(network.tokenised(network.by_region(heads())))
    outside = network.decoder(network.decoder_input(network.down(inside[-1][:, 0])))
    total = 0
    for layer, tokens in enumerate(inside):  # Eqn 1
        total += (merged(network, tokens) - (2 - layer) / 2 * wanted).abs().mean()
    for layer, tokens in enumerate(outside):  # Eqn 2
        total += (merged(network, tokens) - layer / 3 * wanted).abs().mean()
    assert losses["total"].item() == pytest.approx(total.item(), rel=1e-12)
    last = (merged(network, outside[-1]) - wanted).abs().mean() * network.unit
    assert losses["heads"].item() == pytest.approx(last.item(), rel=1e-12)
    naive = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)
    for own, long in zip(gradients, naive, strict=True):
        assert (own is None) == (long is None)
        if own is not None:
            torch.testing.assert_close(own, long, rtol=1e-10, atol=1e-12)


def test_targets_of_the_layers_differ_in_their_factors_alone():
    def total(targets: str) -> float:
        return lamm(targets=targets).losses(batch(), generator=generator())["total"].item()

    network = lamm()
    wanted = (heads() - network.mean) / network.unit
    inside = network.encoder(network.tokenised(network.by_region(heads())))
    outside = network.decoder(network.decoder_input(network.down(inside[-1][:, 0])))
    every = sum((merged(network, tokens) - wanted).abs().mean().item() for tokens in inside + outside)
    assert total("input") == pytest.approx(every, rel=1e-12)
    assert total("last") == pytest.approx((merged(network, outside[-1]) - wanted).abs().mean().item(), rel=1e-12)


@pytest.mark.parametrize("pairs", [("identity",), ("expression",), ("identity", "expression")])
def test_control_points_are_taught_where_the_target_has_them(pairs):
    network = lamm("control", "last", pairs)
    losses = network.losses(batch(), generator=generator())
    draws, sample = generator(), batch()
    others = sample.vertices[torch.randperm(4, generator=draws)]
    source, target = {
        ("identity",): (sample.vertices, others),
        ("expression",): (sample.rest, sample.vertices),
        ("identity", "expression"): (
            torch.cat([sample.vertices[:2], sample.rest[2:]]),
            torch.cat([others[:2], sample.vertices[2:]]),
        ),
    }[pairs]
    target = torch.lerp(source, target, 0.25 + 0.75 * torch.rand(4, 1, 1, generator=draws).double())
    moved = network.decode(network.encode(source), (target - source)[:, [2, 6, 8]])
    assert losses["control"].item() == pytest.approx((moved - target).abs().mean().item(), rel=1e-6)
    still = network.decode(network.encode(source))
    assert losses["heads"].item() == pytest.approx((still - source).abs().mean().item(), rel=1e-6)


def test_a_region_of_another_head_changes_nothing_else_and_a_moved_copy_nothing_at_all():
    network = lamm("control", pairs=("region",))
    network.topology.__dict__["rims"] = tuple(region[:3] for region in network.topology.regions)
    network.window.fill_(0.5)
    source, target = network._pairs(batch(), generator())
    assert torch.equal(source, batch().vertices)
    changed = (target != source).any(-1)
    for row in changed:
        (own,) = (region for region in network.topology.regions if row[region].any())
        assert row.sum() == row[own].sum() > 0
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    turn *= torch.linalg.det(turn)
    head = heads(1)[0]
    elsewhere = head @ turn + 0.3
    placed = placed_region(network.topology, head.numpy(), elsewhere.numpy(), 0)
    np.testing.assert_allclose(placed, head[network.topology.regions[0]], atol=1e-12)


def test_a_batch_is_shared_out_among_all_kinds_of_pairs():
    network = lamm("control", pairs=("identity", "expression", "region"))
    network.topology.__dict__["rims"] = tuple(region[:3] for region in network.topology.regions)
    source, _ = network._pairs(batch(), generator())
    assert torch.equal(source, torch.cat([batch().vertices[:2], batch().rest[2:3], batch().vertices[3:]]))


def test_no_displacement_is_the_auto_encoder_to_the_last_bit():
    network = lamm("control").float()
    codes = network.encode(heads().float())
    still = network.decode(codes, torch.zeros(4, 3, 3))
    assert torch.equal(still, network.decode(codes))
    assert not torch.equal(network.decode(codes, torch.full((4, 3, 3), 0.1)), still)


def test_a_displacement_changes_the_token_of_its_region_alone():
    network = lamm("control")
    codes = network.encode(heads())
    moves = torch.zeros(4, 3, 3, dtype=torch.float64)
    moves[:, 2] = 0.2  # the control point of region c
    changed = (network.decoder_input(codes, moves) - network.decoder_input(codes)).abs().amax((0, 2))
    assert (changed > 0).tolist() == [False, False, False, True]


def test_region_loss_leaves_targets_alone_and_counts_states_by_themselves():
    tokens = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(4, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    targets = [heads(2)[:, :2].flatten(1)] * 3
    before = targets[0].clone()
    total, each = region_loss(tokens, weight, bias, targets, [0.0, 0.5, 1.0], 0.1)
    assert torch.equal(targets[0], before)
    direct = [
        0.1 * (state @ weight + bias - f * before).abs().sum() for f, state in zip((0, 0.5, 1), tokens, strict=True)
    ]
    torch.testing.assert_close(each, torch.stack(direct).detach())
    torch.testing.assert_close(total, sum(direct))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width is 0; expected at least 1"),
        ({"width": 7}, "width is 7; give an even one"),
        ({"width": 96, "backbone": "transformer"}, "width is 96; give an even one, and a multiple of 64"),
        ({"rank": -1}, "rank is -1; expected at least 0"),
        ({"dropout": 1.0}, "dropout is 1.0; give a share from 0 to below 1"),
        ({"control_widths": (0, 4)}, r"control_widths is \(0, 4\); expected at least 1 each"),
    ],
)
def test_sizes_out_of_range_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        LAMMConfig(**changes).validate()
    with pytest.raises(InputError, match="least is 2; give a share from 0 to 1"):
        LAMMLearning(least=2).validate()
