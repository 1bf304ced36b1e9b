"""What is a head and what is none, on true fits of generated things."""

import json
from collections.abc import Iterable

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from implicit3dmm.data.average_head import template
from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.fitting import FitConfig, fit
from implicit3dmm.fitting.verdict import MOST_DOUBT, Verdict
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.geometry.similarity import Similarity

CONFIG = FitConfig(points=2500)
RESOLUTION = 48
VALIDATION = Recipe(seed=2026, train=1000, validation=16)


HARDEST = ("whole", "ball")
"""The head that is doubted most and the thing that is doubted least: the released model is tried on these two."""


def box(size, at):
    part = trimesh.creation.box(size)
    part.apply_translation(at)
    return part


def chair() -> trimesh.Trimesh:
    legs = [box((40, 450, 40), (x, 225, z)) for x in (-200, 200) for z in (-200, 200)]
    return trimesh.util.concatenate([*legs, box((440, 40, 440), (0, 470, 0)), box((440, 500, 40), (0, 740, -200))])


def hand() -> trimesh.Trimesh:
    """A palm with four fingers and a thumb."""
    parts = [box((85, 95, 28), (0, 0, 0))]
    for x, length in ((-32, 70), (-11, 80), (11, 75), (32, 60)):
        finger = trimesh.creation.capsule(height=length, radius=9)
        finger.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
        finger.apply_translation([x, 45, 0])
        parts.append(finger)
    thumb = trimesh.creation.capsule(height=50, radius=11)
    thumb.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 3, [0, 1, 0]))
    thumb.apply_translation([42, -20, 0])
    return trimesh.util.concatenate([*parts, thumb])


def blob() -> trimesh.Trimesh:
    """A ball of about a head's size with random bumps."""
    rng = np.random.default_rng(1)
    ball = trimesh.creation.icosphere(subdivisions=5)
    radius = 1 + sum(0.12 * np.sin(ball.vertices @ rng.normal(0, 2.5, 3) + rng.uniform(0, 6)) for _ in range(12))
    ball.vertices *= radius[:, None] * np.array([100, 130, 110])
    return ball


THINGS = {
    "cube": lambda: trimesh.creation.box((200, 200, 200)),
    "ball": lambda: trimesh.creation.icosphere(subdivisions=4, radius=100),
    "cylinder": lambda: trimesh.creation.cylinder(radius=80, height=240),
    "chair": chair,
    "hand": hand,
    "blob": blob,
}


def thing(name: str, rng: np.random.Generator) -> np.ndarray:
    mesh = THINGS[name]()
    return sample_surface(Mesh(mesh.vertices, mesh.faces), 4000, rng=rng).points


def whole(number: int, rng: np.random.Generator, count: int = 4000) -> np.ndarray:
    """Surface points of a validation head, millimetres, nose ahead."""
    head = next(generate(VALIDATION, [number]))
    skin = Mesh(head.similarity.inverse().apply(head.vertices), template().skin.faces)
    return sample_surface(skin, count, rng=rng).points


def front(number: int, rng: np.random.Generator) -> np.ndarray:
    points = whole(number, rng, 8000)
    return points[points[:, 2] > np.median(points[:, 2])]


HEADS = {
    "whole": lambda rng: whole(1000, rng),
    "front": lambda rng: front(1006, rng),
    "noise of 2 mm": lambda rng: (points := whole(1008, rng)) + rng.normal(0, 2, points.shape),
    "250 points": lambda rng: whole(1011, rng, 250),
}


def posed(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return points @ Rotation.random(random_state=3).as_matrix().T + rng.uniform(-300, 300, 3)


def tried_on(names: Iterable[str]) -> list:
    """Each name with the model of neutral heads, whose fits are quick, and with the released one."""
    quick = [("imhead-neutral", name) for name in names if name not in HARDEST]
    released = [pytest.param("imhead", name, marks=() if name in HARDEST else pytest.mark.slow) for name in names]
    return quick + released


@pytest.mark.parametrize(("model", "name"), tried_on(HEADS))
def test_heads_are_not_refused(model, name):
    rng = np.random.default_rng(0)
    result = fit(posed(HEADS[name](rng), rng), model, config=CONFIG, resolution=RESOLUTION)
    assert result.is_head
    assert result.report["is_head"] is True
    assert result.report["head"]["doubt"] < 0.8 * MOST_DOUBT
    assert "reason" not in result.report["head"]


@pytest.mark.parametrize(("model", "name"), tried_on(THINGS))
def test_what_is_no_head_is_said_to_be_none_with_a_reason_and_figures(model, name):
    rng = np.random.default_rng(0)
    result = fit(posed(thing(name, rng), rng), model, config=CONFIG, resolution=RESOLUTION)
    assert not result.is_head
    assert result.report["is_head"] is False
    said = result.report["head"]
    assert said["doubt"] > 1.2 * MOST_DOUBT
    assert said["reason"]
    assert (result.report["landmarks"], result.report["measurements"]) == (None, None)
    assert json.dumps(result.report, allow_nan=False)


def test_a_cube_is_no_head_where_its_pose_is_given_either():
    points = thing("cube", np.random.default_rng(0)) / 200
    result = fit(points, "imhead-neutral", config=CONFIG, resolution=RESOLUTION, transform=Similarity.identity())
    assert not result.is_head
    assert result.report["head"]["orientation"] == 0


def test_the_strongest_sign_is_the_reason_and_signs_add_up_as_squares():
    verdict = Verdict(residual_mm=6.0, shape=8.0, orientation=0.8)
    assert verdict.doubt == pytest.approx(5)
    assert not verdict.is_head
    assert verdict.reason.startswith("the fit is a shape that no head has: 8.0 standard deviations")
    assert Verdict(residual_mm=9.0, shape=1.0, orientation=0.0).reason.startswith(
        "the model cannot follow the scan: 9.0"
    )
    assert "99% of the best" in Verdict(residual_mm=0.0, shape=1.0, orientation=0.99).reason
    assert Verdict(residual_mm=0.1, shape=1.0, orientation=0.8).is_head
