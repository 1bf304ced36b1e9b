import json

import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import HeldOut
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.results import read_rows
from implicit3dmm.evaluation.robustness import evaluate_noise, evaluate_partial

HELD_OUT = HeldOut(split="train", heads=2, samples=2000)
CONDITIONS = [Condition(view, 300, noise) for view in ("whole", "frontal") for noise in (0.0, 1.0)]


def refuse(points):
    raise InputError("no head; a head is expected; give one")


@pytest.fixture
def noise(tiny_corpus, tmp_path):
    def run(*methods, noise_mm=(0.0, 1.0), **more):
        options = {"points": [300], "views": ["whole", "frontal"]} | more
        return evaluate_noise(
            tiny_corpus, methods, folder=tmp_path / "run", held_out=HELD_OUT, noise_mm=noise_mm, **options
        )

    return run


def test_each_condition_is_tried_on_each_head_and_errors_are_told_apart(noise, method, oracle, tmp_path):
    trials, mean_head = noise(method(oracle(HELD_OUT, CONDITIONS, inflate_mm=1.0)))
    assert [row["condition"] for row in trials.rows] == [condition.name for condition in CONDITIONS] * 2
    assert [row["error"] for row in trials.rows] == [None] * 8
    assert len(mean_head.rows) == 2
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    errors = summary["methods"]["known"]["conditions"]
    assert list(errors) == [condition.name for condition in CONDITIONS]
    assert all(each["face"]["mean"] == pytest.approx(1.0, rel=0.1) for each in errors.values())
    page = (tmp_path / "run" / "summary.md").read_text()
    assert page.count("| mean head |") == 3
    assert page.count("| known     | frontal |") == 3
    assert (tmp_path / "run" / "noise.png").exists()


def test_a_finished_condition_is_not_tried_again_and_more_may_be_added(noise, method, oracle, tmp_path):
    noise(method(oracle(HELD_OUT, CONDITIONS)), noise_mm=(0.0,))
    calls = []
    known = oracle(HELD_OUT, CONDITIONS)
    noise(method(lambda points: calls.append(1) or known(points)))
    assert len(calls) == 4
    noise(method(refuse))
    rows = read_rows(tmp_path / "run" / "known" / "results.jsonl")
    assert len(rows) == 8
    assert all(row["error"] is None for row in rows)


def test_a_method_may_fail_everywhere(noise, method, tmp_path):
    noise(method(refuse), noise_mm=(0.0,))
    assert "– (2 failed)" in (tmp_path / "run" / "summary.md").read_text()


def test_partial_scans_are_judged_on_every_part_of_the_whole_head(tiny_corpus, method, oracle, tmp_path):
    views = ["face", "no ears"]
    fit = oracle(HELD_OUT, [Condition(view, 300) for view in views], inflate_mm=1.0)
    evaluate_partial(tiny_corpus, [method(fit)], folder=tmp_path, held_out=HELD_OUT, views=views, points=300)
    errors = json.loads((tmp_path / "summary.json").read_text())["methods"]["known"]["conditions"]
    assert errors["no ears, 300 points, 0 mm"]["ear_L"]["mean"] == pytest.approx(1.0, rel=0.3)
    assert errors["face, 300 points, 0 mm"]["cranium"]["mean"] == pytest.approx(1.0, rel=0.1)
    assert (tmp_path / "summary.md").read_text().count("\n| known ") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [({"views": ["top"]}, "no view 'top'"), ({"points": [0]}, "points is 0"), ({"noise_mm": (-1.0,)}, "noise is -1")],
)
def test_conditions_out_of_range_are_refused_before_any_work(noise, method, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        noise(method(refuse), **change)
    assert not (tmp_path / "run").exists()
