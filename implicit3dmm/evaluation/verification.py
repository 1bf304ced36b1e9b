"""Networks that tell whether two heads show the same person, or the same expression.

Abrevaya et al. 2019, section 5.3 and supplement, after Donahue et al. 2018: an embedding trained by triplets on images
of normals, and a threshold on distances in it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.populations import rows_by_label
from implicit3dmm.mesh_models.adversarial_networks import convolutions
from implicit3dmm.mesh_models.geometry_image import GeometryImage

AT_ONCE = 64
"""Heads whose images are in memory together."""


@dataclass(frozen=True)
class VerifierConfig:
    """Sizes of an embedding network and how it is trained."""

    channels: tuple[int, ...] = (16, 32, 64, 128)
    """Of its convolutions, each of which halves the image."""
    dimension: int = 128
    """Of the embedding."""
    steps: int = 400
    """Optimiser steps."""
    labels: int = 12
    """Different labels in a step."""
    heads: int = 4
    """Heads of each label in a step."""
    margin: float = 0.2
    """By which heads of other labels shall be farther away, in squared distance; no two are farther apart than 2."""
    learning_rate: float = 1e-3
    """Adam's."""
    pairs: int = 2000
    """Held-out pairs of one label, and as many of two, that the threshold is chosen on."""
    false_acceptance: float = 0.1
    """Largest share of the pairs of two labels that may pass for one."""
    seed: int = 0
    """Of weights and batches."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        for name in ("dimension", "steps", "pairs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if min(self.labels, self.heads) < 2:
            raise InputError(f"labels is {self.labels}, heads {self.heads}; give at least 2 of both")
        if not 0 <= self.false_acceptance <= 1:
            raise InputError(f"false_acceptance is {self.false_acceptance}; give a share from 0 to 1")


class NormalImage(nn.Module):
    """Images of a patch's normals on the square.

    The paper looks at the patch from the front; on the square no part hides another, and all the images of a model are
    made in one pass.
    """

    def __init__(self, image: GeometryImage, faces: Int[np.ndarray, "f 3"]):
        super().__init__()
        self.image = image
        self.register_buffer("faces", torch.from_numpy(faces), persistent=False)

    def forward(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b 3 s s"]:
        """Images of patches in any unit."""
        a, b, c = (vertices[:, self.faces[:, corner]] for corner in range(3))
        crosses = torch.linalg.cross(b - a, c - a)
        sums = torch.zeros_like(vertices)
        for corner in range(3):
            sums.index_add_(1, self.faces[:, corner], crosses)
        return self.image(normalize(sums, dim=-1))


class Verifier:
    """An embedding of heads in which those alike in one factor are near, and how near that is."""

    def __init__(self, look: NormalImage, network: nn.Module, threshold: float, accuracy: float, accepted: float):
        self._look = look
        self._network = network
        self.threshold = threshold
        """Largest distance of heads that pass for the same."""
        self.accuracy = accuracy
        """Share of the held-out pairs, half of them of one label, that are told right."""
        self.accepted = accepted
        """Share of the held-out pairs of two labels that pass for one (false acceptance rate)."""

    @classmethod
    def train(
        cls,
        look: NormalImage,
        vertices: Int[np.ndarray, " p"],
        heads: RegisteredHeads,
        held_out: RegisteredHeads,
        factor: str,
        config: VerifierConfig,
    ) -> "Verifier":
        """Trains on labelled heads and chooses the threshold on others; half a minute.

        Args:
            look: makes the images.
            vertices: numbers of the patch's vertices in the head.
            heads: to learn from.
            held_out: of other people.
            factor: of their labels.
            config: of the network.

        Raises:
            InputError: a setting is out of range, or one of the two has fewer than two labels with two heads each.
        """
        config.validate()
        rng = np.random.default_rng(config.seed)
        groups = [_groups(each, factor) for each in (heads, held_out)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = _Embedding(look.image.size, config)
        some = rng.choice(len(heads), min(len(heads), AT_ONCE), replace=False)
        network.see(look(torch.from_numpy(heads.vertices[some][:, vertices])))
        optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        for _ in range(config.steps):
            chosen = rng.choice(len(groups[0]), min(config.labels, len(groups[0])), replace=False)
            rows = np.concatenate([rng.choice(groups[0][number], config.heads) for number in chosen])
            embedded = network(look(torch.from_numpy(heads.vertices[rows][:, vertices])))
            optimiser.zero_grad()
            triplet_loss(embedded, torch.from_numpy(chosen).repeat_interleave(config.heads), config.margin).backward()
            optimiser.step()
        verifier = cls(look, network.eval(), 0.0, 0.0, 0.0)
        verifier._choose(vertices, held_out, groups[1], config, rng)
        return verifier

    @torch.no_grad()
    def embed(self, patches: Float[np.ndarray, "n v 3"]) -> Float[np.ndarray, "n d"]:
        """Points on the unit sphere."""
        chunks = torch.from_numpy(np.ascontiguousarray(patches, np.float32)).split(AT_ONCE)
        return torch.cat([self._network(self._look(chunk)) for chunk in chunks]).numpy()

    def same(self, patches: Float[np.ndarray, "g s v 3"]) -> Float[np.ndarray, " g"]:
        """Share of each group's heads, but for the first, that pass for the same as the first."""
        groups, size = patches.shape[:2]
        embedded = self.embed(patches.reshape(-1, *patches.shape[2:])).reshape(groups, size, -1)
        distances = np.linalg.norm(embedded[:, 1:] - embedded[:, :1], axis=-1)
        return (distances <= self.threshold).mean(axis=1)

    def _choose(
        self,
        vertices: Int[np.ndarray, " p"],
        heads: RegisteredHeads,
        groups: list[Int[np.ndarray, " n"]],
        config: VerifierConfig,
        rng: np.random.Generator,
    ) -> None:
        """Takes the threshold of the best accuracy among those with few false acceptances."""
        rows = np.concatenate(groups)
        embedded = dict(zip(rows, self.embed(heads.vertices[rows][:, vertices]), strict=True))
        own = [rng.choice(groups[number], 2, replace=False) for number in rng.integers(len(groups), size=config.pairs)]
        two = [rng.choice(len(groups), 2, replace=False) for _ in range(config.pairs)]
        other = [[rng.choice(groups[number]) for number in pair] for pair in two]
        near, far = (
            np.sort([np.linalg.norm(embedded[first] - embedded[second]) for first, second in pairs])
            for pairs in (own, other)
        )
        thresholds = np.concatenate([[0.0], near, far])
        accepted = np.searchsorted(far, thresholds, side="right") / len(far)
        accuracy = 0.5 * (np.searchsorted(near, thresholds, side="right") / len(near) + 1 - accepted)
        best = int(np.where(accepted <= config.false_acceptance, accuracy, -1).argmax())
        self.threshold, self.accuracy, self.accepted = (float(each[best]) for each in (thresholds, accuracy, accepted))


def triplet_loss(embedded: Float[Tensor, "b d"], labels: Int[Tensor, " b"], margin: float) -> Float[Tensor, ""]:
    """Mean of d(anchor, same)^2 - d(anchor, other)^2 + margin over the triplets of a batch where that is positive.

    Schroff et al., "FaceNet", CVPR 2015, over all triplets that violate the margin.
    """
    squared = (embedded[:, None] - embedded[None]).square().sum(-1)
    same = labels[:, None] == labels[None]
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    violation = squared[:, :, None] - squared[:, None, :] + margin
    counted = positive[:, :, None] & ~same[:, None, :] & (violation > 0)
    return (violation * counted).sum() / counted.sum().clamp(min=1)


class _Embedding(nn.Sequential):
    """Convolutions that halve the image, and a linear layer to the unit sphere."""

    def __init__(self, size: int, config: VerifierConfig):
        features = config.channels[-1] * (size >> len(config.channels)) ** 2
        super().__init__(convolutions((3, *config.channels)), nn.Flatten(), nn.Linear(features, config.dimension))
        self.register_buffer("usual", torch.zeros(3, size, size))
        self.register_buffer("spread", torch.ones(()))

    def see(self, images: Float[Tensor, "b 3 s s"]) -> None:
        """Learns the mean image and how much others differ from it."""
        self.usual.copy_(images.mean(dim=0))
        self.spread.copy_((images - self.usual).square().mean().sqrt())

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        return normalize(super().forward((images - self.usual) / self.spread), dim=1)


def _groups(heads: RegisteredHeads, factor: str) -> list[Int[np.ndarray, " n"]]:
    """Rows of each label that two heads have."""
    groups = rows_by_label(heads.labels.get(factor, np.array([])))
    if len(groups) < 2:
        raise InputError(f"fewer than two labels of {factor!r} have two heads each; give more labelled heads")
    return groups
