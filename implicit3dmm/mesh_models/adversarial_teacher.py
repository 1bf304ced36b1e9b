"""What teaches the generator of the decoupled adversarial model, and is not needed any more once it is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.laplacian import cotangent_laplacian
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.mesh_models.adversarial_losses import (
    classification_loss,
    critic_loss,
    feature_loss,
    gradient_penalty,
    label_balance,
)
from implicit3dmm.mesh_models.adversarial_networks import Critic
from implicit3dmm.mesh_models.geometry_image import GeometryImage

STEEPEST = 10.0
"""How much the critic's score may change for a deviation by 1 (root mean square) over the whole image, in the unit in
which whole heads deviate by 1; with it the adversarial loss is of the order of the others, whatever the size of the
image."""

LEAST_ROUGHNESS = 1e-3
"""Vertices that bend less than this share of the mean count as bending so much."""


@dataclass(frozen=True)
class TeachingConfig:
    """Sizes of the critic and weights of the losses."""

    image_size: int = 64
    """Pixels along a side of the geometry images."""
    channels: tuple[int, ...] = (64, 128, 256, 512)
    """Of the critic's convolutions, each of which halves the image; its branches share the first two."""
    critic_steps: int = 5
    """Steps of the critic for one of the generator."""
    critic_classification: float = 1.0
    """Weight of classification to the critic, on training heads (lambda_C^D); 0 leaves labels out altogether."""
    classification: float = 1.0
    """Weight of classification to the generator, on heads of labelled codes (lambda_C)."""
    features: float = 1.0
    """Weight of the feature loss, on pairs of heads that share a code (lambda_F)."""
    smoothness: float = 0.3
    """Weight of the Laplacian's energy (lambda_R), which is 1 for training heads."""
    penalty: float = 10.0
    """Weight of the gradient penalty to the critic."""
    instance_noise: float = 0.1
    """Standard deviation of the noise on all images at the first step, in the unit in which heads deviate by 1."""
    instance_noise_steps: int = 5000
    """Steps of the generator over which it falls to 0 in a line."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if len(self.channels) < 3 or min(self.channels) < 1:
            raise InputError(f"channels is {self.channels}; give three or more of at least 1")
        if self.image_size % 2 ** len(self.channels):
            raise InputError(
                f"image_size is {self.image_size}; give a multiple of {2 ** len(self.channels)}, as"
                f" {len(self.channels)} convolutions halve it"
            )
        for name in ("critic_steps", "instance_noise_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("critic_classification", "classification", "features", "smoothness", "penalty", "instance_noise"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 0")


@dataclass(frozen=True)
class Turn:
    """What the codes of a generator's batch are (section 4.3)."""

    labelled: str | None
    """The factor whose codes are those of drawn labels, which the heads are to be recognised by."""
    shared: str | None
    """The factor whose codes are new and the same for every two heads, whose features are to be alike."""


def turns(factors: Sequence[str]) -> list[Turn]:
    """All that batches alternate between: each pair of labelled factors, either way round."""
    if len(factors) == 1:
        return [Turn(factors[0], None), Turn(None, factors[0])]
    return [Turn(*pair) for pair in permutations(factors, 2)] or [Turn(None, None)]


class Smoothness(nn.Module):
    """How rough displacements are beside those of training heads (equation 12).

    Every vertex's row of the cotangent Laplacian is divided by its root mean square over training heads. Slivers, of
    which a face has some at the corners of mouth and eyes, would be nearly all of the energy otherwise.
    """

    def __init__(self, patch: Mesh, displacements: Float[np.ndarray, "r v 3"]):
        super().__init__()
        laplacian, _ = cotangent_laplacian(patch)
        squares = np.zeros(len(patch.vertices))
        for each in displacements:
            squares += np.square(laplacian @ each).sum(axis=1)
        usual = np.sqrt(squares / len(displacements))
        rows = laplacian.multiply(1 / np.maximum(usual, LEAST_ROUGHNESS * usual.mean())[:, None]).tocoo()
        indices = torch.from_numpy(np.stack([rows.row, rows.col]).astype(np.int64))
        matrix = torch.sparse_coo_tensor(
            indices, torch.from_numpy(rows.data).float(), rows.shape, check_invariants=True
        )
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, displacements: Float[Tensor, "b v 3"]) -> Float[Tensor, ""]:
        """Mean energy over vertices and heads; 1 for training heads."""
        columns = displacements.permute(1, 0, 2).flatten(1)  # v, b * 3
        return (self.matrix @ columns).square().sum() / displacements[..., 0].numel()


class Teacher(nn.Module):
    """Critic, fixed codes of the labels, and the losses of both networks."""

    def __init__(
        self,
        config: TeachingConfig,
        sizes: Mapping[str, int],
        labels: Mapping[str, Int[np.ndarray, " r"]],
        image: GeometryImage,
        patch: Mesh,
        displacements: Float[np.ndarray, "r v 3"],
        label_codes: Mapping[str, Float[np.ndarray, "k d"]],
    ):
        """Draws the critic's weights and the fixed codes.

        Args:
            config: sizes and weights.
            sizes: of the codes by name: those of the factors, and noise.
            labels: of all training heads, by factor; the others get neither classification nor feature loss.
            image: what the critic looks at.
            patch: what it shows of the mean head.
            displacements: of some training heads, in the generator's unit.
            label_codes: what is known of the fixed codes, by factor; the rest of their numbers is drawn.
        """
        super().__init__()
        self.config = config
        self.image = image
        seen, error = self.image.seen(), self.image.read_back_error(torch.from_numpy(patch.vertices)[None])
        self.remark = (
            f"images of {config.image_size} pixels a side show {100 * seen.float().mean():.0f} % of the {len(seen)}"
            f" vertices, and say where they lie to {UNIT_MM * error.mean():.2f} mm on average"
        )
        """What the images can show."""
        self.smoothness = Smoothness(patch, displacements)
        counts = {name: int(values.max()) + 1 for name, values in labels.items()}
        self.critic = Critic(config.image_size, config.channels, counts)
        self._sizes = dict(sizes)
        self._turns = turns(list(labels))
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))
        for name, count in counts.items():
            codes = torch.randn(count, sizes[name])
            if name in label_codes:
                codes[:, : label_codes[name].shape[1]] = torch.from_numpy(label_codes[name])
            self.register_buffer(f"codes_{name}", codes)
            self.register_buffer(f"balance_{name}", label_balance(torch.from_numpy(labels[name]), count))

    def instance_noise(self) -> float:
        """Standard deviation of the noise that images get in this turn, in the unit of displacements."""
        return self.config.instance_noise * max(1 - int(self.turn) / self.config.instance_noise_steps, 0)

    def next_turn(self) -> Turn:
        """The turn that is due."""
        turn = self._turns[int(self.turn) % len(self._turns)]
        self.turn += 1
        return turn

    def draw_codes(
        self, turn: Turn, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "b d"], Int[Tensor, " b"] | None]:
        """Codes of a batch, all of them in a row, and the labels of the labelled factor's.

        Args:
            turn: what they are.
            count: of heads, even.
            generator: of the draws.
        """
        labels, parts = None, []
        for name, size in self._sizes.items():
            if name == turn.labelled:
                fixed = getattr(self, f"codes_{name}")
                known = getattr(self, f"balance_{name}").nonzero()[:, 0]
                labels = known[torch.randint(len(known), (count,), generator=generator).to(known.device)]
                parts.append(fixed[labels])
            elif name == turn.shared:
                parts.append(self._normal((count // 2, size), generator).repeat_interleave(2, dim=0))
            else:
                parts.append(self._normal((count, size), generator))
        return torch.cat(parts, dim=1), labels

    def critic_losses(
        self,
        real: Float[Tensor, "b v 3"],
        fake: Float[Tensor, "b v 3"],
        labels: Mapping[str, Int[Tensor, " b"]],
        *,
        noise: float,
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses of the critic (equation 6), "critic" their weighted sum.

        Args:
            real: displacements of training heads.
            fake: of as many generated ones.
            labels: of the training heads.
            noise: standard deviation of the instance noise, in the unit of displacements.
            generator: of the draws.
        """
        real, fake = (self._noisy(self.image(each), noise, generator) for each in (real, fake))
        scores, judgements = self.critic(real, self.critic.classifiers.keys())
        share = torch.rand(len(real), generator=generator).to(real.device)
        gap = critic_loss(scores, self.critic.score(fake))
        penalty = gradient_penalty(self.critic.score, real, fake, share, steepest=STEEPEST)
        losses = {"gap": -gap, "penalty": penalty}
        total = gap + self.config.penalty * penalty
        for name, judgement in judgements.items():
            loss = classification_loss(judgement.logits, labels[name], getattr(self, f"balance_{name}"))
            losses[f"real_{name}"] = loss
            total = total + self.config.critic_classification * loss
        return losses | {"critic": total}

    def generator_losses(
        self,
        fake: Float[Tensor, "b v 3"],
        turn: Turn,
        labels: Int[Tensor, " b"] | None,
        *,
        noise: float,
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses of the generator (equation 8), "total" their weighted sum.

        Args:
            fake: displacements of heads of codes of this turn.
            turn: as the codes were drawn.
            labels: of the labelled factor.
            noise: standard deviation of the instance noise, in the unit of displacements.
            generator: of the draws.
        """
        weights = self.config
        wanted = {turn.labelled: weights.classification, turn.shared: weights.features}
        images = self._noisy(self.image(fake), noise, generator)
        scores, judged = self.critic(images, [name for name, weight in wanted.items() if name and weight])
        losses = {"realism": -scores.mean(), "smoothness": self.smoothness(fake)}
        losses["classification"] = losses["features"] = scores.new_zeros(())
        if turn.labelled in judged:
            losses["classification"] = classification_loss(judged[turn.labelled].logits, labels)
        if turn.shared in judged:
            losses["features"] = feature_loss(judged[turn.shared].features)
        total = losses["realism"] + sum(
            getattr(weights, name) * losses[name] for name in ("smoothness", "classification", "features")
        )
        return losses | {"total": total}

    def _noisy(
        self, images: Float[Tensor, "b 3 s s"], noise: float, generator: torch.Generator
    ) -> Float[Tensor, "b 3 s s"]:
        return images + noise * self._normal(images.shape, generator)

    def _normal(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator).to(self.turn.device)
