"""The objective on an exact field, where every loss is known, and on batches that are cut up."""

import pytest
import torch

from implicit3dmm.fields import ConditionedField, DeepSDFConfig, Field, ImHeadConfig, build_field
from implicit3dmm.heads.template import ANCHORS
from implicit3dmm.latents import LatentBank, LatentSpec
from implicit3dmm.training import LossWeights, TrainingConfig
from implicit3dmm.training.gradients import GradientWorkers
from implicit3dmm.training.objective import Objective

RADII = torch.tensor([0.4, 0.5, 0.6, 0.7])

SMALLEST = dict(
    latent_dim=4,
    local_dim=2,
    octaves=1,
    local_width=8,
    local_layers=1,
    feature_dim=4,
    fusion_width=8,
    fusion_layers=1,
    landmark_width=4,
)


class Balls(Field):
    """The exact distance to balls whose radius is the code."""

    latent_specs = (LatentSpec("radius", 1, 1.0, "record"),)

    def condition(self, codes):
        return ConditionedBall(codes["radius"])


class ConditionedBall(ConditionedField):
    def __init__(self, radius):
        self.radius = radius

    def sdf(self, points):
        return points.norm(dim=-1) - self.radius


def batch(surface: int = 8, distance: int = 12, *, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Exact samples of the four balls."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(4, surface, 3, generator=generator, dtype=dtype), dim=-1)
    points = torch.rand(4, distance, 3, generator=generator, dtype=dtype) - 0.5
    radii = RADII.to(dtype)[:, None]
    distances = points.norm(dim=-1) - radii
    anchors = torch.rand(4, len(ANCHORS), 3, generator=generator, dtype=dtype)
    surface = radii[..., None] * normals
    places, parts = torch.zeros(4, 2, 2, 0, 3, dtype=dtype), torch.zeros(4, 0, dtype=torch.long)
    return torch.arange(4), surface, normals, surface, places, parts, points, distances, anchors, places, parts


def objective(field: Field, **settings) -> Objective:
    bank = LatentBank(field.latent_specs, torch.arange(4), torch.Generator().manual_seed(0))
    return Objective(field, bank, TrainingConfig(**{"gradient_points": 4} | settings))


def balls(**settings) -> Objective:
    whole = objective(Balls(), **settings)
    whole.bank.start_from("radius", RADII[:, None])
    return whole


@pytest.mark.parametrize("points", [2, 5, 8])
def test_an_exact_field_has_no_losses_but_its_codes(points):
    named = balls(gradient_points=points)(*batch())
    for name in ("surface", "distance", "normal", "eikonal"):
        assert named[name].item() == pytest.approx(0, abs=2e-6)
    assert named["code"].item() == pytest.approx(RADII.square().mean().item())
    assert "landmark" not in named
    assert "symmetry" not in named


def test_a_shifted_field_has_the_losses_of_the_shift():
    whole = balls(distance_softness=1e9)
    whole.bank.start_from("radius", RADII[:, None] + 0.01)
    named = whole(*batch())
    assert named["surface"].item() == pytest.approx(0.01, abs=1e-6)
    assert named["distance"].item() == pytest.approx(0.01, abs=1e-6)
    assert named["normal"].item() == pytest.approx(0, abs=1e-5)


def test_each_sample_is_compared_with_its_own_truth_whether_or_not_it_has_a_gradient():
    records, surface, normals, *rest, points, distances, anchors, keypoints, parts = batch()
    known = (anchors, keypoints, parts)
    for changed in (0, 3, 4, 7):  # before and behind the four that have gradients
        moved = surface.clone()
        moved[:, changed] *= 1.1
        named = balls()(records, moved, normals, *rest, points, distances, *known)
        assert named["surface"].item() == pytest.approx(0.1 * RADII.mean().item() / 8, rel=1e-4)
        assert named["distance"].item() == pytest.approx(0, abs=1e-6)
    for changed in (0, 1, 2, 11):  # of which the first two do
        shifted = distances.clone()
        shifted[:, changed] += 0.12
        named = balls(distance_softness=1e9)(records, surface, normals, *rest, points, shifted, *known)
        assert named["distance"].item() == pytest.approx(0.01, rel=1e-4)
        assert named["surface"].item() == pytest.approx(0, abs=1e-6)


def test_all_points_of_a_batch_may_have_gradients():
    named = balls(gradient_points=8)(*batch(8, 4))
    assert named["total"].isfinite()


def test_the_total_is_the_weighted_sum():
    weights = LossWeights(*(2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0, 29.0))
    torch.manual_seed(0)
    named = objective(build_field(ImHeadConfig(**SMALLEST)), losses=weights)(*batch())
    assert set(named) == {*vars(weights), "total"} - {
        "correspondence",
        "consistency",
        "correction",
    }  # of warps, cascades
    expected = sum(getattr(weights, name) * loss for name, loss in named.items() if name != "total")
    assert named["total"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_field_without_anchors_has_neither_landmark_nor_symmetry_loss():
    torch.manual_seed(0)
    named = objective(build_field(DeepSDFConfig(4, 16, 3)))(*batch())
    assert set(named) == {"distance", "surface", "normal", "eikonal", "code", "total"}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_give_the_gradient_of_the_whole_batch(workers):
    torch.manual_seed(0)
    whole = objective(build_field(ImHeadConfig(**SMALLEST))).double()
    samples = batch(dtype=torch.float64)
    named = whole(*samples)
    expected = torch.autograd.grad(named["total"], list(whole.parameters()))
    found = GradientWorkers(whole, workers)(*samples)
    assert found == pytest.approx({name: loss.item() for name, loss in named.items()}, rel=1e-9)
    for parameter, gradient in zip(whole.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-14)


def test_equal_workers_give_equal_bits():
    torch.manual_seed(0)
    whole = objective(build_field(DeepSDFConfig(4, 16, 3)))
    runs = []
    for _ in range(2):
        losses = GradientWorkers(whole, 2)(*batch())
        runs.append((losses, [parameter.grad for parameter in whole.parameters()]))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))


def test_an_error_in_a_worker_reaches_the_caller():
    records, *rest = batch()
    with pytest.raises(IndexError):
        GradientWorkers(balls(), 2)(records + 100, *rest)
