"""Several scans of one subject, and what is held: against a field whose codes are known."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from implicit3dmm.errors import InputError
from implicit3dmm.fields.base import ConditionedField, Field
from implicit3dmm.fitting import FitConfig, HeadFit, fit, fit_sequence, fit_together
from implicit3dmm.fitting.solver import _with_units_tried, solve_together
from implicit3dmm.fitting.units import MORE_STEPS, try_units, units_penalty
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.latents import EXPRESSION, Gaussian, LatentPrior, LatentSpec
from implicit3dmm.models import HeadModel, load_model
from implicit3dmm.resources import asset

RADII = torch.tensor([0.4, 0.6, 0.5])
CONFIG = FitConfig(steps=16, first_points=500, prior=1e-15)


class Bending(Field):
    """Two codes set two radii; the expression bends the ellipsoid and shears it."""

    latent_specs = (
        LatentSpec("identity", 2, 1.0, "subject"),
        LatentSpec(EXPRESSION, 2, 1.0, "record", names=("bend", "shear")),
    )

    def __init__(self):
        super().__init__()
        self.radii = nn.Parameter(RADII.clone())

    def condition(self, codes):
        growth = torch.cat([codes["identity"], torch.zeros(len(codes["identity"]), 1)], dim=1)
        return Bent(self.radii * growth.exp(), codes[EXPRESSION])


class Bent(ConditionedField):
    def __init__(self, radii, expression):
        self.radii, self.expression = radii[:, None], expression

    def with_expression(self, expression):
        return Bent(self.radii[:, 0], expression)

    def to_canonical(self, points):
        bend, shear = self.expression[:, None, 0], self.expression[:, None, 1]
        x, y, z = points.unbind(-1)
        return torch.stack([x - shear * y * y * y, y, z - bend * x * x], dim=-1)

    def sdf(self, points):
        points = self.to_canonical(points)
        length = (points / self.radii).norm(dim=-1)
        return length * (length - 1) / (points / self.radii**2).norm(dim=-1)


@pytest.fixture(scope="module")
def model():
    parts = {"identity": torch.full((2,), 0.15), EXPRESSION: torch.full((2,), 0.3)}
    prior = LatentPrior({name: Gaussian(torch.zeros(2), torch.eye(2), std) for name, std in parts.items()})
    return HeadModel(Bending().requires_grad_(False), prior, {"name": "bending"})


IDENTITY = np.array([-0.15, 0.1])
EXPRESSIONS = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, -0.6]])


def scan_of(expression, seed: int, count: int = 3000):
    """Points on the bent ellipsoid, moved a little."""
    rng = np.random.default_rng(seed)
    ball = rng.normal(size=(count, 3))
    x, y, z = (ball / np.linalg.norm(ball, axis=1, keepdims=True) * RADII.numpy() * np.exp([*IDENTITY, 0])).T
    bent = np.stack([x + expression[1] * y**3, y, z], axis=1)
    bent[:, 2] += expression[0] * bent[:, 0] ** 2
    pose = Similarity(1.0, Rotation.from_rotvec(rng.normal(0, 0.05, 3)).as_matrix(), rng.normal(0, 0.02, 3))
    return pose.apply(bent)


def test_scans_of_one_subject_share_the_identity_and_have_expressions_of_their_own(model):
    scans = [scan_of(expression, seed) for seed, expression in enumerate(EXPRESSIONS)]
    solutions = solve_together(model, scans, [Similarity.identity()] * 3, CONFIG)
    first = solutions[0].codes["identity"]
    assert all(torch.equal(each.codes["identity"], first) for each in solutions)
    np.testing.assert_allclose(first[0].numpy(), IDENTITY, atol=0.01)
    for each, expression in zip(solutions, EXPRESSIONS, strict=True):
        np.testing.assert_allclose(each.codes[EXPRESSION][0].numpy(), expression, atol=0.03)


def test_held_codes_stay_and_the_others_are_found(model):
    held = {"identity": torch.tensor(IDENTITY, dtype=torch.float32)[None]}
    (solution,) = solve_together(
        model, [scan_of(EXPRESSIONS[1], 5)], [Similarity.identity()], CONFIG, first=held, held=held
    )
    torch.testing.assert_close(solution.codes["identity"], held["identity"])
    np.testing.assert_allclose(solution.codes[EXPRESSION][0].numpy(), EXPRESSIONS[1], atol=0.03)


def test_a_held_pose_stays(model):
    start = Similarity(1.0, Rotation.from_rotvec([0.0, 0.02, 0.0]).as_matrix(), np.zeros(3))
    (solution,) = solve_together(model, [scan_of(EXPRESSIONS[0], 6)], [start], CONFIG, held=("pose",))
    np.testing.assert_array_equal(solution.similarity.matrix(), start.matrix())


def test_movements_are_tried_and_kept_where_they_help():
    names = ("blinkLeft", "blinkRight", "smileLeft", "smileRight", "jaw")
    shown = torch.tensor([[0.8, 0.0, 0.8, 0.8, 0.0]])

    def losses(weights):
        return (weights - shown).abs().sum(1) + 0.1

    found = try_units(names, torch.zeros(1, 5), losses)
    torch.testing.assert_close(found, shown)
    assert torch.equal(try_units(names, found, losses), found)
    assert torch.equal(try_units(names, torch.zeros(1, 5), lambda weights: torch.ones(len(weights))), torch.zeros(1, 5))


def test_a_unit_is_tried_on_the_points_and_kept_where_it_helps(model):
    rng = np.random.default_rng(3)
    ball = rng.normal(size=(800, 3))
    points = ball / np.linalg.norm(ball, axis=1, keepdims=True) * RADII.numpy()
    bent = points + np.stack([0 * points[:, 0], 0 * points[:, 0], 0.8 * points[:, 0] ** 2], axis=1)
    start, names = torch.zeros(4, dtype=torch.float64), ("bend", "shear")
    on = _with_units_tried(model, model.prior, names, start, bent, robust=0.02)
    np.testing.assert_allclose(on[2:] * 0.3, [0.8, 0.0], atol=1e-5)
    assert torch.equal(_with_units_tried(model, model.prior, names, start, points, robust=0.02), start)


def test_the_penalty_of_units_is_the_slope_of_what_it_says():
    group, sparse = torch.tensor([0, 0, 1]), 0.1

    def penalty(z):
        strength = torch.stack([z[:2].clamp_min(0).square().sum(), z[2].clamp_min(0).square()])
        outside = z - z.clamp(0, 1)
        return torch.log1p(strength / sparse**2).sum() + (outside / sparse).square().sum()

    for weights in ([0.5, 0.3, 0.02], [0.9, 0.0, 0.4], [1.3, 0.2, 1.01]):
        z = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(penalty(z), z)
        curvature, pull = units_penalty(z.detach(), group, sparse)
        torch.testing.assert_close(pull, slope)
        assert (curvature > 0).all()
    _, pull = units_penalty(torch.tensor([-0.2, 0.0, -0.2]).double(), group, sparse)
    assert pull[0] == pull[2]
    assert pull[0] < -2 * 0.2 / sparse**2


@pytest.fixture(scope="module")
def released():
    return load_model("imhead")


QUICK = {"config": FitConfig(points=1500, steps=6), "resolution": 40}


@pytest.mark.usefixtures("no_tries")
def test_a_sequence_reports_a_broken_frame_and_goes_on(released, tmp_path):
    broken = tmp_path / "broken.ply"
    broken.write_bytes(b"ply\n")
    frames = [asset("example_scan.ply"), broken, asset("example_scan.ply")]
    first, error, last = fit_sequence(frames, released, **QUICK)
    assert isinstance(error, InputError)
    assert "broken.ply has no whole PLY header" in str(error)
    assert isinstance(first, HeadFit)
    assert last.is_head
    assert torch.equal(last.codes["identity"], first.codes["identity"])
    assert last.report["error"]["scan_mean_mm"] < 1.5 * first.report["error"]["scan_mean_mm"] + 0.2


@pytest.mark.usefixtures("no_tries")
def test_known_codes_are_held_and_those_of_another_model_are_refused(released):
    known = {"identity": released.prior.sample(1, generator=torch.Generator().manual_seed(1))["identity"]}
    result = fit(asset("example_scan.ply"), released, held=known, **QUICK)
    assert torch.equal(result.codes["identity"], known["identity"])
    assert result.report["fit"]["steps"] == QUICK["config"].steps + MORE_STEPS
    with pytest.raises(InputError, match="has no code 'local'"):
        fit(asset("example_scan.ply"), released, held={"local": torch.zeros(1, 3)}, **QUICK)


@pytest.mark.usefixtures("no_tries")
def test_two_scans_of_one_person_have_one_identity(released):
    fits = fit_together([asset("example_scan.ply")] * 2, released, **QUICK)
    assert torch.equal(fits[0].codes["identity"], fits[1].codes["identity"])
    assert all(each.is_head for each in fits)
    with pytest.raises(InputError, match="no scan is given"):
        fit_together([], released)


def test_a_sequence_needs_a_model_with_expressions():
    with pytest.raises(InputError, match="has no expressions to follow through a sequence"):
        fit_sequence([asset("example_scan.ply")], "imhead-neutral")
