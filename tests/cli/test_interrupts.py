"""Ctrl-C in the middle: one line, exit code 2, nothing half-written; what can go on later stays, and that is said."""

import os
import signal
import sys
from importlib import import_module

import numpy as np
import pytest

SMALL_SHARDS = """
import implicit3dmm.data.building, implicit3dmm.cli
implicit3dmm.data.building.SUBJECTS_PER_SHARD = 2
implicit3dmm.cli.main()
"""
QUICK = ("--model", "imhead-neutral", "--steps", "1", "--resolution", "32")
TINY_CORPUS = ["train=500", "surface_points=64", "distance_points=64", "validation=0", "test=0"]
LONG_RUN = ["imhead/tiny", "training.steps=1000000", "training.checkpoint_every=2", "training.log_every=1"]


@pytest.fixture
def interrupted(finish):
    """The result of a process after a signal."""

    def send(child, number=signal.SIGINT):
        child.send_signal(number)
        return finish(child)

    return send


def said(result):
    """What an interrupted program says; it must be one line and the exit code 2."""
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("implicit3dmm: interrupted; ")
    assert result.err.count("\n") == 1
    return result.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_fit_that_is_stopped_leaves_nothing(process, wait_for, interrupted, scan, tmp_path, untouched, number):
    untouched.note()
    child = process("fit", scan, "--out", "made/here", "--steps", "1000000")
    wait_for((tmp_path / "made" / "here").exists, child)
    assert "nothing half-written was left" in said(interrupted(child, number))
    untouched.check()


@pytest.mark.parametrize(
    "where", ["fitting.solver.geman_mcclure", "extraction.evaluate_in_chunks", "fitting.files.picture"]
)
def test_a_fit_that_is_stopped_at_any_stage_leaves_nothing(command, scan, tmp_path, untouched, monkeypatch, where):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    module, _, name = where.rpartition(".")
    monkeypatch.setattr(import_module(f"implicit3dmm.{module}"), name, stop)
    untouched.note()
    assert "nothing" in said(command("fit", scan, "--out", tmp_path / "out", *QUICK))
    untouched.check()


def test_finished_scans_stay_when_the_next_is_stopped(command, scan, tmp_path, monkeypatch, no_picture):
    np.save(scan.with_name("second.npy"), np.load(scan))
    module = import_module("implicit3dmm.fitting.job")
    solve, seen = module.solve_together, []

    def stop_at_second(*args: object, **options: object) -> object:
        seen.append(args)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return solve(*args, **options)

    monkeypatch.setattr(module, "solve_together", stop_at_second)
    result = command("fit", scan, scan.with_name("second.npy"), "--out", tmp_path / "out", *QUICK)
    assert result.code == 2
    assert "interrupted" in result.err
    assert os.listdir(tmp_path / "out") == ["person"]
    assert len(os.listdir(tmp_path / "out" / "person")) == 4


def test_samples_that_are_stopped_leave_nothing(command, tmp_path, untouched, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("implicit3dmm.render.grid", stop)
    untouched.note()
    said(command("sample", "--count", "1", "--resolution", "32", "--out", tmp_path / "out"))
    untouched.check()


def test_a_training_that_is_stopped_says_how_it_goes_on(process, wait_for, interrupted, tmp_path, tiny_corpus):
    child = process("train", *LONG_RUN, "--corpus", tiny_corpus.folder, "--out", "run")
    wait_for((tmp_path / "run" / "checkpoint.safetensors").exists, child)
    message = said(interrupted(child))
    assert "run keeps what is done: --resume goes on from the last checkpoint" in message
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"checkpoint.safetensors", "config.yaml", "metrics.jsonl", "tensorboard"}


def test_a_training_that_is_stopped_too_early_leaves_nothing(command, tmp_path, tiny_corpus, untouched, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("implicit3dmm.training.trainer.GradientWorkers.__call__", stop)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    untouched.note()
    result = command("train", "imhead/tiny", "--corpus", tiny_corpus.folder, "--out", tmp_path / "run")
    assert "too early to keep anything" in said(result)
    untouched.check()


def test_a_corpus_that_is_stopped_says_how_it_goes_on(process, wait_for, interrupted, tmp_path):
    child = process("corpus", "small", *TINY_CORPUS, "--out", "heads", program=(sys.executable, "-c", SMALL_SHARDS))
    wait_for((tmp_path / "heads" / "shard-0000").exists, child)
    assert "heads keeps what is done: the same command goes on" in said(interrupted(child))
    assert {path.name for path in (tmp_path / "heads").iterdir()} >= {"recipe.json", "shard-0000"}


def test_a_corpus_that_is_stopped_too_early_leaves_nothing(command, tmp_path, untouched, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("implicit3dmm.data.building._sample", stop)
    untouched.note()
    assert "too early" in said(command("corpus", "small", "--out", tmp_path / "made" / "heads"))
    untouched.check()


def test_a_stopped_corpus_goes_on_to_the_same_corpus(command, tmp_path, monkeypatch):
    monkeypatch.setattr("implicit3dmm.data.building.SUBJECTS_PER_SHARD", 2)
    module = import_module("implicit3dmm.data.building")
    sample, seen = module._sample, []

    def stop_at_fourth(*args: object) -> object:
        seen.append(args)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return sample(*args)

    words = ["corpus", "small", "train=5", "validation=0", "test=0", "surface_points=64", "distance_points=64"]
    monkeypatch.setattr(module, "_sample", stop_at_fourth)
    assert "goes on" in said(command(*words, "--out", tmp_path / "stopped"))
    assert command(*words, "--out", tmp_path / "stopped").code == 0
    assert len(seen) == 4 + 3  # the finished shard was not made again
    assert command(*words, "--out", tmp_path / "whole").code == 0
    stopped, whole = (tmp_path / name / "manifest.json" for name in ("stopped", "whole"))
    assert stopped.read_bytes() == whole.read_bytes()
