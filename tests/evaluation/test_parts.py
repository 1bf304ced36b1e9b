import json

import numpy as np
import pytest

from implicit3dmm.evaluation.cases import Case, HeldOut
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.estimates import estimate
from implicit3dmm.evaluation.parts import (
    CEILING,
    CHAMFER,
    COLUMNS,
    FLOOR,
    SCORE,
    SampledParts,
    evaluate_parts,
    part_masks,
)
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.template import PARTS, REMAINDER

HELD_OUT = HeldOut(split="train", heads=2)
SAMPLES, PART_SAMPLES = 20_000, 1500


@pytest.fixture
def case(tiny_corpus):
    return Case.of(tiny_corpus, 0, HELD_OUT)


@pytest.fixture
def sampled(case):
    return SampledParts(case.truth, case.template, SAMPLES, PART_SAMPLES, rng=case.rng(1))


def test_nose_eyes_mouth_and_remainder_part_the_head_above_the_neck(template):
    masks = part_masks(template)
    assert tuple(masks) == tuple(COLUMNS)
    together = sum(masks[name].astype(int) for name in (*PARTS, REMAINDER))
    np.testing.assert_array_equal(together, masks["neck_masked"])


def test_the_truth_itself_has_the_floor_and_the_ceiling_and_all_samples(case, sampled):
    figures = sampled.compare(case.truth, rng=case.rng(2))
    for name in COLUMNS:
        own = figures[name]
        assert own[CHAMFER] == pytest.approx(own[FLOOR], rel=0.05)
        assert own[SCORE] == pytest.approx(own[CEILING], abs=0.03)
        assert own["samples"] == (PART_SAMPLES if name in PARTS else SAMPLES)


def test_a_part_is_judged_by_its_own_samples_alone(case, sampled):
    vertices, nose = case.truth.vertices.copy(), part_masks(case.template)["nose"]
    vertices[nose] += [0.0, 0.0, 1.5]
    moved = sampled.compare(Mesh(vertices, case.truth.faces), rng=case.rng(2))
    assert moved["nose"][CHAMFER] > moved["nose"][FLOOR] + 0.2
    assert moved["nose"][SCORE] < 0.9 * moved["nose"][CEILING]
    for name in ("eyes", "mouth"):
        assert moved[name][CHAMFER] == pytest.approx(moved[name][FLOOR], rel=0.05)


def test_a_prediction_without_a_nose_has_none_to_judge(case, sampled):
    nose = part_masks(case.template)["nose"]
    without = case.truth.with_faces(~nose[case.truth.faces].any(axis=1))
    figures = sampled.compare(without, rng=case.rng(2))["nose"]
    assert np.isnan(figures[CHAMFER])
    assert (figures[SCORE], figures["samples"]) == (0, 0)


def test_a_table_has_the_parts_of_each_method_and_the_differences(method, oracle, tiny_corpus, tmp_path):
    conditions = [Condition(points=300)]
    known, inflated = (oracle(HELD_OUT, conditions, inflate_mm=mm) for mm in (0.0, 3.0))
    methods = [method(known), method(inflated, name="inflated")]
    options = {"folder": tmp_path, "held_out": HELD_OUT, "points": 300, "samples": 3000, "part_samples": 500}
    trials = evaluate_parts(tiny_corpus, methods, **options)
    for part in COLUMNS:
        assert estimate(trials[0].rows, part, CHAMFER).mean == pytest.approx(
            estimate(trials[0].rows, part, FLOOR).mean, rel=0.1
        )
        assert estimate(trials[1].rows, part, SCORE).mean < 0.2
    assert json.loads((tmp_path / "known/protocol.json").read_text())["part_samples"] == 500
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["inflated"]["nose"]["chamfer_l1_mm minus first"]["mean"] > 1
    page = (tmp_path / "summary.md").read_text()
    for line in (
        "| Chamfer-L1, mm ",
        "| F-score at 1 mm ",
        "| the truth, sampled twice ",
        "| inflated minus known, head by head ",
    ):
        assert line in page
