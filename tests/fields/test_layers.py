"""The shared layers against their obvious twins, values and derivatives."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from implicit3dmm.fields.layers import (
    ExteriorBall,
    GroupedMLP,
    grouped_linear,
    permute_rows,
    positional_encoding,
    softplus,
)

COUNTS = (3, 0, 1, 2)
BIAS_ROW = torch.tensor([0, 0, 4, 2, 1, 1])


def uniform(*shape: int, seed: int = 0, grad: bool = False) -> torch.Tensor:
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * drawn - 1).requires_grad_(grad)


def test_softplus_is_a_relu_with_a_bend_of_a_hundredth():
    values = torch.linspace(-1, 1, 201, dtype=torch.float64)
    bent = softplus(values)
    assert torch.allclose(bent, torch.log1p(torch.exp(100 * values)) / 100, atol=1e-9)
    assert (bent - values.relu()).abs().max() <= math.log(2) / 100 + 1e-12
    with torch.no_grad():  # consumes its argument
        assert torch.equal(softplus(values.clone()), bent)


@pytest.mark.parametrize("octaves", [0, 1, 7])
def test_positional_encoding_is_coordinates_then_sines_and_cosines_of_each_octave(octaves):
    points = uniform(4, 5, 3)
    waves = [f(math.pi * 2**octave * points) for octave in range(octaves) for f in (torch.sin, torch.cos)]
    expected = torch.cat([points, *waves], dim=-1)
    encoded = positional_encoding(points, octaves)
    assert encoded.shape == (4, 5, 3 + 6 * octaves)
    assert torch.allclose(encoded, expected, atol=1e-12)


def test_the_doubling_of_angles_costs_little_precision_in_float32():
    points = uniform(1000, 3)
    error = positional_encoding(points.float(), 7).double() - positional_encoding(points.float().double(), 7)
    assert error.abs().max() < 1e-4  # an octave doubles the error


def test_grouped_linear_is_one_product_a_group():
    inputs, weight, bias = uniform(6, 3), uniform(4, 3, 2, seed=1), uniform(5, 2, seed=2)
    products = torch.cat([x @ w for x, w in zip(inputs.split(COUNTS), weight, strict=True)])
    assert torch.allclose(grouped_linear(inputs, weight, bias, BIAS_ROW, COUNTS), products + bias[BIAS_ROW])


def test_grouped_linear_has_right_first_and_second_derivatives():
    arguments = (uniform(6, 3, grad=True), uniform(4, 3, 2, seed=1, grad=True), uniform(5, 2, seed=2, grad=True))

    def bent(inputs, weight, bias):  # two layers, so that second derivatives are not all zero
        hidden = torch.tanh(grouped_linear(inputs, weight, bias, BIAS_ROW, COUNTS))
        return grouped_linear(hidden, weight.transpose(1, 2), inputs, torch.arange(6), COUNTS)

    assert gradcheck(bent, arguments)
    assert gradgradcheck(bent, arguments)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_grouped_linear_differentiates_by_each_argument_alone(wanted):
    shapes = ((6, 3), (4, 3, 2), (5, 2))
    arguments = tuple(uniform(*shape, seed=i, grad=i == wanted) for i, shape in enumerate(shapes))
    assert gradcheck(lambda *a: grouped_linear(*a, BIAS_ROW, COUNTS) ** 2, arguments)
    assert gradgradcheck(lambda *a: grouped_linear(*a, BIAS_ROW, COUNTS) ** 2, arguments)


def test_permute_rows_gathers_and_so_does_its_gradient():
    rows = uniform(7, 2, grad=True)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    inverse = order.argsort()
    assert torch.equal(permute_rows(rows, order, inverse), rows[order])
    assert torch.equal(permute_rows(permute_rows(rows, order, inverse), inverse, order), rows)
    assert gradcheck(lambda x: permute_rows(x, order, inverse).sin(), (rows,))
    assert gradgradcheck(lambda x: permute_rows(x, order, inverse).sin(), (rows,))


def test_grouped_networks_equal_each_network_by_itself():
    torch.manual_seed(0)
    networks = GroupedMLP(4, [5, 8, 8, 3]).double()
    for bias in networks.biases:
        torch.nn.init.normal_(bias)
    counts = list(COUNTS)
    inputs, first_bias = uniform(6, 5), uniform(5, 8, seed=1)
    network_of_row = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    expected = []
    for row, bias, g in zip(inputs, first_bias[BIAS_ROW], network_of_row, strict=True):
        values = bias + row @ networks.weights[0][g]
        for weight, inner_bias in zip(networks.weights[1:], networks.biases[1:], strict=True):
            values = inner_bias[g] + softplus(values) @ weight[g]
        expected.append(values)
    arguments = (inputs, first_bias, BIAS_ROW, network_of_row, counts)
    assert torch.allclose(networks(*arguments), torch.stack(expected), atol=1e-13)
    with torch.no_grad():
        assert torch.allclose(networks(*arguments), torch.stack(expected), atol=1e-13)


def test_dense_evaluation_of_grouped_networks_is_the_sparse_one_on_all_rows():
    torch.manual_seed(0)
    networks = GroupedMLP(3, [5, 8, 2]).double()
    network = torch.tensor([0, 0, 2])  # two anchors share a network
    inputs, first_bias = uniform(3, 7, 5), uniform(3, 7, 8, seed=1)
    sparse = networks(
        inputs.flatten(0, 1), first_bias.flatten(0, 1), torch.arange(21), network.repeat_interleave(7), [14, 0, 7]
    )
    assert torch.allclose(networks.dense(inputs, first_bias, network).flatten(0, 1), sparse, atol=1e-13)


def test_initial_weights_keep_the_variance_that_softplus_halves():
    torch.manual_seed(0)
    networks = GroupedMLP(50, [40, 60, 10], torch.cat([torch.ones(20), torch.full((20,), 0.5)]))
    first, second = (weight.detach() for weight in networks.weights)
    assert first[:, :20].var() == pytest.approx(2 / 40, rel=0.05)
    assert first[:, 20:].var() == pytest.approx(0.25 * 2 / 40, rel=0.05)
    assert second.var() == pytest.approx(2 / 60, rel=0.05)
    assert not any(bias.any() for bias in networks.biases)


def test_the_exterior_is_the_nearest_point_of_the_ball_and_the_way_to_it():
    ball = ExteriorBall(0.8)
    points = 2 * uniform(500, 3)
    length = points.norm(dim=-1)
    inside, outside = ball.split(points)
    within = length <= 0.8
    assert within.any()
    assert not within.all()
    assert torch.equal(inside[within], points[within])
    assert not outside[within].any()
    assert torch.allclose(inside[~within], 0.8 * torch.nn.functional.normalize(points[~within], dim=-1), atol=1e-10)
    assert torch.allclose(outside[~within], length[~within] - 0.8, atol=1e-10)


def test_the_exterior_has_finite_derivatives_at_the_origin_and_slope_one_outside():
    ball = ExteriorBall(1.0)
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 0.0]], dtype=torch.float64, requires_grad=True)
    inside, outside = ball.split(points)
    (gradient,) = torch.autograd.grad(outside.sum() + inside.square().sum(), points, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), points)
    assert gradient[0].tolist() == [0, 0, 0]
    assert gradient[1].tolist() == pytest.approx([0, 1, 0], abs=1e-9)
    assert second.isfinite().all()
