"""implicit3dmm evaluate: each protocol from its options to its page, and what is refused."""

import json

import numpy as np
import pytest

from implicit3dmm.cli.evaluate import PROTOCOLS
from implicit3dmm.evaluation.metrics import SampledTruth
from implicit3dmm.geometry.mesh import Mesh, write_mesh
from implicit3dmm.mesh_models.pca import PCAModel, save_pca


@pytest.fixture(scope="module")
def models(tiny_corpus, tmp_path_factory):
    """Two linear models, whose heads cost nothing to make."""
    folder = tmp_path_factory.mktemp("models")
    for count in (2, 4):
        name = f"pca{count}"
        save_pca(folder / f"{name}.safetensors", PCAModel.of(tiny_corpus, components=count, name=name))
    return [folder / "pca2.safetensors", folder / "pca4.safetensors"]


@pytest.fixture
def quick_fit(monkeypatch, tiny_corpus):
    """A fit that gives the average head where the points are: the fits have their own tests."""

    class Fitted:
        def __init__(self, points, model, **_):
            self.mesh = Mesh(model.mean + points.mean(axis=0), model.triangles)

    monkeypatch.setattr("implicit3dmm.evaluation.methods.fit_pca", Fitted)
    few = lambda *words, **options: SampledTruth(*words, **(options | {"samples": 1000}))  # noqa: E731
    monkeypatch.setattr("implicit3dmm.evaluation.cases.SampledTruth", few)


@pytest.fixture
def evaluate(command, tiny_corpus, models, tmp_path):
    def call(protocol, *options, corpus=None, out="out"):
        given = [tiny_corpus.folder] if corpus is None else corpus
        return command("evaluate", protocol, "--corpus", *given, "--model", *models, "--out", tmp_path / out, *options)

    return call


@pytest.mark.parametrize(
    ("protocol", "options", "files"),
    [
        ("reconstruction", ["--heads", 1, "--points", 300], ["errors.png"]),
        ("parts", ["--heads", 1, "--points", 300, "--samples", 2000, "--part-samples", 500], []),
        ("noise", ["--noise-mm", 0, 1, "--points", 300, "--views", "whole"], ["noise.png"]),
        ("partial", ["--views", "face", "front half", "--points", 300], []),
        ("scale", ["--points", 300], []),
        ("specificity", ["--samples", 2, "--levels", 1, "--train-heads", 2], ["specificity.png"]),
    ],
)
def test_a_protocol_prints_its_page_and_a_finished_one_is_not_done_again(
    evaluate, quick_fit, tmp_path, protocol, options, files
):
    first = evaluate(protocol, *options)
    assert first.code == 0
    page = (tmp_path / "out" / "summary.md").read_text()
    assert first.out.strip() == page.strip()
    assert all(name in page for name in ("| pca2 ", "| pca4 ", "| mean head "))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())
    assert all((tmp_path / "out" / name).exists() for name in files)
    kept = {path: path.read_bytes() for path in (tmp_path / "out").rglob("results.jsonl")}
    assert kept
    assert evaluate(protocol, *options) == first
    assert kept == {path: path.read_bytes() for path in (tmp_path / "out").rglob("results.jsonl")}


def test_a_recipe_is_as_good_as_a_corpus(evaluate, quick_fit, tiny_corpus, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("{seed: 5, train: 6, validation: 1, test: 1, surface_points: 1024, distance_points: 1024}")
    assert evaluate("reconstruction", "--points", 300).code == 0
    assert evaluate("reconstruction", "--points", 300, corpus=[recipe], out="again").code == 0
    one, again = (json.loads((tmp_path / out / "summary.json").read_text()) for out in ("out", "again"))
    assert one["methods"]["pca2"]["figures"] == again["methods"]["pca2"]["figures"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_explains_its_own_options(command, protocol):
    result = command("evaluate", protocol, "--help")
    assert (result.code, result.err) == (0, "")
    assert f"usage: implicit3dmm evaluate {protocol}" in result.out
    assert ("--noise-mm" in result.out) == (protocol in ("noise", "partial"))
    assert ("--levels" in result.out) == (protocol == "specificity")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reconstruction", "--corpus", "none"], "no finished corpus, and there is no shipped config 'none'"),
        (["reconstruction", "--corpus", "base", "--model", "none"], "no model 'none'"),
        (["reconstruction", "--corpus", "base", "--model", "imhead", "imhead"], "both called 'imhead'"),
        (["reconstruction", "--corpus", "base", "--heads", "0"], "heads is 0"),
        (["parts", "--corpus", "base", "--part-samples", "0"], "part_samples is 0"),
        (["noise", "--corpus", "base", "--noise-mm", "-1"], "noise is -1"),
        (["partial", "--corpus", "base", "--views", "top"], "no view 'top'"),
        (["specificity", "--corpus", "base", "--samples", "3"], "samples is 3; give at least one for each of 6 levels"),
        (["scale", "--corpus", "base", "base"], "the test sets are called base, base"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    command, tmp_path, monkeypatch, untouched, assert_refused, words, message
):
    monkeypatch.chdir(tmp_path)
    assert_refused(command("evaluate", *words, "--out", "out"), message)
    untouched.check()


def test_a_real_scan_is_aligned_beside_the_heads_and_needs_its_pose(command, tiny_corpus, tmp_path, assert_refused):
    scan, pose = tmp_path / "scan.ply", tmp_path / "pose.txt"
    write_mesh(scan, tiny_corpus.mesh(0))
    np.savetxt(pose, np.eye(4))
    words = ["evaluate", "alignment", "--corpus", tiny_corpus.folder, "--poses", 1, "--kinds", "whole", "--units", "mm"]
    assert_refused(command(*words, "--out", tmp_path / "none", "--scan", scan), "--scan-pose")
    result = command(*words, "--points", 2000, "--out", tmp_path / "out", "--scan", scan, "--scan-pose", pose)
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert [row["subject"] for row in rows] == ["held-out", "scan"]
    assert rows[1]["rotation_degrees"] < 5
