"""Each loss at values that can be worked out by hand."""

import math

import pytest
import torch

from implicit3dmm.heads.template import ANCHOR_PAIRS, ANCHORS
from implicit3dmm.training import losses


def test_surface_loss_is_the_mean_distance_of_surface_points():
    assert losses.surface_loss(torch.tensor([[0.1, -0.3], [0.0, 0.4]])).item() == pytest.approx(0.2)


def test_distance_loss_counts_an_error_half_at_the_softness():
    sdf, distance = torch.tensor([0.01, 0.06, -0.04]), torch.tensor([0.0, 0.05, -0.05])
    expected = (0.01 + 0.01 / 2 + 0.01 / 2) / 3
    assert losses.distance_loss(sdf, distance, softness=0.05).item() == pytest.approx(expected)


def test_normal_loss_is_the_mean_length_of_the_difference():
    gradient = torch.tensor([[1.0, 0, 0], [0, 3.0, 4.0], [0, 1.0, 0]])
    normals = torch.tensor([[0, 1.0, 0], [0, 0, 0], [0, 1.0, 0]])
    assert losses.normal_loss(gradient, normals).item() == pytest.approx((math.sqrt(2) + 5 + 0) / 3, abs=1e-5)


def test_eikonal_loss_is_the_mean_squared_error_of_the_length():
    gradient = torch.tensor([[3.0, 4.0, 0], [0, 1.0, 0], [0, 0, 0.5]])
    assert losses.eikonal_loss(gradient).item() == pytest.approx((16 + 0 + 0.25) / 3)


def test_landmark_loss_is_the_mean_distance_of_anchors():
    anchors = torch.zeros(2, 3, 3)
    truth = torch.tensor([[[3.0, 4.0, 0]] * 3, [[0, 0, 1.0]] * 3])
    assert losses.landmark_loss(anchors, truth).item() == pytest.approx(3)


def test_symmetry_loss_is_zero_for_a_symmetric_head_and_sees_pairs_alone():
    embeddings = torch.zeros(1, len(ANCHORS), 2)
    pairs = 2 * len(ANCHOR_PAIRS)
    embeddings[:, pairs:] = torch.randn(1, len(ANCHORS) - pairs, 2, generator=torch.Generator().manual_seed(0))
    embeddings[:, 0:pairs:2] = embeddings[:, 1:pairs:2] = torch.arange(len(ANCHOR_PAIRS))[None, :, None].float()
    assert losses.symmetry_loss(embeddings).item() == pytest.approx(0, abs=1e-5)
    embeddings[:, 4] += torch.tensor([3.0, 4.0])
    assert losses.symmetry_loss(embeddings).item() == pytest.approx(5 / len(ANCHOR_PAIRS), abs=1e-5)


def test_code_loss_is_the_mean_squared_norm_summed_over_names():
    codes = {"identity": torch.tensor([[3.0, 4.0], [0, 1.0]]), "expression": torch.tensor([[2.0], [0.0]])}
    assert losses.code_loss(codes).item() == pytest.approx(13 + 2)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: losses.normal_loss(x, torch.zeros_like(x)),
        losses.eikonal_loss,
        lambda x: losses.landmark_loss(x[None], torch.zeros(1, 2, 3)),
        lambda x: losses.symmetry_loss(x[0].expand(1, len(ANCHORS), -1)),
    ],
    ids=["normal", "eikonal", "landmark", "symmetry"],
)
def test_a_loss_of_lengths_has_a_finite_gradient_at_zero(loss):
    values = torch.zeros(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(values), values)
    assert gradient.isfinite().all()
