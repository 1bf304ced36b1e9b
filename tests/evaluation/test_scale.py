import json
from dataclasses import replace

import pytest

from implicit3dmm.data.heads import Heads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import HeldOut
from implicit3dmm.evaluation.scale import evaluate_scale


def refuse(points):
    raise InputError("no head; a head is expected; give one")


def test_the_matrix_has_a_row_a_model_and_a_column_a_test_set(tiny_corpus, method, tmp_path):
    held_out = HeldOut(samples=1000)
    test_sets = [
        Heads(tiny_corpus.recipe, name="plain"),
        Heads(replace(tiny_corpus.recipe, detail_mm=0.3), name="skin"),
    ]
    methods = [method(lambda points: tiny_corpus.source.template.mesh, name="one"), method(refuse, name="two")]
    matrix = evaluate_scale(test_sets, methods, folder=tmp_path, held_out=held_out, points=200)
    assert {name: [each.name for each in trials] for name, trials in matrix.items()} == {
        name: ["one", "two", "mean head"] for name in ("plain", "skin")
    }
    page = (tmp_path / "summary.md").read_text()
    header = next(line for line in page.splitlines() if line.startswith("|"))
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["method", "trained on", "plain", "skin"]
    assert page.count("– (1 failed)") == 6
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["test_sets"]["skin"]["two"]["failed"] == 1
    assert summary["test_sets"]["plain"]["mean head"]["face"]["mean"] > 0.1
    assert (tmp_path / "skin" / "one" / "results.jsonl").exists()
    assert (tmp_path / "plain" / "errors.png").exists()


@pytest.mark.parametrize("count", [0, 2])
def test_test_sets_need_names_of_their_own(tiny_corpus, method, tmp_path, count):
    with pytest.raises(InputError, match="the test sets are called"):
        evaluate_scale([tiny_corpus] * count, [method(refuse)], folder=tmp_path, held_out=HeldOut())
