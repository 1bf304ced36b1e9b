"""The whole way as a user goes it: corpus, training (killed in the middle), fit, extract, sample, evaluate."""

import json
import os
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from implicit3dmm.cli import run
from implicit3dmm.geometry.mesh import read_mesh
from implicit3dmm.models import load_model

PATIENCE = 240
COUNTS = ["train=6", "validation=0", "test=1", "surface_points=2048", "distance_points=2048"]
SETTINGS = ["imhead/tiny", "training.steps=60", "training.checkpoint_every=5", "training.log_every=10"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "heads"
    assert run(["corpus", "small", *COUNTS, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def killed_run(corpus) -> Path:
    """A run folder whose training was killed between two checkpoints, and resumed to its end."""
    folder = corpus.parent / "killed"
    words = ["train", *SETTINGS, "--corpus", str(corpus), "--out", str(folder)]
    child = subprocess.Popen(
        [Path(sysconfig.get_path("scripts")) / "implicit3dmm", *words], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    for _ in range(PATIENCE * 100):
        if (folder / "checkpoint.safetensors").exists() or child.poll() is not None:
            break
        time.sleep(0.01)
    child.kill()
    assert child.wait() == -signal.SIGKILL, "the training ended before it could be killed"
    assert not (folder / "model.safetensors").exists()
    assert run([*words, "--resume"]) == 0
    return folder


@pytest.fixture(scope="module")
def unbroken_run(corpus) -> Path:
    folder = corpus.parent / "unbroken"
    assert run(["train", *SETTINGS, "--corpus", str(corpus), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def fitted(killed_run, corpus, scan_points) -> Path:
    scan, out = corpus.parent / "scan.npy", corpus.parent / "fit"
    np.save(scan, scan_points)
    quick = ["--steps", "10", "--resolution", "40"]
    assert run(["fit", str(scan), "--model", str(killed_run / "model.safetensors"), "--out", str(out), *quick]) == 0
    return out


def test_a_killed_training_that_is_resumed_ends_where_an_unbroken_one_does(killed_run, unbroken_run):
    resumed, unbroken = (load_file(folder / "model.safetensors") for folder in (killed_run, unbroken_run))
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(resumed[name], unbroken[name]) for name in resumed)
    rows = [json.loads(line) for line in (killed_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert rows[-1]["total"] < rows[0]["total"]


def test_the_run_folder_holds_what_it_takes_to_use_and_repeat_it(killed_run):
    names = {path.name for path in killed_run.iterdir()}
    wanted = {"config.yaml", "checkpoint.safetensors", "metrics.jsonl", "curve.png", "model.safetensors", "tensorboard"}
    assert names == wanted
    info = load_model(killed_run / "model.safetensors").info
    assert info["recipes"][0]["train"] == 6
    assert info["steps"] == 60
    assert "CC0" in info["licence"]


def test_a_finished_run_is_not_overwritten(killed_run, corpus, command, assert_refused):
    result = command("train", *SETTINGS, "--corpus", corpus, "--out", killed_run)
    assert_refused(result, "add --resume to go on with it")


def test_the_trained_model_fits_a_scan_and_its_codes_give_the_mesh_again(killed_run, fitted, command, tmp_path):
    report = json.loads((fitted / "report.json").read_text())
    assert report["model"] == "killed"
    weights, mesh = killed_run / "model.safetensors", tmp_path / "again.ply"
    codes = fitted / "codes.safetensors"
    result = command("extract", codes, "--model", weights, "--resolution", "40", "--out", mesh)
    assert (result.code, result.out.partition(":")[0]) == (0, str(mesh))
    placed = read_mesh(fitted / "mesh.ply").vertices
    turn = np.array(report["alignment"]["to_canonical"])
    expected = placed @ turn[:3, :3].T + turn[:3, 3]
    np.testing.assert_allclose(read_mesh(mesh).vertices, expected, atol=1e-5)
    dense = tmp_path / "dense.obj"
    assert command("extract", codes, "--model", weights, "--resolution", "40", "--dense", "--out", dense).code == 0
    assert len(read_mesh(dense).vertices) == len(placed)


def test_codes_belong_to_their_model(fitted, command, tmp_path, assert_refused):
    result = command("extract", fitted / "codes.safetensors", "--out", tmp_path / "a.ply")
    assert_refused(result, "codes of the model killed, not of")


def test_new_heads_are_drawn_alike_for_equal_seeds(killed_run, command, tmp_path):
    for name, seed in (("one", 5), ("same", 5), ("other", 6)):
        words = ["--count", 2, "--seed", seed, "--resolution", 32, "--model", killed_run / "model.safetensors"]
        result = command("sample", *words, "--out", tmp_path / name)
        assert (result.code, result.out) == (0, f"2 heads in {tmp_path / name}, canonical frame, 1 unit = 200 mm\n")
    names = ["head_000.ply", "head_000.safetensors", "head_001.ply", "head_001.safetensors", "heads.png"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    one, same, other = ((tmp_path / name / "head_001.safetensors").read_bytes() for name in ("one", "same", "other"))
    assert one == same != other


def test_reconstruction_is_measured_and_a_finished_evaluation_is_not_done_again(killed_run, corpus, command, tmp_path):
    words = ["evaluate", "reconstruction", "--corpus", corpus, "--model", killed_run / "model.safetensors"]
    folder = tmp_path / "figures"
    words += ["--heads", 1, "--points", 500, "--steps", 3, "--resolution", 32, "--out", folder]
    first = command(*words)
    assert (first.code, first.err) == (0, "")
    assert first.out.strip() == (folder / "summary.md").read_text().strip()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["heads"], summary["methods"]["killed"]["failed"]) == (1, 0)
    rows = (folder / "killed" / "results.jsonl").read_bytes()
    assert command(*words) == first
    assert (folder / "killed" / "results.jsonl").read_bytes() == rows


def test_a_corpus_that_is_there_is_used_as_it_is(corpus, command):
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    result = command("corpus", "small", *COUNTS, "--out", corpus)
    assert result.code == 0
    assert "6 train, 0 validation, 1 test records of makehuman" in result.out
    assert before == {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
