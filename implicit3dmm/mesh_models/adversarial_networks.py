"""The two networks of the decoupled adversarial model: a generator of meshes and a critic of their geometry images."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

SLOPE = 0.2
"""Of the leaky rectifiers below zero."""

START = 0.01
"""Factor of the generator's last weights at the start, so that its first meshes are near the mean."""

SAMPLES = 4096
"""Codes that the start is fitted to."""

RIDGE = 1e-2
"""Keeps the start's weights small, as a share of the hidden units' variance."""

SHARED = 2
"""Convolutions that the critic's branches have in common; all further ones each branch has for itself."""


class Generator(nn.Module):
    """Two linear layers from codes (b, d) to displacements (b, v, 3) of the vertices (section 4.2)."""

    def __init__(self, code_size: int, width: int, vertices: int, rank: int | None):
        """Draws the weights.

        Args:
            code_size: numbers of a code.
            width: of the hidden layer.
            vertices: whose displacements come out.
            rank: of the last layer's matrix, kept as a product of two; by default it is whole.
        """
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(code_size, width), nn.LeakyReLU(SLOPE))
        self.mix = nn.Identity() if rank is None else nn.Linear(width, rank, bias=False)
        self.basis = nn.Linear(rank or width, 3 * vertices)
        with torch.no_grad():
            self.basis.weight.mul_(START)
            self.basis.bias.zero_()

    def forward(self, codes: Float[Tensor, "b d"]) -> Float[Tensor, "b v 3"]:
        """Displacements of codes."""
        return self.basis(self.mix(self.hidden(codes))).unflatten(1, (-1, 3))

    @torch.no_grad()
    def start_from(self, components: Mapping[str, Float[np.ndarray, "d v 3"]], places: Mapping[str, slice]) -> None:
        """Starts as near as it can to a linear model: each number of a code moves the vertices by one component.

        Every hidden unit reads one part of the code at first, and larger parts have more units.

        Args:
            components: of each part of the code, at most as many as it has numbers.
            places: where in the code each part stands.
        """
        first, rectifier = self.hidden
        width, size = first.weight.shape
        part = torch.arange(width) * size // width
        owners = {name: (part >= place.start) & (part < place.stop) for name, place in places.items()}
        for name, own in owners.items():
            kept = first.weight[own, places[name]] * (size / max(part[own].unique().numel(), 1)) ** 0.5
            first.weight[own] = 0
            first.weight[own, places[name]] = kept
        codes = torch.randn(SAMPLES, size)
        hidden = rectifier(first(codes)).double()
        usual = hidden.mean(dim=0)
        moves = torch.zeros(size, self.basis.out_features)
        recovered = torch.zeros(size, width, dtype=torch.float64)  # codes, but for a constant, from the hidden units
        for name, each in components.items():
            own, numbers = owners[name], torch.arange(size)[places[name]][: len(each)]
            units = (hidden - usual)[:, own]
            covariance = units.T @ units
            ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
            solved = torch.linalg.solve(covariance + ridge, units.T @ codes[:, numbers].double())
            recovered[numbers[:, None], own.nonzero().T] = solved.T
            moves[numbers] = torch.from_numpy(each).flatten(1)
        self.basis.bias.copy_(-(recovered @ usual).float() @ moves)
        if isinstance(self.mix, nn.Linear):
            self.mix.weight[:size] = recovered.float()
            self.basis.weight[:, :size] = moves.T
        else:
            self.basis.weight.copy_(moves.T @ recovered.float())


class Judgement(NamedTuple):
    """What the branch of one factor makes of images."""

    features: Float[Tensor, "b f"]
    """What its last convolution puts out; the feature loss compares these."""
    logits: Float[Tensor, "b k"]
    """Of each label of the factor."""


class Critic(nn.Module):
    """Convolutions that halve the image: some in common, then a branch for real or fake and one for each factor.

    There is no batch normalisation: the gradient penalty is about the score of one image, whatever the others are.
    """

    def __init__(self, size: int, channels: Sequence[int], labels: Mapping[str, int]):
        """Builds the branches.

        Args:
            size: pixels along a side of the images.
            channels: of each convolution, more than `SHARED`.
            labels: how many labels each factor has.
        """
        super().__init__()
        own = channels[SHARED - 1 :]
        features = channels[-1] * (size >> len(channels)) ** 2
        self.common = convolutions((3, *channels[:SHARED]))
        self.realism = nn.Sequential(convolutions(own), nn.Flatten(), nn.Linear(features, 1), nn.Flatten(0))
        self.classifiers = nn.ModuleDict(
            {
                name: nn.ModuleList([nn.Sequential(convolutions(own), nn.Flatten()), nn.Linear(features, count)])
                for name, count in labels.items()
            }
        )

    def score(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, " b"]:
        """How real each image looks, on a scale whose zero means nothing."""
        return self.realism(self.common(images))

    def forward(
        self, images: Float[Tensor, "b 3 s s"], factors: Collection[str]
    ) -> tuple[Float[Tensor, " b"], dict[str, Judgement]]:
        """Scores of the images and judgements of the named factors."""
        common = self.common(images)
        judgements = {}
        for name in factors:
            convolutions, last = self.classifiers[name]
            features = convolutions(common)
            judgements[name] = Judgement(features, last(features))
        return self.realism(common), judgements


def convolutions(channels: Sequence[int]) -> nn.Sequential:
    """Layers that halve the image each."""
    layers = [(nn.Conv2d(i, o, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)) for i, o in pairwise(channels)]
    return nn.Sequential(*(layer for pair in layers for layer in pair))
