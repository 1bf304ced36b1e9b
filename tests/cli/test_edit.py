"""implicit3dmm edit: swaps, draws and ways between heads, and what is refused."""

import json

import numpy as np
import pytest

from implicit3dmm.geometry.mesh import read_mesh

MODEL = "imhead-neutral"
QUICK = ("--model", MODEL, "--resolution", "40")


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch):
    monkeypatch.setattr("implicit3dmm.editing.files._picture", lambda *_: np.zeros((4, 4, 3), np.uint8))


@pytest.fixture
def heads(command, tmp_path, monkeypatch):
    """Codes of two heads."""
    import torch

    from implicit3dmm.models import load_model, save_codes

    model = load_model(MODEL)
    codes = model.prior.sample(2, generator=torch.Generator().manual_seed(3))
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for number, path in enumerate(paths):
        save_codes(path, {name: table[number : number + 1] for name, table in codes.items()}, model=MODEL)
    return paths


def report(folder):
    return json.loads((folder / "report.json").read_text())


def test_parts_are_swapped_and_the_result_is_a_head_to_go_on_from(command, heads, tmp_path):
    result = command("edit", "swap", *heads, "--out", tmp_path / "one", "--part", "nose", "ears_L", *QUICK)
    assert (result.code, result.err) == (0, "")
    assert "edit_000.ply: " in result.out
    assert report(tmp_path / "one")["parts"] == ["nose", "ears_L"]
    back = ("--part", "nose", "ears_L", *QUICK)
    assert (
        command("edit", "swap", tmp_path / "one/edit_000.safetensors", heads[0], "--out", tmp_path / "two", *back).code
        == 0
    )
    assert report(tmp_path / "two")["edits"][0]["moved_share"] > 0
    first, last = (read_mesh(path) for path in (tmp_path / "one/before.ply", tmp_path / "two/edit_000.ply"))
    assert np.array_equal(first.vertices, last.vertices)
    result = command("extract", tmp_path / "one/edit_000.safetensors", "--out", tmp_path / "m.ply", *QUICK)
    assert result.code == 0
    assert np.array_equal(read_mesh(tmp_path / "m.ply").vertices, read_mesh(tmp_path / "one/edit_000.ply").vertices)


def test_parts_are_drawn(command, heads, tmp_path):
    words = ("edit", "sample", heads[0], "--part", "mouth", "--count", "2", *QUICK)
    assert command(*words, "--out", tmp_path / "one").code == 0
    assert command(*words, "--out", tmp_path / "other", "--given", "nothing", "--seed", "1").code == 0
    first, second = (entry["most_mm"] for entry in report(tmp_path / "one")["edits"])
    assert first != second
    assert report(tmp_path / "other")["given"] == "nothing"


def test_the_way_to_another_head_starts_and_ends_at_the_heads(command, heads, tmp_path):
    words = ("edit", "interpolate", *heads, "--shares", "0", "0.5", "1", *QUICK)
    assert command(*words, "--out", tmp_path / "whole").code == 0
    assert command(*words, "--out", tmp_path / "nose", "--part", "nose").code == 0
    assert command("extract", heads[1], "--out", tmp_path / "b.ply", *QUICK).code == 0
    start, middle, end = report(tmp_path / "whole")["edits"]
    assert start["most_mm"] < 0.01
    assert start["moved_share"] < middle["moved_share"] <= end["moved_share"]
    np.testing.assert_allclose(
        read_mesh(tmp_path / "whole/edit_002.ply").vertices, read_mesh(tmp_path / "b.ply").vertices, atol=1e-4
    )
    assert report(tmp_path / "nose")["edits"][2]["moved_share"] < 0.2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("swap", "a", "b", "--part", "hair"), "no part 'hair'; its parts are nose, mouth, eyes"),
        (("sample", "a", "--part", "nose", "--count", "0"), "give at least 1 part"),
        (("sample", "a", "--part", "nose", "--temperature", "-1"), "give at least 1 part"),
        (("interpolate", "a", "b", "--shares"), "no share is given"),
        (("swap", "a", "missing", "--part", "nose"), "missing.safetensors"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(command, heads, tmp_path, assert_refused, words, why):
    kind, *rest = words
    files = [tmp_path / f"{word}.safetensors" if word in ("a", "b", "missing") else word for word in rest]
    assert_refused(command("edit", kind, *files, "--out", tmp_path / "out", *QUICK), why)
    assert not (tmp_path / "out").exists()
