import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from implicit3dmm.data.corpus import QUANTUM, build_corpus
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.metrics import METRICS
from implicit3dmm.evaluation.protocols import ReconstructionConfig, draw_scan, evaluate_reconstruction
from implicit3dmm.evaluation.regions import HEADLINE, PARTS
from implicit3dmm.evaluation.results import read_rows
from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours

CONFIG = ReconstructionConfig(split="train", heads=3, points=500, samples=4000)
ABOUT = {"method": "under test"}


@dataclass(frozen=True)
class Fitted:
    mesh: Mesh


@pytest.fixture
def scans(tiny_corpus):
    return [draw_scan(tiny_corpus, record, CONFIG) for record in range(CONFIG.heads)]


@pytest.fixture
def oracle(scans):
    """A method that knows every head."""

    def fit(points):
        scan = next(scan for scan in scans if np.array_equal(scan.points, points))
        return Fitted(scan.truth.transformed(scan.placement))

    return fit


@pytest.fixture
def evaluate(tiny_corpus, tmp_path):
    def run(fit, *, config=CONFIG, folder=tmp_path / "run", **more):
        mean_head = tiny_corpus.source.template.mesh
        return evaluate_reconstruction(
            tiny_corpus, fit, mean_head=mean_head, folder=folder, config=config, **({"about": ABOUT} | more)
        )

    return run


def refuse(points):
    raise InputError(f"{len(points)} points are not enough; more are expected\nsecond line")


def test_points_lie_on_the_exact_head_without_its_cap(tiny_corpus, scans):
    template = tiny_corpus.source.template
    for scan in scans:
        points = scan.placement.inverse().apply(scan.points)
        skin = scan.truth.with_faces(~template.cap)
        assert points.shape == (500, 3)
        assert distance_to_surface(points, skin).distance.max() < 1e-9 * np.abs(points).max() + 1e-9
        canonical = scan.head.similarity.apply(scan.truth.vertices)
        np.testing.assert_allclose(canonical, scan.head.vertices, atol=1e-12)


def test_points_are_new_ones_and_each_head_has_its_own_pose(tiny_corpus, scans):
    training = tiny_corpus.samples(torch.tensor([0]), (1024, 1), torch.Generator()).surface[0].numpy()
    own = scans[0].head.similarity.apply(scans[0].placement.inverse().apply(scans[0].points))
    assert NearestNeighbours(training).query(own)[0].min() > QUANTUM
    scales = [scan.placement.scale for scan in scans]
    assert len(set(scales)) == len(scales)
    assert min(scan.placement.angle_to(scans[0].placement) for scan in scans[1:]) > 1


def test_equal_seeds_give_equal_scans_whatever_was_drawn_before(tiny_corpus, scans):
    again = draw_scan(tiny_corpus, 2, CONFIG)
    np.testing.assert_array_equal(again.points, scans[2].points)
    other = draw_scan(tiny_corpus, 2, replace(CONFIG, seed=1))
    assert not np.allclose(other.points, scans[2].points)


def test_a_perfect_method_has_no_error_in_any_unit_and_pose(evaluate, oracle):
    summary = evaluate(oracle)
    for part in PARTS:
        assert summary.figures["fit"][part]["surface_mean_mm"].mean < 1e-6
        assert summary.figures["fit"][part]["f_score@1mm"].mean == 1.0
        assert summary.figures["mean_head"][part]["surface_mean_mm"].mean > 0.1


def test_an_offset_is_reported_in_the_subjects_own_millimetres(evaluate, scans):
    def inflate(points):
        scan = next(scan for scan in scans if np.array_equal(scan.points, points))
        truth = scan.truth
        return Fitted(Mesh(truth.vertices + 2.0 * truth.vertex_normals(), truth.faces).transformed(scan.placement))

    cranium = evaluate(inflate).figures["fit"]["cranium"]["surface_mean_mm"]
    assert cranium.mean == pytest.approx(2.0, rel=0.02)
    assert cranium.count == 3


def test_the_mean_head_stands_beside_it_as_a_method_of_its_own_would(evaluate, scans, tiny_corpus, tmp_path):
    template = tiny_corpus.source.template.mesh

    def do_nothing(points):
        scan = next(scan for scan in scans if np.array_equal(scan.points, points))
        return Fitted(template.transformed(scan.placement.compose(scan.head.similarity.inverse())))

    figures = evaluate(do_nothing).figures
    for metric in METRICS:
        assert figures["fit"][HEADLINE][metric].mean == pytest.approx(
            figures["mean_head"][HEADLINE][metric].mean, rel=1e-3
        )


def test_a_failed_fit_is_a_row_and_the_run_goes_on(evaluate, oracle, scans, tmp_path):
    def sometimes(points):
        return refuse(points) if np.array_equal(points, scans[1].points) else oracle(points)

    summary = evaluate(sometimes)
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    assert [row["error"] for row in rows] == [
        None,
        "InputError: 500 points are not enough; more are expected",
        None,
    ]
    assert rows[1]["fit"] is None
    assert rows[1]["mean_head"][HEADLINE]["surface_mean_mm"] > 0
    assert list(summary.errors) == [1]
    assert summary.figures["fit"][HEADLINE]["surface_mean_mm"].count == 2
    assert summary.figures["mean_head"][HEADLINE]["surface_mean_mm"].count == 3
    assert "- record 1: InputError" in (tmp_path / "run" / "summary.md").read_text()


@pytest.mark.parametrize(
    "mesh", [Mesh(np.eye(3)), Mesh(np.full((3, 3), np.nan), np.array([[0, 1, 2]]))], ids=["cloud", "nan"]
)
def test_a_result_that_is_no_surface_is_a_failed_fit(evaluate, mesh):
    summary = evaluate(lambda points: Fitted(mesh), config=replace(CONFIG, heads=1))
    assert list(summary.errors) == [0]


def test_a_stopped_run_goes_on_and_gives_what_an_unbroken_one_does(evaluate, oracle, tmp_path):
    calls = []

    def counted(points):
        calls.append(len(points))
        return oracle(points)

    def stop_at_the_second(points):
        if calls:
            raise KeyboardInterrupt
        return counted(points)

    with pytest.raises(KeyboardInterrupt):
        evaluate(stop_at_the_second)
    assert len(calls) == 1
    resumed = evaluate(counted)
    assert len(calls) == 3
    unbroken = evaluate(oracle, folder=tmp_path / "unbroken")
    assert resumed.figures == unbroken.figures
    evaluate(refuse)  # everything is done, so nothing is tried
    rows = [read_rows(tmp_path / name / "results.jsonl") for name in ("run", "unbroken")]
    for row in (*rows[0], *rows[1]):
        row["cpu_seconds"] = row["wall_seconds"] = None
    assert rows[0] == rows[1]


def test_the_folder_holds_what_was_asked_for_and_what_came_out(evaluate, oracle, tmp_path):
    evaluate(oracle)
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        "protocol.json", "results.jsonl", "summary.json", "summary.md", "errors.png"
    }  # fmt: skip
    protocol = json.loads((folder / "protocol.json").read_text())
    assert protocol["about"] == ABOUT
    assert (protocol["config"]["points"], protocol["recipe"]["seed"]) == (500, 5)
    row = json.loads((folder / "results.jsonl").read_text().splitlines()[0])
    assert set(row["fit"]) == set(row["mean_head"]) == set(PARTS)
    assert set(METRICS) < set(row["fit"][HEADLINE])
    assert row["cpu_seconds"] >= 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["figures"]["fit"][HEADLINE]["surface_mean_mm"]["count"] == 3


@pytest.mark.parametrize("change", [{"about": {"method": "other"}}, {"config": replace(CONFIG, seed=9)}])
def test_results_of_two_methods_or_configs_never_mix(evaluate, oracle, change):
    evaluate(oracle)
    with pytest.raises(InputError, match="holds results of other settings"):
        evaluate(oracle, **change)


def test_a_split_without_heads_is_refused(tmp_path):
    recipe = Recipe(train=1, surface_points=10, distance_points=10)
    corpus = build_corpus(recipe, tmp_path / "corpus")
    with pytest.raises(InputError, match="has no test heads"):
        evaluate_reconstruction(
            corpus,
            refuse,
            mean_head=corpus.source.template.mesh,
            folder=tmp_path / "run",
            config=ReconstructionConfig(),
            about={},
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"heads": 0}, "heads is 0"), ({"points": 0}, "points is 0"), ({"seed": -1}, "seed is -1")],
)
def test_a_config_out_of_range_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **change).validate()
