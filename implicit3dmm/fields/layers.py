"""Layers that the architectures share."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

SOFTPLUS_BETA = 100.0
"""Sharpness of every Softplus: a smooth ReLU whose bend is about 0.01 wide."""


def softplus(values: Tensor) -> Tensor:
    """Softplus with `SOFTPLUS_BETA`, twice differentiable.

    Consumes `values`: where no gradient is recorded the result overwrites them.
    """
    if torch.is_grad_enabled():
        return F.softplus(values, beta=SOFTPLUS_BETA)
    return torch._C._nn.softplus(values, SOFTPLUS_BETA, 20.0, out=values)


def positional_encoding(points: Float[Tensor, "*n 3"], octaves: int) -> Float[Tensor, "*n {3+6*octaves}"]:
    """Coordinates, then sines and cosines of pi 2^l times them (Mildenhall et al. 2020, Eq. 4, coordinates kept).

    Higher octaves follow by the double-angle formulas, which costs two transcendental functions a coordinate in all.
    """
    encoded = [points]
    if octaves:
        sine, cosine = torch.sin(math.pi * points), torch.cos(math.pi * points)
    for octave in range(octaves):
        if octave:
            sine, cosine = 2 * sine * cosine, 1 - 2 * sine * sine
        encoded += [sine, cosine]
    return torch.cat(encoded, dim=-1)


class _GroupedLinear(torch.autograd.Function):
    """rows[group g] = inputs[group g] @ weight[g] + bias[bias_row]."""

    @staticmethod
    def forward(ctx, inputs, weight, bias, bias_row, counts):
        ctx.save_for_backward(inputs, weight, bias_row)
        ctx.counts, ctx.biases = counts, len(bias)
        out = bias.index_select(0, bias_row)
        for x, w, o in zip(inputs.split(counts), weight, out.split(counts), strict=True):
            o.addmm_(x, w)
        return out

    @staticmethod
    def backward(ctx, grad):
        inputs, weight, bias_row = ctx.saved_tensors
        grad = grad.contiguous()
        to_inputs = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_inputs = _GroupedMatmul.apply(grad, weight.transpose(1, 2), ctx.counts)
        if ctx.needs_input_grad[1]:
            to_weight = _GroupedOuter.apply(inputs, grad, ctx.counts)
        if ctx.needs_input_grad[2]:
            to_bias = grad.new_zeros(ctx.biases, grad.shape[1]).index_add(0, bias_row, grad)
        return to_inputs, to_weight, to_bias, None, None


class _GroupedMatmul(torch.autograd.Function):
    """rows[group g] = inputs[group g] @ weight[g]."""

    @staticmethod
    def forward(ctx, inputs, weight, counts):
        ctx.save_for_backward(inputs, weight)
        ctx.counts = counts
        out = torch.empty(len(inputs), weight.shape[2], dtype=inputs.dtype, device=inputs.device)
        for x, w, o in zip(inputs.split(counts), weight, out.split(counts), strict=True):
            torch.mm(x, w, out=o)
        return out

    @staticmethod
    def backward(ctx, grad):
        inputs, weight = ctx.saved_tensors
        grad = grad.contiguous()
        to_inputs = to_weight = None
        if ctx.needs_input_grad[0]:
            to_inputs = _GroupedMatmul.apply(grad, weight.transpose(1, 2), ctx.counts)
        if ctx.needs_input_grad[1]:
            to_weight = _GroupedOuter.apply(inputs, grad, ctx.counts)
        return to_inputs, to_weight, None


class _GroupedOuter(torch.autograd.Function):
    """weight[g] = left[group g]^T @ right[group g]."""

    @staticmethod
    def forward(ctx, left, right, counts):
        ctx.save_for_backward(left, right)
        ctx.counts = counts
        out = torch.empty(len(counts), left.shape[1], right.shape[1], dtype=left.dtype, device=left.device)
        for a, b, o in zip(left.split(counts), right.split(counts), out, strict=True):
            torch.mm(a.T, b, out=o)
        return out

    @staticmethod
    def backward(ctx, grad):
        left, right = ctx.saved_tensors
        to_left = to_right = None
        if ctx.needs_input_grad[0]:
            to_left = _GroupedMatmul.apply(right, grad.transpose(1, 2), ctx.counts)
        if ctx.needs_input_grad[1]:
            to_right = _GroupedMatmul.apply(left, grad, ctx.counts)
        return to_left, to_right, None


def grouped_linear(
    inputs: Float[Tensor, "r i"],
    weight: Float[Tensor, "g i o"],
    bias: Float[Tensor, "s o"],
    bias_row: Int[Tensor, " r"],
    counts: Sequence[int],
) -> Float[Tensor, "r o"]:
    """One linear layer of many networks, each on its own consecutive rows.

    Args:
        inputs: rows sorted by network.
        weight: one matrix for each network.
        bias: a table of biases: one for each network, or more where codes are folded into them.
        bias_row: which of them each row gets.
        counts: rows of each network, zeros allowed; they add up to r.
    """
    return _GroupedLinear.apply(inputs, weight, bias, bias_row, list(counts))


class _Permute(torch.autograd.Function):
    """rows[order]; its gradient is a gather too, where autograd's own would be a slow scatter."""

    @staticmethod
    def forward(ctx, rows, order, inverse):
        ctx.save_for_backward(order, inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx, grad):
        order, inverse = ctx.saved_tensors
        return _Permute.apply(grad, inverse, order), None, None


def permute_rows(rows: Tensor, order: Int[Tensor, " r"], inverse: Int[Tensor, " r"]) -> Tensor:
    """rows[order], where `inverse` is the inverse permutation of `order`."""
    return _Permute.apply(rows, order, inverse)


class GroupedMLP(nn.Module):
    """Many small Softplus networks of one shape, evaluated together; the last layer is linear.

    The first layer's biases are handed in, since codes are folded into them.
    """

    def __init__(self, networks: int, sizes: Sequence[int], first_scale: Tensor | None = None):
        """Uniform weights of variance 2 / fan-in, which keeps a Softplus network's activations alive.

        Args:
            networks: number of networks.
            sizes: widths from the input to the output.
            first_scale: (sizes[0],) factor of the first layer's initial weights, input by input.
        """
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            bound = math.sqrt(6 / fan_in)
            weight = torch.empty(networks, fan_in, fan_out).uniform_(-bound, bound)
            if layer == 0 and first_scale is not None:
                weight *= first_scale[:, None]
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(networks, fan_out)))

    def forward(
        self,
        inputs: Float[Tensor, "r i"],
        first_bias: Float[Tensor, "s h"],
        first_bias_row: Int[Tensor, " r"],
        network_of_row: Int[Tensor, " r"],
        counts: Sequence[int],
    ) -> Float[Tensor, "r o"]:
        """Evaluates rows sorted by network; `first_bias[first_bias_row]` replaces the first layer's own bias.

        Where no gradient is recorded each network runs through all its layers while its rows are in the cache.
        """
        if not torch.is_grad_enabled():
            groups = zip(inputs.split(counts), first_bias_row.split(counts), strict=True)
            return torch.cat([self._one(u, x, first_bias.index_select(0, row)) for u, (x, row) in enumerate(groups)])
        rows = grouped_linear(inputs, self.weights[0], first_bias, first_bias_row, counts)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            rows = grouped_linear(softplus(rows), weight, bias, network_of_row, counts)
        return rows

    def _one(
        self, network: int, inputs: Float[Tensor, "r i"], first_bias: Float[Tensor, "r h"]
    ) -> Float[Tensor, "r o"]:
        rows = first_bias.addmm_(inputs, self.weights[0][network])
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            rows = torch.addmm(bias[network], softplus(rows), weight[network])
        return rows

    def dense(
        self, inputs: Float[Tensor, "g r i"], first_bias: Float[Tensor, "g r h"], network: Int[Tensor, " g"]
    ) -> Float[Tensor, "g r o"]:
        """The obvious twin: network `network[g]` on all rows of group g."""
        rows = torch.baddbmm(first_bias, inputs, self.weights[0][network])
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            rows = torch.baddbmm(bias[network][:, None], softplus(rows), weight[network])
        return rows


class ExteriorBall:
    """Explicit distance outside a ball: beyond it a field's value is that at the nearest point plus the way there.

    Networks are trained inside; outside they would be guesses. The extension is continuous and grows with slope
    one along each ray, so there is no dead zone far from the head.
    """

    def __init__(self, radius: float):
        self.radius = radius

    def split(self, points: Float[Tensor, "*n 3+a"]) -> tuple[Float[Tensor, "*n 3+a"], Float[Tensor, "*n"]]:
        """The nearest point of the ball, and the distance to it (zero inside); ambient coordinates stay."""
        places = points[..., :3]
        length = places.square().sum(-1).add(1e-12).sqrt()
        outside = (length - self.radius).clamp_min(0)
        inside = places * (1 - outside / length).unsqueeze(-1)
        return inside if points.shape[-1] == 3 else torch.cat([inside, points[..., 3:]], dim=-1), outside


class BallOffset(nn.Module):
    """Signed distance from what a network adds to that of a ball."""

    RADIUS = 0.5

    def forward(self, points: Float[Tensor, "b n 3+a"], features: Float[Tensor, "b n 1"]) -> Float[Tensor, "b n"]:
        """Signed distance before the exterior is added, canonical units."""
        length = (points[..., :3].square().sum(-1) + self.RADIUS**2 / 100).sqrt()  # without a kink at the origin
        return length - self.RADIUS + features.squeeze(-1)
