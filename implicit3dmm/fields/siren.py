"""Sinusoidal networks around landmarks, whose weights come from a code by a hyper-network.

SIREN: Sitzmann et al. 2020. Around landmarks, with blended outputs: Zheng et al. 2022 (ImFace); Gu and Pears 2024,
section 3.3. A network reads a point relative to each of L landmarks and has L outputs, which a gating network blends.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from implicit3dmm.fields.layers import softplus

OMEGA = 30.0
"""Frequency of every sine (Sitzmann et al. 2020, section 3.2)."""


def siren_bound(inputs: int, *, first: bool) -> float:
    """Bound of the uniform weights that a SIREN layer starts with (Sitzmann et al. 2020, section 3.2)."""
    return 1 / inputs if first else (6 / inputs) ** 0.5 / OMEGA


class Layer:
    """A linear layer of `b` shapes: one weight for all or one for each, and biases of their own."""

    def __init__(self, weight: Float[Tensor, "o i"] | Float[Tensor, "b o i"], bias: Float[Tensor, "b o"]):
        self._weight = weight
        self._bias = bias[:, None]

    def __call__(self, values: Float[Tensor, "b n i"]) -> Float[Tensor, "b n o"]:
        """Weight times values plus bias."""
        if self._weight.ndim == 3:
            return torch.baddbmm(self._bias, values, self._weight.transpose(1, 2))
        return F.linear(values, self._weight) + self._bias


class ThinLayer:
    """A linear layer whose weight W + A diag(g) B is never made, for shapes of a point or a few each."""

    def __init__(
        self,
        weight: Float[Tensor, "o i"],
        bias: Float[Tensor, "b o"],
        left: Float[Tensor, "o r"],
        gain: Float[Tensor, "b r"],
        right: Float[Tensor, "r i"],
    ):
        self._weight, self._bias = weight, bias[:, None]
        self._left, self._gain, self._right = left, gain[:, None], right

    def __call__(self, values: Float[Tensor, "b n i"]) -> Float[Tensor, "b n o"]:
        """Weight times values plus bias."""
        low_rank = F.linear(F.linear(values, self._right) * self._gain, self._left)
        return F.linear(values, self._weight) + low_rank + self._bias


class Gate(nn.Module):
    """Weights of L local fields at a point: a softmax over a small network of its place."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, width), nn.Linear(width, width)])
        self.out = nn.Linear(width, count)

    def forward(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n l"]:
        """Weights that add up to one."""
        for layer in self.layers:
            points = softplus(layer(points))
        return self.out(points).softmax(dim=-1)


class LocalSiren(nn.Module):
    """A SIREN of `layers` linear layers around L landmarks, with L outputs that a gate blends.

    A subclass says where the weights come from. The first layer is linear in the L relative places together, so it is
    linear in the point once its landmarks are folded into the bias, which is done once a shape.
    """

    def __init__(self, landmarks: int, outputs: int, *, width: int, layers: int, gate_width: int):
        super().__init__()
        self.landmarks = landmarks
        self.outputs = outputs
        self.sizes = [(3 * landmarks, width), *[(width, width)] * (layers - 2), (width, landmarks * outputs)]
        self.gate = Gate(gate_width, landmarks)

    def forward(self, points: Float[Tensor, "b n 3"], layers: Sequence[Layer | ThinLayer]) -> Float[Tensor, "b n o"]:
        """Blended outputs at points of `b` shapes."""
        values = points
        for layer in layers[:-1]:
            values = torch.sin(OMEGA * layer(values))
        local = layers[-1](values).unflatten(-1, (self.landmarks, self.outputs))
        return (local * self.gate(points)[..., None]).sum(-2)


class PlainSiren(LocalSiren):
    """A SIREN that no code changes, as the template's distance is."""

    def __init__(self, landmarks: int, outputs: int, *, width: int, layers: int, gate_width: int):
        super().__init__(landmarks, outputs, width=width, layers=layers, gate_width=gate_width)
        self.weights, self.biases = _siren_parameters(self.sizes)

    def folded(self, centres: Float[Tensor, "b l 3"]) -> Sequence[Layer]:
        """The layers around each shape's landmarks."""
        biases = [bias.expand(len(centres), -1) for bias in self.biases]
        weight, biases[0] = _around(self.weights[0], biases[0], centres)
        return [Layer(each, bias) for each, bias in zip([weight, *self.weights[1:]], biases, strict=True)]


class HyperSiren(LocalSiren):
    """Every weight is made by the hyper-network, a ReLU network with one hidden layer (Gu and Pears, section 3.3)."""

    def __init__(
        self, code_dim: int, landmarks: int, outputs: int, *, width: int, layers: int, gate_width: int, hyper_width: int
    ):
        super().__init__(landmarks, outputs, width=width, layers=layers, gate_width=gate_width)
        self._counts = [count for inputs, size in self.sizes for count in (inputs * size, size)]
        self.hyper = _hyper_network(code_dim, hyper_width, sum(self._counts))
        weights, biases = _siren_parameters(self.sizes)
        start = [part.detach().flatten() for pair in zip(weights, biases, strict=True) for part in pair]
        self.hyper[-1].bias.data.copy_(torch.cat(start))

    def modulations(self, code: Float[Tensor, "b d"]) -> Float[Tensor, "b m"]:
        """All weights and biases, layer by layer."""
        return self.hyper(code)

    def folded(self, modulations: Float[Tensor, "b m"], centres: Float[Tensor, "b l 3"]) -> Sequence[Layer]:
        """The layers of each shape."""
        parts = modulations.split(self._counts, dim=1)
        weights = [
            part.unflatten(1, (size, inputs)) for part, (inputs, size) in zip(parts[::2], self.sizes, strict=True)
        ]
        biases = list(parts[1::2])
        weights[0], biases[0] = _around(weights[0], biases[0], centres)
        return [Layer(weight, bias) for weight, bias in zip(weights, biases, strict=True)]


class ModulatedSiren(LocalSiren):
    """A shared SIREN to whose layers the hyper-network adds W = A diag(g) B, of low rank, and a bias.

    Some hundred times fewer weights than `HyperSiren` has, and derivatives by the code that cost little more than the
    value: what a Gauss-Newton fit needs.
    """

    def __init__(
        self,
        code_dim: int,
        landmarks: int,
        outputs: int,
        *,
        width: int,
        layers: int,
        gate_width: int,
        hyper_width: int,
        rank: int,
        vanishing: bool = False,
    ):
        """Makes the shared layers and the hyper-network.

        Args:
            code_dim: size of the code.
            landmarks: how many the network lies around.
            outputs: of each local field.
            width: of the hidden layers.
            layers: linear layers.
            gate_width: width of the gate.
            hyper_width: width of the hyper-network's hidden layer.
            rank: of the change of each layer.
            vanishing: whether a code of zeros has no output, whatever the weights are.
        """
        super().__init__(landmarks, outputs, width=width, layers=layers, gate_width=gate_width)
        self.vanishing = vanishing
        self.weights, self.biases = _siren_parameters(self.sizes)
        if vanishing:  # they start at zero and stay there
            self.weights[-1].requires_grad_(False)
            self.biases[-1].requires_grad_(False)
        inner = self.sizes[1:]
        self.right, self.left = nn.ParameterList(), nn.ParameterList()
        for inputs, size in inner:
            self.right.append(nn.Parameter(torch.randn(rank, inputs) / inputs**0.5))
            self.left.append(nn.Parameter(torch.randn(size, rank) / rank**0.5 / OMEGA))
        self._counts = [size for _, size in self.sizes] + [rank] * len(inner)
        self.hyper = _hyper_network(code_dim, hyper_width, sum(self._counts))

    def modulations(self, code: Float[Tensor, "b d"]) -> Float[Tensor, "b m"]:
        """Biases layer by layer, in units of 1 / OMEGA, then gains."""
        return self.hyper(code) - self.hyper(torch.zeros_like(code[:1])) if self.vanishing else self.hyper(code)

    def folded(
        self, modulations: Float[Tensor, "b m"], centres: Float[Tensor, "b l 3"], *, thin: bool = False
    ) -> Sequence[Layer | ThinLayer]:
        """The layers of each shape.

        Args:
            modulations: of the shapes.
            centres: their landmarks.
            thin: leaves the low rank as it is, which costs less for shapes of fewer points than the rank.
        """
        parts = modulations.split(self._counts, dim=1)
        shifts, gains = parts[: len(self.sizes)], parts[len(self.sizes) :]
        biases = [bias + shift / OMEGA for bias, shift in zip(self.biases, shifts, strict=True)]
        weight, biases[0] = _around(self.weights[0], biases[0], centres)
        layers = [Layer(weight, biases[0])]
        for low_rank in zip(self.weights[1:], biases[1:], self.left, gains, self.right, strict=True):
            weight, bias, left, gain, right = low_rank
            layers.append(ThinLayer(*low_rank) if thin else Layer(weight + (left * gain[:, None]) @ right, bias))
        return layers


def _around(
    weight: Float[Tensor, "*b w 3*l"], bias: Float[Tensor, "b w"], centres: Float[Tensor, "b l 3"]
) -> tuple[Float[Tensor, "*b w 3"], Float[Tensor, "b w"]]:
    """The first layer as a function of the point itself: the weights' sum, and the landmarks in the bias."""
    folded = (
        (weight @ centres.flatten(1)[..., None])[..., 0] if weight.ndim == 3 else F.linear(centres.flatten(1), weight)
    )
    return weight.unflatten(-1, (-1, 3)).sum(-2), bias - folded


def _siren_parameters(sizes: Sequence[tuple[int, int]]) -> tuple[nn.ParameterList, nn.ParameterList]:
    """Weights and biases of a SIREN whose last layer starts at zero."""
    weights, biases = nn.ParameterList(), nn.ParameterList()
    for number, (inputs, size) in enumerate(sizes):
        bound = siren_bound(inputs, first=number == 0) if number < len(sizes) - 1 else 0.0
        weights.append(nn.Parameter(torch.empty(size, inputs).uniform_(-bound, bound)))
        biases.append(nn.Parameter(torch.empty(size).uniform_(-bound, bound)))
    return weights, biases


def _hyper_network(code_dim: int, width: int, outputs: int) -> nn.Sequential:
    """One hidden layer; what it says starts small."""
    last = nn.Linear(width, outputs)
    nn.init.normal_(last.weight, 0, 0.01 * (2 / width) ** 0.5)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(code_dim, width), nn.ReLU(), last)
