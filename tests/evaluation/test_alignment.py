import dataclasses
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation import alignment
from implicit3dmm.evaluation.alignment import AlignmentConfig, RealScan, evaluate_alignment
from implicit3dmm.evaluation.alignment_summary import is_right
from implicit3dmm.evaluation.results import read_rows
from implicit3dmm.geometry.alignment import known_pose
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import Similarity

CONFIG = AlignmentConfig(split="train", poses=2, kinds=("whole", "front"), units=("mm", "none"), points=500)


@pytest.fixture
def aligned(monkeypatch):
    """Replaces the alignment by one that lays every scan as it is into the canonical frame; keeps what it was given."""
    given = []

    def align(points, target, *, unit="auto", rng):
        given.append(points)
        return known_pose(Similarity(1 / 200, np.eye(3), np.zeros(3)), unit=unit)

    monkeypatch.setattr(alignment, "align_scan", align)
    return given


@pytest.fixture
def scan(tiny_corpus):
    mesh = tiny_corpus.source.template.mesh
    to_canonical = Similarity(7.0, Rotation.from_rotvec([1.0, 0, 0]).as_matrix(), np.ones(3))
    return RealScan("template", mesh.transformed(to_canonical.inverse()), to_canonical)


def test_a_held_out_head_is_aligned_and_the_row_says_how_well(tiny_corpus, tmp_path):
    config = dataclasses.replace(CONFIG, poses=1, kinds=("whole",), units=("m",), points=4000)
    (row,) = evaluate_alignment(tiny_corpus, folder=tmp_path / "run", config=config)
    assert is_right(row)
    assert row["translation_mm"] < 10
    assert (row["unit_found"], row["unit_right"]) == ("m", True)
    assert row["plausible"]
    assert not row["ambiguous"]
    assert row["cpu_seconds"] > 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["groups"][0]["right"] == 1


def test_every_pose_kind_and_unit_is_a_row_and_the_next_pose_takes_the_next_head(tiny_corpus, scan, aligned, tmp_path):
    rows = evaluate_alignment(tiny_corpus, folder=tmp_path, config=CONFIG, scan=scan)
    assert len(aligned) == len(rows) == 2 * 2 * 2 * 2
    assert len({(row["subject"], row["kind"], row["unit"], row["pose"]) for row in rows}) == len(rows)
    assert {(row["pose"], row["record"]) for row in rows if row["subject"] == "held-out"} == {(0, 0), (1, 1)}
    assert {row["record"] for row in rows if row["subject"] == "scan"} == {None}
    sizes = [np.ptp(points, axis=0).max() for points, row in zip(aligned, rows, strict=True) if row["unit"] == "mm"]
    assert all(100 < size < 500 for size in sizes)


def test_errors_are_those_of_a_known_pose(tiny_corpus, scan, aligned, tmp_path, monkeypatch):
    tenth = Similarity(1.1, Rotation.from_rotvec([0, 0.1, 0]).as_matrix(), np.zeros(3))
    monkeypatch.setattr(alignment, "_random_placement", lambda unit, rng: Similarity.identity())
    monkeypatch.setattr(alignment, "SCANS", {"whole": lambda head, count, rng: tenth.inverse().apply(np.eye(3))})
    config = dataclasses.replace(CONFIG, poses=1, kinds=("whole",), units=("mm",))
    monkeypatch.setattr(alignment, "generated_head", lambda *_: _head(tenth.inverse()))
    (row,) = evaluate_alignment(tiny_corpus, folder=tmp_path, config=config)
    assert row["rotation_degrees"] == pytest.approx(np.degrees(0.1))
    assert row["scale_error"] == pytest.approx(0.1)
    assert row["translation_mm"] == pytest.approx(0)
    assert not is_right(row)


def _head(turned):
    """A head whose canonical frame is turned and grown against what `aligned` finds."""
    mesh = Mesh(np.eye(3), np.array([[0, 1, 2]]))
    to_canonical = turned.compose(Similarity(1 / 200, np.eye(3), np.zeros(3)))
    return alignment.ScannedHead(mesh, lambda: mesh, to_canonical)


def test_a_stopped_run_goes_on_and_more_poses_may_be_added(tiny_corpus, aligned, tmp_path):
    evaluate_alignment(tiny_corpus, folder=tmp_path, config=dataclasses.replace(CONFIG, poses=1))
    first = (tmp_path / "results.jsonl").read_text()
    rows = evaluate_alignment(tiny_corpus, folder=tmp_path, config=CONFIG)
    assert len(aligned) == len(rows) == 8
    assert (tmp_path / "results.jsonl").read_text().startswith(first)
    evaluate_alignment(tiny_corpus, folder=tmp_path, config=CONFIG)
    assert len(aligned) == 8


def test_equal_seeds_give_equal_scans_and_others_do_not(tiny_corpus, aligned, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = dataclasses.replace(CONFIG, poses=1, kinds=("whole",), units=("none",), seed=seed)
        evaluate_alignment(tiny_corpus, folder=tmp_path / name, config=config)
    np.testing.assert_array_equal(aligned[0], aligned[1])
    assert not np.allclose(aligned[0], aligned[2])


def test_a_folder_of_other_points_is_refused(tiny_corpus, aligned, tmp_path):
    config = dataclasses.replace(CONFIG, poses=1, kinds=("whole",), units=("mm",))
    evaluate_alignment(tiny_corpus, folder=tmp_path, config=config)
    with pytest.raises(InputError, match="other settings"):
        evaluate_alignment(tiny_corpus, folder=tmp_path, config=dataclasses.replace(config, points=600))


def test_what_a_fit_makes_of_the_pose_stands_beside(tiny_corpus, aligned, tmp_path):
    config = dataclasses.replace(CONFIG, poses=1, kinds=("whole",), units=("mm",))
    (row,) = evaluate_alignment(
        tiny_corpus, folder=tmp_path, config=config, fit=lambda points: Similarity(1 / 100, np.eye(3), np.zeros(3))
    )
    assert 1 + row["fit"]["scale_error"] == pytest.approx(2 * (1 + row["scale_error"]))
    assert "After the fit:" in (tmp_path / "summary.md").read_text()


def test_the_page_has_a_line_for_each_subject_and_kind(tiny_corpus, scan, aligned, tmp_path):
    evaluate_alignment(tiny_corpus, folder=tmp_path, config=CONFIG, scan=scan)
    page = (tmp_path / "summary.md").read_text()
    for line in ("| held-out | whole |", "| held-out | front |", "| scan     | whole |", "| scan     | front |"):
        assert line in page
    groups = json.loads((tmp_path / "summary.json").read_text())["groups"]
    assert [group["cases"] for group in groups] == [4, 4, 4, 4]
    assert set(groups[0]["right_by_unit"]) == {"mm", "none"}
    assert len(read_rows(tmp_path / "results.jsonl")) == 16


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kinds": ("back",)}, "kinds: back given; choose among whole"),
        ({"kinds": ()}, "kinds: none given"),
        ({"units": ("inch",)}, "units: inch given; choose among mm, m, none"),
        ({"poses": 0}, "poses and points"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range_are_refused(tiny_corpus, tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        evaluate_alignment(tiny_corpus, folder=tmp_path / "run", config=dataclasses.replace(CONFIG, **wrong))
    assert not (tmp_path / "run").exists()
