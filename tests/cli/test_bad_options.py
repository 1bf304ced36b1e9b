"""Weights, codes, configs, options and folders that cannot be used are refused in one line and leave nothing behind."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from implicit3dmm.resources import asset

WEIGHTS = asset("models/imhead.safetensors")


def cut(path):
    path.write_bytes(WEIGHTS.read_bytes()[:100_000])


def foreign(path):
    save_file({"weight": torch.zeros(3)}, path)


def newer(path):
    header = {"format": "implicit3dmm-model", "version": 99, "field": {}, "info": {}}
    save_file({"weight": torch.zeros(3)}, path, {"implicit3dmm": json.dumps(header)})


def headless(path):
    save_file({"weight": torch.zeros(3)}, path, {"implicit3dmm": json.dumps({"format": "implicit3dmm-model"})})


def unknown_field(path):
    header = {"format": "implicit3dmm-model", "version": 1, "field": {"name": "nerf"}, "info": {}}
    save_file({"weight": torch.zeros(3)}, path, {"implicit3dmm": json.dumps(header)})


def weightless(path):
    header = {"format": "implicit3dmm-model", "version": 1, "field": {"name": "deepsdf"}, "info": {"name": "a"}}
    save_file({"weight": torch.zeros(3)}, path, {"implicit3dmm": json.dumps(header)})


def pickled(path):
    torch.save({"weight": torch.zeros(3)}, path)


def text(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def empty(path):
    path.touch()


BAD_WEIGHTS = {
    cut: "no whole safetensors file",
    empty: "no whole safetensors file",
    text: "no whole safetensors file",
    pickled: "no whole safetensors file",
    foreign: "no model of this project",
    newer: "format version 99",
    headless: "lacks a part of its header",
    unknown_field: "no architecture 'nerf'",
    weightless: "lacks weights of its own architecture",
}


@pytest.mark.parametrize("make", BAD_WEIGHTS, ids=lambda make: make.__name__)
def test_weights_that_are_none_are_refused(command, tmp_path, scan, untouched, assert_refused, make):
    make(tmp_path / "model.safetensors")
    untouched.note()
    result = command("fit", scan, "--out", tmp_path / "out", "--model", tmp_path / "model.safetensors")
    assert_refused(result, BAD_WEIGHTS[make])
    untouched.check()


@pytest.mark.parametrize("make", [cut, empty, text, foreign], ids=lambda make: make.__name__)
def test_codes_that_are_none_are_refused(command, tmp_path, untouched, assert_refused, make):
    make(tmp_path / "codes.safetensors")
    untouched.note()
    assert_refused(command("extract", tmp_path / "codes.safetensors", "--out", tmp_path / "a.ply"), "codes")
    untouched.check()


def test_codes_of_another_model_are_refused_with_its_name(command, tmp_path, assert_refused):
    save_file({"identity": torch.zeros(1, 3)}, tmp_path / "codes.safetensors", {"model": "other"})
    result = command("extract", tmp_path / "codes.safetensors", "--out", tmp_path / "a.ply")
    assert_refused(result, "codes of the model other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "imhaed"], "no model 'imhaed'; give a .safetensors file or one of adversarial, imhead"),
        (["--model", "none.safetensors"], "no model 'none.safetensors'"),
        (["--unit", "furlong"], "the unit is 'furlong'; auto, mm, cm, m"),
        (["--unit", "0"], "the unit is 0"),
        (["--unit", "nan"], "the unit is nan"),
        (["--steps", "0"], "steps"),
        (["--seed", "-1"], "seed is -1"),
        (["--resolution", "0"], "the resolution is 0"),
        (["--transform", "none.txt"], "none.txt cannot be read: No such file or directory"),
        (["--landmarks", "none.json"], "none.json cannot be read: No such file or directory"),
    ],
    ids=" ".join,
)
def test_options_of_fit_that_cannot_be_are_refused(
    command, tmp_path, scan, untouched, assert_refused, options, message
):
    untouched.note()
    assert_refused(command("fit", scan, "--out", tmp_path / "out", *options), message)
    untouched.check()


def test_two_poses_are_refused(command, tmp_path, scan, untouched, assert_refused):
    np.savetxt(tmp_path / "pose.txt", np.eye(4))
    np.savetxt(tmp_path / "marks.txt", np.zeros((68, 3)))
    untouched.note()
    pose = ("--transform", tmp_path / "pose.txt", "--landmarks", tmp_path / "marks.txt")
    assert_refused(command("fit", scan, "--out", tmp_path / "out", *pose), "give one of them")
    untouched.check()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has what the test asks for in vain")
def test_cuda_is_refused_where_there_is_none(command, tmp_path, scan, assert_refused):
    assert_refused(command("fit", scan, "--out", tmp_path / "out", "--device", "cuda"), "use --device cpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["corpus", "small", "trian=3", "--out", "out"], "trian: unknown key; did you mean 'train'?"),
        (
            ["corpus", "smal", "--out", "out"],
            "no shipped config 'smal'; give a .yaml file or one of base, ",
        ),
        (["corpus", "none.yaml", "--out", "out"], "cannot read none.yaml"),
        (["corpus", "small", "source=mars", "--out", "out"], "no head source 'mars'"),
        (["corpus", "small", "train=many", "--out", "out"], "train"),
        (["corpus", "small", "train", "--out", "out"], "'train' is no override"),
        (["corpus", "small", "seed=-1", "--out", "out"], "seed is -1"),
        (["corpus", "small", "expressions=[smirk]", "--out", "out"], "smirk"),
        (["train", "imhead/tiny", "--corpus", "none", "--out", "out"], "no finished corpus"),
        (["train", "imhead/tinny", "--corpus", "none", "--out", "out"], "imhead/tiny"),
        (["train", "imhead/tiny", "training.stepz=3", "--corpus", "none", "--out", "out"], "did you mean 'steps'?"),
        (["train", "imhead/tiny", "training.steps=0", "--corpus", "none", "--out", "out"], "steps is 0"),
        (["train", "imhead/tiny", "field.name=nerf", "--corpus", "none", "--out", "out"], "nerf"),
        (["sample", "--count", "0", "--out", "out"], "count 0"),
        (["sample", "--temperature", "-1", "--out", "out"], "temperature -1"),
        (["sample", "--resolution", "0", "--out", "out"], "the resolution is 0"),
        (["sample", "--model", "none", "--out", "out"], "no model 'none'"),
        (["extract", "none.safetensors", "--out", "a.ply"], "none.safetensors is no whole file of codes"),
        (["extract", "none.safetensors", "--out", "a.foo"], "unknown suffix '.foo'"),
        (["evaluate", "reconstruction", "--corpus", "none", "--out", "out"], "no finished corpus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_other_commands_refuse_as_clearly(
    command, tmp_path, monkeypatch, untouched, assert_refused, words, message
):
    monkeypatch.chdir(tmp_path)
    assert_refused(command(*words), message)
    untouched.check()


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "{scan}", "--out"],
        ["sample", "--out"],
        ["corpus", "small", "--out"],
        ["train", "imhead/tiny", "--corpus", "{corpus}", "--out"],
        ["evaluate", "reconstruction", "--corpus", "{corpus}", "--out"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("place", ["file/out", "/proc/out"])
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    command, tmp_path, scan, tiny_corpus, monkeypatch, untouched, assert_refused, words, place
):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("work was begun")

    for work in ("torch.optim.Adam", "implicit3dmm.geometry.isosurface.marching_cubes"):
        monkeypatch.setattr(work, never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file, not a folder")
    untouched.note()
    given = [word.format(scan=scan, corpus=tiny_corpus.folder) for word in words]
    assert_refused(command(*given, place), f"cannot write into {place}")
    untouched.check()


def test_extract_needs_a_folder_that_is_there(command, tmp_path, untouched, assert_refused):
    assert command("sample", "--count", "1", "--resolution", "32", "--out", tmp_path / "made").code == 0
    untouched.note()
    codes = tmp_path / "made" / "head_000.safetensors"
    result = command("extract", codes, "--resolution", "32", "--out", tmp_path / "none" / "a.ply")
    assert_refused(result, "choose a folder that exists")
    untouched.check()


def test_a_corpus_with_too_few_points_stops_a_training_and_leaves_nothing(
    command, tmp_path, tiny_corpus, untouched, assert_refused
):
    settings = ["imhead/tiny", "training.surface_points=100000"]
    result = command("train", *settings, "--corpus", tiny_corpus.folder, "--out", tmp_path / "runs" / "a")
    assert_refused(result, "100000 points of each head asked for")
    untouched.check()


def test_a_folder_of_something_else_is_refused_and_kept(command, tmp_path, untouched, assert_refused):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("...")
    untouched.note()
    assert_refused(command("corpus", "small", "--out", tmp_path / "thesis"), "is not empty and holds no corpus")
    untouched.check()


def test_a_corpus_of_another_recipe_is_refused_and_kept(command, tmp_path, tiny_corpus, assert_refused):
    before = {path: path.stat().st_mtime_ns for path in tiny_corpus.folder.rglob("*")}
    assert_refused(command("corpus", "small", "--out", tiny_corpus.folder), "a corpus of another recipe")
    assert before == {path: path.stat().st_mtime_ns for path in tiny_corpus.folder.rglob("*")}
