"""Vertex errors of methods whose results are known."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import Case, HeldOut
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.methods import FieldMethod
from implicit3dmm.evaluation.registration import FLIPPED, GROUPS, LANDMARKS, WITHIN, evaluate_registration
from implicit3dmm.extraction import on_template
from implicit3dmm.fitting import FitConfig, HeadFit
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.models import load_model

HELD_OUT = HeldOut(split="train", heads=2)
POINTS = 300


@dataclass
class Fit:
    mesh: Mesh
    similarity: Similarity


class Knowing:
    """Gives the true head, changed by `change`, in any order of its faces."""

    def __init__(self, heads, change=lambda mesh: mesh, name="knowing"):
        self.name = name
        self.settings = {"model": name}
        self.change = change
        cases = [Case.of(heads, record, HELD_OUT) for record in HELD_OUT.records(heads)]
        self.scans = [(case, case.scan(Condition(points=POINTS))) for case in cases]

    def fit(self, points):
        case, scan = next((case, scan) for case, scan in self.scans if np.array_equal(scan.points, points))
        mesh = self.change(case.truth).transformed(scan.placement)
        return Fit(mesh, case.head.similarity.compose(scan.placement.inverse()))


@dataclass(frozen=True, eq=False)
class MeanHead(FieldMethod):
    """A field that knows the pose, and finds the mean head in every scan."""

    knowing: Knowing

    def fit(self, points):
        case, scan = next((case, scan) for case, scan in self.knowing.scans if np.array_equal(scan.points, points))
        mesh = case.truth.transformed(scan.placement)
        placed = {"similarity": case.head.similarity.compose(scan.placement.inverse()), "registered": mesh.vertices}
        unused = dict.fromkeys(("scan", "distance_mm", "evidence", "report"))
        return HeadFit(self.model.prior.mean(), mesh=mesh, is_head=True, **placed, **unused)


def run(heads, method, folder, **more):
    options = {"folder": folder, "held_out": HELD_OUT, "points": POINTS} | more
    return evaluate_registration(heads, [method], **options)


def test_a_perfect_linear_model_has_no_error_and_the_template_stands_beside_it(tiny_corpus, tmp_path):
    rows = run(tiny_corpus, Knowing(tiny_corpus), tmp_path)
    for row in rows["knowing"]:
        assert row["whole_head"] < 1e-6
        assert row[FLIPPED] == 0
    assert all(row["whole_head"] > 1 for row in rows["mean head"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["mean head"]["nose"]["count"] == 2
    assert "| flipped area, % " in (tmp_path / "summary.md").read_text()


def test_an_offset_is_its_length_in_the_subjects_millimetres(tiny_corpus, tmp_path):
    moved = Knowing(tiny_corpus, lambda mesh: Mesh(mesh.vertices + np.array([3.0, 0.0, 4.0]), mesh.faces))
    for row in run(tiny_corpus, moved, tmp_path)["knowing"]:
        assert row["nose"] == pytest.approx(5)
        assert row["whole_head"] == pytest.approx(5)


def test_faces_that_look_the_wrong_way_are_counted_by_area(tiny_corpus, tmp_path):
    mirrored = Knowing(tiny_corpus, lambda mesh: Mesh(mesh.vertices * [-1.0, 1.0, 1.0], mesh.faces))
    assert all(row[FLIPPED] > 0.3 for row in run(tiny_corpus, mirrored, tmp_path)["knowing"])


def test_a_surface_of_another_topology_gets_the_template_laid_onto_it(tiny_corpus, tmp_path):
    shuffled = Knowing(tiny_corpus, lambda mesh: Mesh(mesh.vertices, np.roll(mesh.faces, 1, axis=0)))
    for row in run(tiny_corpus, shuffled, tmp_path)["knowing"]:
        assert 0.01 < row["neck_masked"] < 2
        assert row[FLIPPED] < 0.005


def test_true_landmarks_go_to_the_models_own_template_from_any_pose_and_unit(tiny_corpus, template, tmp_path):
    method = MeanHead(load_model("parts"), FitConfig(), 40, "digest", Knowing(tiny_corpus))
    rows = run(tiny_corpus, method, tmp_path)
    field = method.model.condition(method.model.prior.mean())
    for row, still, (case, _) in zip(rows["parts"], rows["mean head"], method.knowing.scans, strict=True):
        landed = on_template(field, case.head.vertices[template.landmarks])
        away = 200 * np.linalg.norm(landed - template.vertices[template.landmarks], axis=1)
        assert row[LANDMARKS]["all"] == pytest.approx(away.mean(), rel=1e-3)
        assert row[LANDMARKS]["nose"] == pytest.approx(away[27:36].mean(), rel=1e-3)
        assert row[LANDMARKS][WITHIN] == pytest.approx((away <= 2).mean(), abs=0.02)
        assert row[LANDMARKS]["all"] != pytest.approx(still[LANDMARKS]["all"], rel=1e-3)
    assert set(json.loads((tmp_path / "summary.json").read_text())["parts"][LANDMARKS]) == {*GROUPS, WITHIN}
    assert "| landmarks on the template, mm " in (tmp_path / "summary.md").read_text()


def test_a_model_without_a_template_has_no_such_landmarks(tiny_corpus, tmp_path):
    assert all(LANDMARKS not in row for row in run(tiny_corpus, Knowing(tiny_corpus), tmp_path)["knowing"])
    assert "landmarks" not in (tmp_path / "summary.md").read_text()


def test_a_run_goes_on(tiny_corpus, tmp_path):
    method = Knowing(tiny_corpus)
    first = run(tiny_corpus, method, tmp_path)
    todo = []
    again = run(tiny_corpus, method, tmp_path, progress=lambda records: todo.extend(records) or records)
    assert todo == []
    assert again == first


def test_heads_of_another_topology_are_refused(tmp_path):
    other = SimpleNamespace(source=SimpleNamespace(template=SimpleNamespace(triangles=np.zeros((1, 3)))), name="ict")
    with pytest.raises(InputError, match="ict has another topology than the built-in heads"):
        evaluate_registration(other, [], folder=tmp_path / "out", held_out=HELD_OUT)
    assert not (tmp_path / "out").exists()
