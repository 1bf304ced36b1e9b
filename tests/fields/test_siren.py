"""SIRENs around landmarks: folding, what a hyper-network changes, and how they start."""

import pytest
import torch

from implicit3dmm.fields.siren import OMEGA, HyperSiren, ModulatedSiren, PlainSiren

SIZES = dict(width=16, layers=4, gate_width=8)
LANDMARKS, OUTPUTS = 3, 2


def stirred(net):
    """The network with all weights moved, so that none of them is zero any longer."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net.double()


@pytest.fixture
def points():
    return torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5


@pytest.fixture
def centres():
    return torch.rand(2, LANDMARKS, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5


def unfolded(net, weights, biases, points, centres):
    """The network as it is written: places relative to each landmark, one after the other, into the first layer."""
    values = (points[:, :, None] - centres[:, None]).flatten(2)
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        values = torch.sin(OMEGA * (values @ weight.transpose(-1, -2) + bias))
    local = (values @ weights[-1].transpose(-1, -2) + biases[-1]).unflatten(-1, (LANDMARKS, OUTPUTS))
    return (local * net.gate(points)[..., None]).sum(-2)


def test_folded_landmarks_are_the_network_as_it_is_written(points, centres):
    net = stirred(PlainSiren(LANDMARKS, OUTPUTS, **SIZES))
    found = net(points, net.folded(centres))
    torch.testing.assert_close(found, unfolded(net, net.weights, net.biases, points, centres))


def test_a_hyper_network_makes_every_weight(points, centres):
    net = stirred(HyperSiren(4, LANDMARKS, OUTPUTS, hyper_width=8, **SIZES))
    codes = torch.randn(2, 4, dtype=torch.float64)
    made = net.modulations(codes)
    weights, biases, start = [], [], 0
    for inputs, size in net.sizes:
        weights.append(made[:, start : start + inputs * size].reshape(2, size, inputs))
        biases.append(made[:, start + inputs * size : start + inputs * size + size][:, None])
        start += inputs * size + size
    assert start == made.shape[1]
    found = net(points, net.folded(made, centres))
    torch.testing.assert_close(found, unfolded(net, weights, biases, points, centres))


def test_modulation_adds_a_matrix_of_low_rank_and_a_bias(points, centres):
    rank = 3
    net = stirred(ModulatedSiren(4, LANDMARKS, OUTPUTS, hyper_width=8, rank=rank, **SIZES))
    made = net.modulations(torch.randn(2, 4, dtype=torch.float64))
    counts = [size for _, size in net.sizes]
    shifts, gains = made[:, : sum(counts)].split(counts, dim=1), made[:, sum(counts) :].split(rank, dim=1)
    weights = [net.weights[0]] + [
        weight + left @ torch.diag_embed(gain) @ right
        for weight, left, gain, right in zip(net.weights[1:], net.left, gains, net.right, strict=True)
    ]
    biases = [(bias + shift / OMEGA)[:, None] for bias, shift in zip(net.biases, shifts, strict=True)]
    expected = unfolded(net, weights, biases, points, centres)
    for thin in (False, True):
        torch.testing.assert_close(net(points, net.folded(made, centres, thin=thin)), expected)


def test_landmarks_that_move_with_the_points_change_nothing_but_the_gate(points, centres):
    net = stirred(PlainSiren(LANDMARKS, OUTPUTS, **SIZES))
    for layer in net.gate.layers:
        torch.nn.init.zeros_(layer.weight)
    shift = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    moved = net(points + shift, net.folded(centres + shift))
    torch.testing.assert_close(moved, net(points, net.folded(centres)))


@pytest.mark.parametrize("kind", [HyperSiren, ModulatedSiren])
def test_a_network_starts_near_zero(kind, points, centres):
    torch.manual_seed(0)
    own = {"rank": 3} if kind is ModulatedSiren else {}
    net = kind(4, LANDMARKS, OUTPUTS, hyper_width=8, **SIZES, **own).double()
    found = net(points, net.folded(net.modulations(torch.randn(2, 4, dtype=torch.float64)), centres))
    assert found.abs().max() < 0.05
