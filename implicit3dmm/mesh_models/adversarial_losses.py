"""Losses of the decoupled adversarial model as pure functions; equations are those of Abrevaya et al. 2019."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from implicit3dmm.data.registered import UNKNOWN


def critic_loss(real: Float[Tensor, " b"], fake: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """How little the critic tells real from fake (equation 2, of the critic): minus the distance that it estimates."""
    return fake.mean() - real.mean()


def gradient_penalty(
    score: Callable[[Float[Tensor, "b 3 s s"]], Float[Tensor, " b"]],
    real: Float[Tensor, "b 3 s s"],
    fake: Float[Tensor, "b 3 s s"],
    share: Float[Tensor, " b"],
    *,
    steepest: float,
) -> Float[Tensor, ""]:
    """How far the critic's slope between real and fake images is from the steepest that it may have.

    Gulrajani et al., "Improved training of Wasserstein GANs", 2017, section 4: mean (||grad|| - 1)^2. Here the norm of
    an image is its root mean square, whatever its size, and the slope is a multiple of `steepest`.

    Args:
        score: of each image, of that image alone.
        real: images of heads.
        fake: as many generated ones.
        share: how far on the way from the real to the fake image the slope is taken, 0 to 1.
        steepest: the most that the score may change while the image changes by 1, root mean square.
    """
    between = torch.lerp(real, fake, share[:, None, None, None]).detach().requires_grad_()
    (slope,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
    norm = slope.square().sum((1, 2, 3)).add(1e-12).sqrt() * slope[0].numel() ** 0.5
    return (norm / steepest - 1).square().mean()


def classification_loss(
    logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"], balance: Float[Tensor, " k"] | None = None
) -> Float[Tensor, ""]:
    """Minus the mean log probability of the right label (equations 7 and 9); heads without a label are skipped.

    Args:
        logits: of each label.
        labels: counted from 0, or `UNKNOWN`.
        balance: weight of each label; equal by default.
    """
    total = cross_entropy(logits, labels, balance, ignore_index=UNKNOWN, reduction="sum")
    return total / (labels != UNKNOWN).sum().clamp(min=1)


def label_balance(labels: Int[Tensor, " r"], count: int) -> Float[Tensor, " k"]:
    """Weights of labels by their rarity, with mean 1 over the labelled heads.

    King and Zeng, "Logistic regression in rare events data", 2001; labels that no head has get 0.

    Args:
        labels: of the training heads, counted from 0, or `UNKNOWN`.
        count: number of labels.
    """
    heads = torch.bincount(labels[labels != UNKNOWN], minlength=count).float()
    weights = torch.where(heads > 0, heads.sum() / heads.clamp(min=1), 0)
    return weights / (heads > 0).sum()


def feature_loss(features: Float[Tensor, "b f"]) -> Float[Tensor, ""]:
    """Features of neighbours 2i and 2i + 1 point the same way: mean of 1 - cosine (equations 10 and 11).

    The printed paper does not survive as to the norm; its text asks that they be "aligned".
    """
    return 1 - cosine_similarity(features[0::2], features[1::2], dim=1).mean()
