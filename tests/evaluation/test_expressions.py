"""The protocol of expressions: a method that knows the surface, and the released model's warp."""

import json

import numpy as np
import pytest
from PIL import Image

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.evaluation.cases import HeldOut
from implicit3dmm.evaluation.expressions import CORRESPONDENCE_PARTS, MOVING, _alike, evaluate_expressions, pattern
from implicit3dmm.evaluation.methods import FieldMethod
from implicit3dmm.fitting import FitConfig
from implicit3dmm.models import load_model

HELD_OUT = HeldOut(samples=3000)


@pytest.fixture(scope="module")
def heads() -> Heads:
    return Heads(Recipe(seed=11, train=1, test=1, expressions=("neutral", "mouth_open")), name="posed")


def field_method(name: str) -> FieldMethod:
    return FieldMethod(load_model(name), FitConfig(points=1500, steps=4), 40, digest=name)


def rows_of(heads, methods, folder):
    trials = evaluate_expressions(heads, methods, folder=folder, held_out=HELD_OUT, points=1500)
    return {each.name: {row["expression"]: row for row in each.rows} for each in trials}


@pytest.mark.usefixtures("no_tries")
def test_doing_nothing_scores_the_movement_and_a_warp_less(heads, tmp_path):
    rows = rows_of(heads, [field_method("imhead"), field_method("imhead-neutral")], tmp_path)
    still, warped = (rows[name]["mouth_open"]["correspondence"] for name in ("imhead-neutral", "imhead"))
    assert still.keys() == set(CORRESPONDENCE_PARTS)
    for part in ("face", "lips", MOVING):
        assert still[part]["error_mm"] == pytest.approx(still[part]["movement_mm"], abs=1e-3)
        assert warped[part]["error_mm"] < 0.5 * warped[part]["movement_mm"]
    assert rows["imhead"]["neutral"]["correspondence"][MOVING]["error_mm"] is None
    assert rows["imhead"]["neutral"]["correspondence"]["face"]["movement_mm"] == 0
    face = {name: rows[name]["mouth_open"]["figures"]["face"]["surface_mean_mm"] for name in rows}
    assert face["imhead"] < face["imhead-neutral"] < face["mean head"]
    page = (tmp_path / "summary.md").read_text()
    assert "| mouth_open " in page
    assert "Correspondence of imhead:" in page
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["imhead"]["expressions"]["mouth_open"]["face_mm"]["mean"] == pytest.approx(face["imhead"])
    assert summary["imhead"]["moving_vertices_alike"]["error_mm"] == pytest.approx(warped[MOVING]["error_mm"])
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [path.name for path in pictures] == ["mouth_open.png", "neutral.png"]
    assert all(np.asarray(Image.open(path)).std(axis=(0, 1)).min() > 20 for path in pictures)


def test_every_moving_vertex_counts_alike():
    errors = {0: None, 1: 1.0, 2: 4.0}
    rows = [{"record": k, "correspondence": {MOVING: {"error_mm": error}}} for k, error in errors.items()]
    assert _alike(rows, {0: 0, 1: 300, 2: 100}, "error_mm") == pytest.approx(1.75)
    assert np.isnan(_alike(rows[:1], {0: 0}, "error_mm"))


def test_methods_that_are_no_fields_have_surfaces_alone(heads, method, tmp_path):
    known = method(lambda points: heads.source.template.mesh)
    rows = rows_of(heads, [known], tmp_path)
    assert "correspondence" not in rows["known"]["mouth_open"]
    assert "Correspondence" not in (tmp_path / "summary.md").read_text()


def test_the_pattern_belongs_to_the_place():
    places = np.random.default_rng(0).normal(size=(50, 3)) * 0.3
    assert np.array_equal(pattern(places)[::-1], pattern(places[::-1]))
    assert pattern(places).std(axis=0).min() > 0.1
    assert pattern(places).min() >= 0
    assert pattern(places).max() <= 1
