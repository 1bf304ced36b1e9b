"""Expressions from the command line: several scans of one person, sequences, and edits by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from implicit3dmm.cli import run
from implicit3dmm.geometry.mesh import read_mesh
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.models import load_codes, load_model
from implicit3dmm.resources import asset

COARSE = ["--resolution", "40"]
QUICK = [*COARSE, "--steps", "6"]


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch, no_picture):
    monkeypatch.setattr("implicit3dmm.editing.files._picture", lambda *_: np.zeros((4, 4, 3), np.uint8))


@pytest.fixture(scope="module")
def smile(tmp_path_factory) -> Path:
    """2000 points of the shipped scan with an expression."""
    path = tmp_path_factory.mktemp("scan") / "smile.npy"
    mesh = read_mesh(asset("example_expression.ply"))
    np.save(path, sample_surface(mesh, 2000, rng=np.random.default_rng(0)).points)
    return path


@pytest.fixture(scope="module")
def fitted(smile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit") / "out"
    assert run(["fit", str(smile), "--out", str(folder), *QUICK]) == 0
    return folder


def test_the_report_names_the_expression(fitted):
    weights = json.loads((fitted / "report.json").read_text())["expression"]
    assert weights["mouthSmileLeft"] > 0.2
    assert weights["mouthSmileRight"] > 0.2


@pytest.mark.usefixtures("no_tries")
def test_a_broken_frame_of_a_sequence_is_reported_and_the_others_are_fitted(command, smile, fitted, tmp_path):
    broken, again = tmp_path / "broken.ply", tmp_path / "again.npy"
    broken.write_bytes(b"ply\n")
    shutil.copy(smile, again)
    codes = fitted / "codes.safetensors"
    out = tmp_path / "out"
    done = command("fit", smile, broken, again, "--out", out, "--identity", "sequence", "--known", codes, *QUICK)
    assert done.code == 2
    assert f"{broken}: " in done.err
    assert sorted(path.name for path in out.iterdir()) == ["again", "smile"]
    model = load_model("imhead")
    known, found = (load_codes(path, model) for path in (codes, out / "again" / "codes.safetensors"))
    assert (known["identity"] - found["identity"]).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--identity", "shared", "--known", "CODES"], "known codes leave nothing to share"),
        (["--identity", "sequence", "--model", "imhead-neutral"], "imhead-neutral has no expressions to follow"),
    ],
)
def test_options_that_do_not_go_together_are_refused(command, smile, fitted, tmp_path, arguments, message):
    arguments = [str(fitted / "codes.safetensors") if text == "CODES" else text for text in arguments]
    done = command("fit", smile, asset("example_scan.ply"), "--out", tmp_path / "out", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_edits_by_name_and_from_another_head(command, fitted, tmp_path):
    done = command("edit", "express", fitted, "--out", tmp_path / "sad", "--weights", "sadness=0.8", *COARSE)
    assert done.code == 0, done.err
    head = tmp_path / "sad" / "edit_000.safetensors"
    done = command("edit", "transfer", head, fitted, "--out", tmp_path / "both", "--how", "add", *COARSE)
    assert done.code == 0, done.err
    done = command("edit", "mirror", head, "--out", tmp_path / "mirror", "--part", "ears_L", *COARSE)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["express", "--weights", "grin"], "imhead has no expression 'grin'; there are neutral, smile"),
        (["express", "--weights", "smile=much"], "the weight of smile is 'much'; expected a number"),
        (["mirror", "--part", "ears"], "'ears' names none; give it as ears_L or ears_R"),
        (["swap", "DONOR", "--part", "moustache"], "imhead has no part 'moustache'; its parts are"),
    ],
)
def test_unknown_names_list_the_right_ones(command, fitted, tmp_path, arguments, message):
    kind, *rest = [str(fitted) if text == "DONOR" else text for text in arguments]
    done = command("edit", kind, fitted, *rest, "--out", tmp_path / "out")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()
