from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from implicit3dmm.fields.base import ConditionedField, Field
from implicit3dmm.fitting import FitConfig
from implicit3dmm.fitting.solver import geman_mcclure, solve
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.latents import Gaussian, LatentPrior, LatentSpec
from implicit3dmm.models import HeadModel

RADII = torch.tensor([0.4, 0.6, 0.5])
SPREAD = 0.15
"""Logarithm by which one standard deviation of a code changes a radius."""

WHITENED = np.array([-1.2, 0.9])
"""Makes the radii 0.33, 0.69 and 0.5: no two are alike, so that the pose is told."""
CONFIG = FitConfig(steps=16, first_points=500, prior=1e-15)


class EllipsoidField(Field):
    """Two codes set two radii; the third, which is fixed, tells the scale."""

    latent_specs = (LatentSpec("identity", 2, 1.0, "subject"),)

    def __init__(self):
        super().__init__()
        self.radii = nn.Parameter(RADII.clone())

    def condition(self, codes):
        growth = torch.cat([codes["identity"], torch.zeros(len(codes["identity"]), 1)], dim=1)
        return Ellipsoid(self.radii * growth.exp())


class Ellipsoid(ConditionedField):
    """Zero on the ellipsoid and a distance to first order near it."""

    def __init__(self, radii):
        self.radii = radii[:, None]

    def sdf(self, points):
        length = (points / self.radii).norm(dim=-1)
        return length * (length - 1) / (points / self.radii**2).norm(dim=-1)


@pytest.fixture(scope="module")
def model():
    prior = LatentPrior({"identity": Gaussian(torch.zeros(2), torch.eye(2), torch.full((2,), SPREAD))})
    return HeadModel(EllipsoidField().requires_grad_(False), prior, {"name": "ellipsoid"})


def motion(scale, rotation_vector, translation):
    return Similarity(scale, Rotation.from_rotvec(rotation_vector).as_matrix(), translation)


TRUTH = motion(0.005, [0.4, -1.1, 2.0], [0.3, -2.0, 1.0])
"""From the scan's frame, in millimetres, to the canonical one."""
START = motion(1.06, [0.12, -0.08, 0.1], [0.03, -0.04, 0.02]).compose(TRUTH)
"""Some 10 degrees, 6 per cent and 10 mm away."""


def surface_points(count=3000, seed=0, whitened=WHITENED):
    """Points of the ellipsoid of the whitened codes, in the scan's frame."""
    directions = np.random.default_rng(seed).normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = RADII.numpy() * np.exp([*(SPREAD * whitened), 0])
    return TRUTH.inverse().apply(directions * radii)


def errors(solution):
    """Of the codes in standard deviations, and of the pose in degrees, per cent and millimetres."""
    between = solution.similarity.compose(TRUTH.inverse())
    return {
        "codes": np.abs(solution.codes["identity"][0].numpy() / SPREAD - WHITENED).max(),
        "degrees": solution.similarity.angle_to(TRUTH),
        "per cent": 100 * abs(between.scale - 1),
        "mm": 200 * np.linalg.norm(between.translation),
    }


def test_known_pose_and_codes_are_recovered_from_surface_points(model):
    solution = solve(model, surface_points(), START, CONFIG)
    assert errors(solution) == pytest.approx({"codes": 0, "degrees": 0, "per cent": 0, "mm": 0}, abs=1e-3)
    assert solution.losses[-1] < 1e-8 * solution.losses[0]
    assert len(solution.losses) == CONFIG.steps


def test_strays_do_not_move_the_solution_though_they_move_least_squares(model):
    points = surface_points(2100)
    rng = np.random.default_rng(1)
    strays = TRUTH.inverse().apply(np.array([0.0, 0.9, 0.9]) + rng.normal(size=(900, 3)) * 0.15)
    together = rng.permutation(np.concatenate([points, strays]))
    robust = errors(solve(model, together, START, CONFIG))
    squares = errors(solve(model, together, START, replace(CONFIG, robust_start=1e3, robust_end=1e3)))
    assert robust == pytest.approx({"codes": 0, "degrees": 0, "per cent": 0, "mm": 0}, abs=1e-2)
    assert squares["mm"] > 10
    assert squares["codes"] > 0.5


def test_a_few_points_at_the_end_of_the_world_do_no_harm(model):
    strays = 1e6 * np.random.default_rng(2).normal(size=(10, 3)) / TRUTH.scale
    solution = solve(model, np.concatenate([surface_points(), strays]), START, CONFIG)
    assert errors(solution) == pytest.approx({"codes": 0, "degrees": 0, "per cent": 0, "mm": 0}, abs=1e-2)


def test_equal_seeds_give_equal_bits(model):
    config = CONFIG
    one, same = (solve(model, surface_points(), START, config) for _ in range(2))
    other = solve(model, surface_points(), START, replace(config, seed=1))
    assert torch.equal(one.codes["identity"], same.codes["identity"])
    assert np.array_equal(one.similarity.matrix(), same.similarity.matrix())
    assert one.losses == same.losses
    assert one.losses != other.losses


def test_the_unit_of_the_scan_does_not_matter(model):
    config, unit = CONFIG, motion(1000.0, [0, 0, 0], [0, 0, 0])
    one = solve(model, surface_points(), START, config)
    other = solve(model, unit.apply(surface_points()), START.compose(unit.inverse()), config)
    torch.testing.assert_close(one.codes, other.codes, atol=1e-4, rtol=0)
    np.testing.assert_allclose(other.similarity.compose(unit).matrix(), one.similarity.matrix(), atol=1e-4)


def test_a_strong_prior_keeps_the_codes_at_the_mean(model):
    free = solve(model, surface_points(), START, CONFIG)
    held = solve(model, surface_points(), START, replace(CONFIG, prior_start=1.0, prior=1.0))
    assert held.code_norm < 0.01
    assert held.codes["identity"].abs().max() < 0.01 * SPREAD
    assert free.code_norm == pytest.approx(np.sqrt(np.square(WHITENED).mean()), abs=0.05)


def test_a_head_unlike_the_training_ones_widens_the_prior_where_asked(model):
    points = surface_points(whitened=np.array([-3.5, 3.0]))
    config = replace(CONFIG, prior_start=3e-4, prior=3e-4, robust_start=10.0, robust_end=10.0)
    missed = {}
    for widest in (1.0, 30.0):
        codes = solve(model, points, START, replace(config, widest=widest)).codes["identity"][0].numpy() / SPREAD
        missed[widest] = np.linalg.norm(codes - [-3.5, 3.0])
    assert missed[30.0] < 0.5 * missed[1.0]
    assert missed[1.0] > 0.1


def test_every_step_is_shown_as_progress_and_the_codes_carry_no_graph(model):
    steps = []

    def watched(items):
        for item in items:
            steps.append(item)
            yield item

    solution = solve(model, surface_points(200), START, replace(CONFIG, steps=3), progress=watched)
    assert steps == [0, 1, 2]
    assert not solution.codes["identity"].requires_grad


def test_geman_mcclure_is_quadratic_near_half_at_the_scale_and_level_far_away():
    scale = 0.02
    residuals = torch.tensor([0.0, 1e-5, scale, -scale, 1e3 * scale], dtype=torch.float64, requires_grad=True)
    values = geman_mcclure(residuals, scale)
    expected = [0.0, 1e-10, scale**2 / 2, scale**2 / 2, scale**2]
    np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-5)
    (slopes,) = torch.autograd.grad(values.sum(), residuals)
    assert slopes[0] == 0
    assert slopes[4] < 1e-8 * slopes[2]
