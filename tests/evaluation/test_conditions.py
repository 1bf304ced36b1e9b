from dataclasses import replace

import numpy as np
import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.conditions import EARS_PLANE, EYE, HOLE_MM, VIEWS, Condition, HeadSamples
from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.heads.template import FACE_REGIONS


def draw(template, condition, seed=0):
    return condition.sample(template.mesh, template, mm_per_unit=200.0, rng=np.random.default_rng(seed))


def regions(template, points):
    near = distance_to_surface(points, template.mesh)
    corners = template.triangles[near.face]
    nearest = np.linalg.norm(template.vertices[corners] - near.point[:, None], axis=2).argmin(1)
    return template.regions[corners[np.arange(len(points)), nearest]]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_gives_as_many_points_as_asked_for_on_the_exact_skin(template, view):
    points = draw(template, Condition(view, 300))
    assert points.shape == (300, 3)
    assert distance_to_surface(points, template.skin).distance.max() < 1e-12


def test_halves_end_where_they_say(template):
    assert draw(template, Condition("front half", 500))[:, 2].min() > EARS_PLANE
    assert draw(template, Condition("left half", 500))[:, 0].min() > 0


@pytest.mark.parametrize(
    ("view", "shown"),
    [("face", lambda t: t.in_regions(*FACE_REGIONS)), ("no ears", lambda t: ~t.in_regions("ear_L", "ear_R"))],
)
def test_regions_are_kept_or_left_out(template, view, shown):
    points = draw(template, Condition(view, 2000))
    allowed = set(template.regions[shown(template)])
    assert np.isin(regions(template, points), list(allowed)).mean() > 0.999  # a border may go either way
    assert len(set(regions(template, points))) == len(allowed)


def test_the_frontal_camera_sees_what_faces_it_and_is_not_hidden(template):
    points = draw(template, Condition("frontal", 2000))
    near = distance_to_surface(points, template.mesh)
    towards = np.einsum("ij,ij->i", template.mesh.face_normals()[near.face], np.array(EYE) - points)
    assert (towards > 0).all()
    behind_the_nose = Mesh(np.vstack([template.vertices, [[-9, -9, 1], [9, -9, 1], [0, 18, 1]]]), np.vstack(
        [template.triangles, [np.arange(3) + len(template.vertices)]]
    ))  # fmt: skip
    samples = HeadSamples(points, np.zeros(len(points), int), behind_the_nose, template, np.random.default_rng(0))
    assert not VIEWS["frontal"](samples).any()


def test_holes_are_holes(template):
    surface = sample_surface(template.skin, 20000, rng=np.random.default_rng(0)).points
    samples = HeadSamples(surface, np.zeros(20000, int), template.mesh, template, np.random.default_rng(1))
    shown = VIEWS["holes"](samples)
    assert 0.02 < 1 - shown.mean() < 0.25
    depth = NearestNeighbours(surface[shown]).query(surface[~shown])[0] * 200
    assert depth.max() == pytest.approx(HOLE_MM, abs=3)


def test_noise_has_the_stated_deviation_in_every_coordinate(template):
    clean, noisy = (draw(template, Condition("whole", 20000, noise)) for noise in (0.0, 2.0))
    moved = (noisy - clean) * 200
    np.testing.assert_allclose(moved.std(axis=0), 2.0, rtol=0.02)
    np.testing.assert_allclose(moved.mean(axis=0), 0.0, atol=0.05)


@pytest.mark.parametrize("view", VIEWS)
def test_equal_seeds_give_equal_points(template, view):
    condition = Condition(view, 200, 1.0)
    np.testing.assert_array_equal(draw(template, condition), draw(template, condition))
    assert not np.allclose(draw(template, condition), draw(template, condition, seed=1))


def test_names_tell_conditions_apart():
    base = Condition()
    others = [base, replace(base, view="face"), replace(base, points=9), replace(base, noise_mm=0.5)]
    assert len({condition.name for condition in others}) == 4
    assert base.name == "whole, 10000 points, 0 mm"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"view": "top"}, "no view 'top'; there are whole, "),
        ({"points": 0}, "points is 0"),
        ({"noise_mm": -1.0}, "noise is -1.0 mm"),
    ],
)
def test_a_condition_out_of_range_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(Condition(), **change).validate()
