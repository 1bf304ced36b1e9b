import json
from dataclasses import replace

import numpy as np
import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import Case, HeldOut
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.metrics import METRICS
from implicit3dmm.evaluation.reconstruction import evaluate_reconstruction
from implicit3dmm.evaluation.regions import HEADLINE, PARTS
from implicit3dmm.evaluation.results import read_rows
from implicit3dmm.evaluation.summary import summarise
from implicit3dmm.evaluation.trials import MEAN_HEAD
from implicit3dmm.geometry.mesh import Mesh

HELD_OUT = HeldOut(split="train", heads=3, samples=4000)
CONDITION = Condition(points=500)


@pytest.fixture
def perfect(oracle):
    return oracle(HELD_OUT, [CONDITION])


@pytest.fixture
def evaluate(tiny_corpus, tmp_path):
    def run(*methods, held_out=HELD_OUT, folder=tmp_path / "run"):
        return evaluate_reconstruction(tiny_corpus, methods, folder=folder, held_out=held_out, points=500)

    return run


def refuse(points):
    raise InputError(f"{len(points)} points are not enough; more are expected\nsecond line")


def test_a_perfect_method_has_no_error_in_any_unit_and_pose(evaluate, method, perfect):
    known, mean_head = (summarise(trials.rows) for trials in evaluate(method(perfect)))
    for part in PARTS:
        assert known[part]["surface_mean_mm"].mean < 1e-6
        assert known[part]["f_score@1mm"].mean == 1.0
        assert mean_head[part]["surface_mean_mm"].mean > 0.1


def test_an_offset_is_reported_in_the_subjects_own_millimetres(evaluate, method, oracle):
    trials, _ = evaluate(method(oracle(HELD_OUT, [CONDITION], inflate_mm=2.0)))
    cranium = summarise(trials.rows)["cranium"]["surface_mean_mm"]
    assert cranium.mean == pytest.approx(2.0, rel=0.02)
    assert cranium.count == 3


def test_the_mean_head_stands_beside_it_as_a_method_of_its_own_would(evaluate, method, tiny_corpus):
    template = tiny_corpus.source.template.mesh
    cases = [Case.of(tiny_corpus, record, HELD_OUT) for record in range(3)]

    def do_nothing(points):
        case = next(case for case in cases if np.array_equal(case.scan(CONDITION).points, points))
        return template.transformed(case.scan(CONDITION).placement.compose(case.head.similarity.inverse()))

    nothing, mean_head = (summarise(trials.rows) for trials in evaluate(method(do_nothing)))
    for metric in METRICS:
        assert nothing[HEADLINE][metric].mean == pytest.approx(mean_head[HEADLINE][metric].mean, rel=1e-3)


def test_a_failed_fit_is_a_row_and_the_run_goes_on(evaluate, method, perfect, tiny_corpus, tmp_path):
    second = Case.of(tiny_corpus, 1, HELD_OUT).scan(CONDITION).points
    trials, mean_head = evaluate(method(lambda p: refuse(p) if np.array_equal(p, second) else perfect(p)))
    assert [row["error"] for row in trials.rows] == [
        None,
        "InputError: 500 points are not enough; more are expected",
        None,
    ]
    assert summarise(trials.rows)[HEADLINE]["surface_mean_mm"].count == 2
    assert summarise(mean_head.rows)[HEADLINE]["surface_mean_mm"].count == 3
    assert "  - failed on record 1 (whole, 500 points, 0 mm): InputError" in (tmp_path / "run/summary.md").read_text()


@pytest.mark.parametrize(
    "mesh", [Mesh(np.eye(3)), Mesh(np.full((3, 3), np.nan), np.array([[0, 1, 2]]))], ids=["cloud", "nan"]
)
def test_a_result_that_is_no_surface_is_a_failed_fit(evaluate, method, mesh):
    trials, _ = evaluate(method(lambda points: mesh), held_out=replace(HELD_OUT, heads=1))
    assert trials.rows[0]["error"].startswith("InputError")


def test_a_stopped_run_goes_on_and_gives_what_an_unbroken_one_does(evaluate, method, perfect, tmp_path):
    calls = []

    def counted(points):
        calls.append(len(points))
        return perfect(points)

    def stop_at_the_second(points):
        if calls:
            raise KeyboardInterrupt
        return counted(points)

    with pytest.raises(KeyboardInterrupt):
        evaluate(method(stop_at_the_second))
    assert len(calls) == 1
    evaluate(method(counted))
    assert len(calls) == 3
    evaluate(method(perfect), folder=tmp_path / "unbroken")
    evaluate(method(refuse))  # everything is done, so nothing is tried
    for folder in ("known", "mean head of known"):
        resumed, unbroken = (read_rows(tmp_path / run / folder / "results.jsonl") for run in ("run", "unbroken"))
        for row in (*resumed, *unbroken):
            row["cpu_seconds"] = row["wall_seconds"] = None
        assert resumed == unbroken


def test_more_heads_and_methods_may_be_asked_for_later_and_fewer_are_shown(evaluate, method, perfect, tmp_path):
    evaluate(method(perfect), held_out=replace(HELD_OUT, heads=1))
    other = method(perfect, name="other")
    trials = evaluate(method(perfect), other)
    assert [len(each.rows) for each in trials] == [3, 3, 3]
    assert [each.name for each in trials] == ["known", "other", MEAN_HEAD]
    fewer = evaluate(method(refuse), held_out=replace(HELD_OUT, heads=2))
    assert [[row["record"] for row in each.rows] for each in fewer] == [[0, 1], [0, 1]]


def test_the_folder_holds_what_was_asked_for_and_what_came_out(evaluate, method, perfect, oracle, tmp_path):
    evaluate(method(perfect), method(oracle(HELD_OUT, [CONDITION], inflate_mm=1.0), name="inflated"))
    folder = tmp_path / "run"
    names = {"known", "inflated", "mean head of known", "summary.json", "summary.md", "errors.png"}
    assert {path.name for path in folder.iterdir()} == names
    assert {path.name for path in (folder / "known").iterdir()} == {"protocol.json", "results.jsonl", "summary.md"}
    protocol = json.loads((folder / "known" / "protocol.json").read_text())
    assert protocol["method"] == {"model": "known", "version": 0}
    assert (protocol["protocol"], protocol["seed"], protocol["recipe"]["seed"]) == ("reconstruction", 0, 5)
    row = read_rows(folder / "known" / "results.jsonl")[0]
    assert set(row["figures"]) == set(PARTS)
    assert set(METRICS) < set(row["figures"][HEADLINE])
    assert row["cpu_seconds"] >= 0
    summary = json.loads((folder / "summary.json").read_text())
    known = summary["methods"]["known"]
    assert known["figures"][HEADLINE]["surface_mean_mm"]["count"] == 3
    assert (known["latent_size"], known["training_points"], known["gate"]) == (3, 1_500_000, "0.0 mm, as published")
    difference = summary["differences"]["inflated"]["face"]
    assert difference["mean"] == pytest.approx(1.0, rel=0.1)
    assert difference["half_width"] < 0.1
    page = (folder / "summary.md").read_text()
    assert "inflated minus known" in page
    assert "- inflated: trained on 6 makehuman; known figure: 0.0 mm, as published" in page
    assert " 1.5 M |" in page


def test_results_of_two_versions_or_seeds_never_mix(evaluate, method, perfect):
    evaluate(method(perfect))
    with pytest.raises(InputError, match=r"holds results of other settings \(method\)"):
        evaluate(method(perfect, version=1))
    with pytest.raises(InputError, match=r"holds results of other settings \(seed\)"):
        evaluate(method(perfect), held_out=replace(HELD_OUT, seed=9))


def test_an_empty_split_leaves_no_folder(method, tiny_corpus, tmp_path):
    from implicit3dmm.data.heads import Heads

    nobody = Heads(replace(tiny_corpus.recipe, test=0), name="nobody")
    with pytest.raises(InputError, match="has no test heads"):
        evaluate_reconstruction(nobody, [method(refuse)], folder=tmp_path / "run", held_out=HeldOut())
    assert not (tmp_path / "run").exists()
