from dataclasses import replace

import numpy as np
import pytest
import torch

from implicit3dmm.data.quantisation import QUANTUM
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import Case, HeldOut
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.metrics import compare_surfaces
from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours

HELD_OUT = HeldOut(split="train", heads=3, samples=4000)
CONDITION = Condition(points=500)


@pytest.fixture
def cases(tiny_corpus):
    return [Case.of(tiny_corpus, record, HELD_OUT) for record in HELD_OUT.records(tiny_corpus)]


def test_points_lie_on_the_exact_head_without_its_cap(tiny_corpus, cases):
    template = tiny_corpus.source.template
    for case in cases:
        scan = case.scan(CONDITION)
        points = scan.placement.inverse().apply(scan.points)
        skin = case.truth.with_faces(~template.cap)
        assert points.shape == (500, 3)
        assert distance_to_surface(points, skin).distance.max() < 1e-9 * np.abs(points).max() + 1e-9
        canonical = case.head.similarity.apply(case.truth.vertices)
        np.testing.assert_allclose(canonical, case.head.vertices, atol=1e-12)


def test_points_are_new_ones_and_each_head_has_its_own_pose(tiny_corpus, cases):
    training = tiny_corpus.samples(torch.tensor([0]), (1024, 1), torch.Generator()).surface[0].numpy()
    scans = [case.scan(CONDITION) for case in cases]
    own = cases[0].head.similarity.apply(scans[0].placement.inverse().apply(scans[0].points))
    assert NearestNeighbours(training).query(own)[0].min() > QUANTUM
    assert len({scan.placement.scale for scan in scans}) == len(scans)
    assert min(scan.placement.angle_to(scans[0].placement) for scan in scans[1:]) > 1


def test_equal_seeds_give_equal_scans_and_one_pose_under_all_conditions(tiny_corpus, cases):
    scan, again = cases[2].scan(CONDITION), Case.of(tiny_corpus, 2, HELD_OUT).scan(CONDITION)
    np.testing.assert_array_equal(scan.points, again.points)
    noisy = cases[2].scan(Condition("frontal", 300, 1.0))
    assert noisy.placement.angle_to(scan.placement) == pytest.approx(0, abs=1e-6)
    assert noisy.placement.scale == scan.placement.scale
    other = Case.of(tiny_corpus, 2, replace(HELD_OUT, seed=1)).scan(CONDITION)
    assert not np.allclose(other.points, scan.points)


def test_noise_is_in_the_subjects_own_millimetres(cases):
    clean, noisy = (cases[0].scan(Condition("whole", 5000, noise)) for noise in (0.0, 3.0))
    moved = clean.placement.inverse().apply(noisy.points) - clean.placement.inverse().apply(clean.points)
    assert moved.std() == pytest.approx(3.0, rel=0.03)


def test_figures_are_those_of_a_plain_comparison(cases):
    case = cases[0]
    inflated = Mesh(case.truth.vertices + 2.0 * case.truth.vertex_normals(), case.truth.faces)
    figures = case.judge(inflated)
    assert figures["cranium"]["surface_mean_mm"] == pytest.approx(2.0, rel=0.02)
    plain = compare_surfaces(inflated, case.truth, mm_per_unit=1.0, rng=np.random.default_rng(3), samples=4000)
    for metric, value in plain.metrics().items():
        assert figures["whole_head"][metric] == pytest.approx(value, rel=0.03, abs=0.02)
    assert case.judge(inflated) == figures


def test_a_split_without_heads_is_refused(tiny_corpus):
    nobody = replace(tiny_corpus.recipe, test=0, validation=0)
    from implicit3dmm.data.heads import Heads

    with pytest.raises(InputError, match="nobody has no test heads"):
        HeldOut().records(Heads(nobody, name="nobody"))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"heads": 0}, "heads is 0"), ({"samples": 0}, "samples is 0"), ({"seed": -1}, "seed is -1")],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(HELD_OUT, **change).validate()
