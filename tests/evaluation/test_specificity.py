import json
from dataclasses import replace

import numpy as np
import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.nearest import HeadIndex, vertex_areas
from implicit3dmm.evaluation.results import read_rows
from implicit3dmm.evaluation.specificity import HELD_OUT, SpecificityConfig, evaluate_specificity
from implicit3dmm.evaluation.trials import MEAN_HEAD
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.frame import UNIT_MM

CONFIG = SpecificityConfig(samples=4, levels=(0.5, 2.0))


@pytest.fixture(scope="module")
def index(tiny_corpus):
    return HeadIndex(tiny_corpus, tiny_corpus.records("train").tolist())


@pytest.fixture
def evaluate(tiny_corpus, tmp_path):
    def run(*methods, config=CONFIG, folder=tmp_path / "run"):
        return evaluate_specificity(tiny_corpus, methods, folder=folder, config=config)

    return run


def never(points):
    raise AssertionError("nothing is fitted")


@pytest.mark.parametrize("record", [0, 3, 5])
def test_a_training_head_is_nearest_to_itself_however_it_is_meshed(tiny_corpus, index, record):
    head = tiny_corpus.mesh(record)
    found = index.nearest(head)
    assert found.record == record
    assert found.distance_mm < 1e-3  # the index keeps single precision
    blown_up = Mesh(head.vertices + 0.5 / UNIT_MM * head.vertex_normals(), head.faces[::-1])
    found = index.nearest(blown_up, candidates=2)
    assert found.record == record
    assert found.distance_mm == pytest.approx(0.5, rel=0.03)


def test_the_neck_does_not_count(tiny_corpus, index):
    head = tiny_corpus.mesh(2)
    neck = tiny_corpus.source.template.in_regions("neck")
    low = neck & (head.vertices[:, 1] < head.vertices[neck, 1].mean() - 0.1)
    longer = head.vertices - np.where(low[:, None], [0, 0.2, 0], 0)
    found = index.nearest(Mesh(longer, head.faces))
    assert found.record == 2
    assert found.distance_mm < 0.3


def test_the_likeliest_heads_hold_the_nearest_one(tiny_corpus, index):
    for record in (6, 7):
        mesh = tiny_corpus.mesh(record)
        certain = index.nearest(mesh, candidates=6)
        assert index.nearest(mesh, candidates=3) == certain


def test_vertices_share_the_area(tiny_corpus):
    mesh = tiny_corpus.mesh(0)
    assert vertex_areas(mesh).sum() == pytest.approx(mesh.face_areas().sum())


def test_samples_are_drawn_at_each_level_and_stand_beside_held_out_heads(evaluate, method, tmp_path):
    rows = evaluate(method(never))
    assert {name: len(each) for name, each in rows.items()} == {"known": 4, HELD_OUT: 1, MEAN_HEAD: 1}
    assert [(row["level"], row["number"]) for row in rows["known"]] == [(0.5, 0), (2.0, 0), (0.5, 1), (2.0, 1)]
    assert all(row["distance_mm"] > 0 for each in rows.values() for row in each)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    levels = summary["methods"]["known"]["levels"]
    assert levels["0.5"]["count"] == levels["2"]["count"] == 2
    assert levels["2"]["mean"] > levels["0.5"]["mean"]
    assert summary[HELD_OUT]["mean"] == rows[HELD_OUT][0]["distance_mm"]
    page = (tmp_path / "run" / "summary.md").read_text()
    assert [line.split("|")[1].strip() for line in page.splitlines()[4:]] == ["known", HELD_OUT, MEAN_HEAD]
    assert (tmp_path / "run" / "specificity.png").exists()


def test_more_samples_may_be_asked_for_later_and_equal_seeds_give_equal_rows(evaluate, method, tmp_path):
    config = replace(CONFIG, heads=2)
    evaluate(method(never), config=replace(config, samples=2))
    evaluate(method(never), config=config)
    evaluate(method(never), config=config, folder=tmp_path / "at once")
    rows = [read_rows(tmp_path / run / "known" / "results.jsonl") for run in ("run", "at once")]
    for row in (*rows[0], *rows[1]):
        row["cpu_seconds"] = None
    assert rows[0] == rows[1]


def test_a_sample_without_a_surface_is_counted(evaluate, method, tmp_path):
    broken = method(never)
    object.__setattr__(broken, "mean_head", Mesh(np.eye(3)))
    object.__setattr__(broken, "sample", lambda *_, **__: iter([Mesh(np.eye(3))]))
    rows = evaluate(broken, method(never, name="sound"), config=replace(CONFIG, samples=2, heads=1))["known"]
    assert all("no faces" in row["error"] for row in rows)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["methods"]["known"]["failed"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": ()}, "levels is"),
        ({"levels": (1.0, 1.0)}, "give each level once"),
        ({"levels": (-1.0,)}, "at least 0"),
        ({"samples": 1}, "samples is 1; give at least one for each of 2 levels"),
        ({"heads": 0}, "heads is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **change).validate()
