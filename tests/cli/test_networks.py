"""Networks of registered heads from the command line: trained, compared, followed, dragged; and what is refused."""

import json
import pickle
from functools import partial

import numpy as np
import pytest
import torch
import trimesh
from safetensors.torch import load_file

from implicit3dmm.data.corpus import open_heads
from implicit3dmm.evaluation.verification import VerifierConfig
from implicit3dmm.geometry.mesh import Mesh, read_mesh, write_mesh
from implicit3dmm.geometry.similarity import fit_similarity
from implicit3dmm.mesh_models.model import load_network

RECIPE = "seed: 4\ntrain: 6\ntest: 2\nexpressions: [neutral, smile]\n"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A recipe and two of its heads as registered meshes."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "people.yaml").write_text(RECIPE)
    heads = open_heads(folder / "people.yaml")
    for number, record in enumerate((12, 14)):
        mesh = heads.mesh(record)
        write_mesh(folder / f"{number}.ply", Mesh(200 * mesh.vertices, mesh.faces))
    return folder


@pytest.fixture
def model(work, command):
    """A network of three steps, made once."""
    folder = work / "lamm"
    if not folder.exists():
        words = ("train", "lamm/tiny", "training.steps=3", "network.learning.task=control", "--corpus")
        result = command(*words, work / "people.yaml", "--out", folder)
        torch.set_flush_denormal(False)
        assert (result.code, result.err) == (0, "")
        assert "compare with 'implicit3dmm evaluate compare'" in result.out
    return folder / "model.safetensors"


def test_a_network_is_compared_and_followed(work, command, model, tmp_path):
    words = ("--corpus", work / "people.yaml", "--model", model)
    result = command("evaluate", "compare", *words, "--heads", 1, "--out", tmp_path / "table")
    assert (result.code, result.err) == (0, "")
    assert "| lamm  | vertices | 6 makehuman under 2 expressions |" in result.out
    result = command("evaluate", "control", *words, "--regions", "nose", "--out", tmp_path / "control")
    assert (result.code, result.err) == (0, "")
    assert json.loads((tmp_path / "control/summary.json").read_text())["local"]["lamm"]["nose"]["inside"]["count"] == 2


def test_a_network_is_trained_on_a_folder_in_lamms_layout_and_drawn_from(command, tmp_path, assert_refused):
    folder, sphere = tmp_path / "meshes", trimesh.creation.icosphere(subdivisions=2)
    folder.mkdir()
    places, faces = np.asarray(sphere.vertices), np.asarray(sphere.faces)
    for name, size in (("template", 1.0), ("a", 1.1), ("b", 0.9)):
        write_mesh(folder / f"{name}.obj", Mesh(size * places, faces))
    (folder / "paths_train.csv").write_text("a.obj\nb.obj\n")
    (folder / "mean_std.pickle").write_bytes(pickle.dumps({"mm_mult": 100.0}))
    halves = {"low": np.flatnonzero(places[:, 1] < 0), "high": np.flatnonzero(places[:, 1] >= 0)}
    (folder / "region_ids.pickle").write_bytes(pickle.dumps(halves))
    words = ("train", "lamm/tiny", "training.steps=2", "--corpus", folder, "--out")
    result = command(*words, tmp_path / "run")
    torch.set_flush_denormal(False)
    assert (result.code, result.err) == (0, "")
    model = tmp_path / "run/model.safetensors"
    assert command("sample", "--model", model, "--count", 1, "--temperature", 0, "--out", tmp_path / "drawn").code == 0
    assert np.linalg.norm(read_mesh(tmp_path / "drawn/head_000.ply").vertices, axis=1).max() < 2
    refused = command("evaluate", "compare", "--corpus", folder, "--model", model, "--out", tmp_path / "table")
    assert_refused(
        refused, "is in LAMM's layout, which only 'implicit3dmm train' of networks of registered heads reads"
    )
    (folder / "region_ids.pickle").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert_refused(command(*words, tmp_path / "other"), "asks for os.system, which is no plain array or number")
    assert not (tmp_path / "other").exists()


def test_a_head_is_dragged_by_hand_towards_another_and_at_random(work, command, model, tmp_path, monkeypatch):
    monkeypatch.setattr("implicit3dmm.editing.files._picture", lambda *_: np.zeros((4, 4, 3), np.uint8))
    words = ("edit", "drag", work / "0.ply", "--model", model, "--out")
    assert command(*words, tmp_path / "hand", "--move", "nose=0,0,5", "mouth/1=0,-2,0").code == 0
    assert command(*words, tmp_path / "other", "--towards", work / "1.ply", "--part", "nose").code == 0
    assert command(*words, tmp_path / "drawn", "--draw", "2", "--part", "chin", "--seed", "3").code == 0
    before = read_mesh(tmp_path / "hand/before.ply").vertices
    np.testing.assert_allclose(before, read_mesh(work / "0.ply").vertices, atol=1e-3)
    for name in ("hand/edit_000.ply", "other/edit_000.ply", "drawn/edit_001.ply"):
        assert not np.array_equal(read_mesh(tmp_path / name).vertices, before)
    report = json.loads((tmp_path / "hand/report.json").read_text())
    assert report["moves"] == ["nose=0,0,5", "mouth/1=0,-2,0"]
    assert report["mm_per_unit"] == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give either --move, or --towards with --part, or --draw with --part"),
        (("--move", "nose=0,0,5", "--draw", "1"), "give either --move"),
        (("--move", "nose"), "'nose' is no move; a name and three numbers in mm, such as nose=0,0,5, expected"),
        (("--move", "beard=0,0,5"), "no region 'beard'; there are nose, mouth"),
        (("--draw", "1", "--part", "beard"), "no region 'beard'"),
    ],
)
def test_drags_that_mean_nothing_are_refused(work, command, model, tmp_path, assert_refused, options, message):
    result = command("edit", "drag", work / "0.ply", "--model", model, "--out", tmp_path / "out", *options)
    assert_refused(result, message)
    assert not (tmp_path / "out").exists()


def test_files_and_corpora_of_other_kinds_are_refused(work, command, model, tmp_path, assert_refused):
    people = work / "people.yaml"
    result = command("train", "lamm/tiny", "--corpus", people, people, "--out", tmp_path / "out")
    assert_refused(result, "2 corpora given; a network of registered heads takes one; give one")
    result = command(
        "edit", "drag", work / "0.ply", "--model", "parts", "--move", "nose=0,0,1", "--out", tmp_path / "out"
    )
    assert_refused(result, "holds no network of registered heads")
    result = command("fit", work / "0.ply", "--model", model, "--out", tmp_path / "out")
    assert_refused(result, "holds a model of registered heads, which reads no scans")


def test_heads_are_drawn_with_their_codes(command, model, tmp_path, assert_refused):
    words = ("sample", "--model", model, "--count", 2, "--out")
    for name, options in {"mean": ("--temperature", 0), "first": (), "again": ()}.items():
        assert command(*words, tmp_path / name, *options).code == 0
    mean, *drawn = (read_mesh(tmp_path / name / "head_001.ply").vertices for name in ("mean", "first", "again"))
    np.testing.assert_array_equal(*drawn)
    assert not np.array_equal(drawn[0], mean)
    loaded = load_network(model)
    codes = load_file(tmp_path / "first/head_001.safetensors")["head"].numpy()
    np.testing.assert_allclose(loaded.decode(codes)[0], drawn[0], atol=1e-6)
    refused = command(*words, tmp_path / "no", "--expressions", 1)
    assert_refused(refused, "draws people and their expressions together; leave --expressions out")


@pytest.fixture
def decoupled(work, command):
    """An adversarial model of three steps, made once."""
    folder = work / "adversarial"
    if not folder.exists():
        words = ("train", "adversarial/tiny", "training.steps=3", "--corpus", work / "people.yaml", "--out", folder)
        result = command(*words)
        torch.set_flush_denormal(False)
        assert (result.code, result.err) == (0, "")
        assert "images of 16 pixels a side show" in result.out
    return folder / "model.safetensors"


def test_heads_can_share_a_factor(command, decoupled, tmp_path, assert_refused):
    words = ("sample", "--model", decoupled, "--count", 3, "--out")
    assert command(*words, tmp_path / "people", "--same", "identity").code == 0
    codes = torch.cat([load_file(tmp_path / f"people/head_00{number}.safetensors")["head"] for number in range(3)])
    place = load_network(decoupled).network.place("identity")
    assert torch.equal(codes[1:, place], codes[:1, place].expand(2, -1))
    assert not torch.equal(codes[1, place.stop :], codes[0, place.stop :])
    refused = command(*words, tmp_path / "no", "--same", "age")
    assert_refused(refused, "no factor 'age'; there are identity, expression, noise")
    assert_refused(command("sample", "--same", "identity", "--out", tmp_path / "no"), "--same identity is for networks")


def test_drawn_heads_can_be_edited_and_made_again_from_their_codes(work, command, decoupled, tmp_path, monkeypatch):
    monkeypatch.setattr("implicit3dmm.editing.files._picture", lambda *_: np.zeros((4, 4, 3), np.uint8))
    assert command("sample", "--model", decoupled, "--count", 1, "--out", tmp_path / "drawn").code == 0
    codes = tmp_path / "drawn/head_000.safetensors"
    assert command("extract", codes, "--model", decoupled, "--out", tmp_path / "again.ply").code == 0
    drawn = read_mesh(tmp_path / "drawn/head_000.ply").vertices
    np.testing.assert_allclose(read_mesh(tmp_path / "again.ply").vertices, drawn, atol=1e-6)
    words = ("edit", "transfer", codes, work / "1.ply", "--model", decoupled, "--out", tmp_path / "out")
    assert command(*words).code == 0
    np.testing.assert_allclose(read_mesh(tmp_path / "out/before.ply").vertices, drawn, atol=1e-6)


def test_a_training_goes_on_from_a_trained_model(work, command, decoupled, tmp_path):
    words = ("train", "adversarial/tiny", "training.steps=2", "--corpus", work / "people.yaml", "--from", decoupled)
    assert command(*words, "--out", tmp_path / "further").code == 0
    torch.set_flush_denormal(False)


def test_a_factor_is_transferred(work, command, model, decoupled, tmp_path, monkeypatch, assert_refused):
    monkeypatch.setattr("implicit3dmm.editing.files._picture", lambda *_: np.zeros((4, 4, 3), np.uint8))
    words = ("edit", "transfer", work / "0.ply", work / "1.ply", "--out", tmp_path / "out")
    assert command(*words, "--model", decoupled, "--factor", "identity").code == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert (report["factor"], report["how"], report["model"]) == ("identity", "replace", "adversarial")
    assert report["edits"][0]["moved_share"] > 0.1
    assert_refused(command(*words, "--model", model, "--factor", "identity"), "has one code for everything")
    assert_refused(command(*words, "--factor", "identity"), "imhead transfers expressions")


def test_factors_are_evaluated(work, command, decoupled, tmp_path, monkeypatch, assert_refused):
    monkeypatch.setattr("implicit3dmm.evaluation.decoupling._picture", lambda *_: np.zeros((4, 4, 3), np.uint8))
    quick = partial(VerifierConfig, steps=2, labels=2, heads=2, pairs=10)
    monkeypatch.setattr("implicit3dmm.evaluation.verification.VerifierConfig", quick)
    counts = ("--pairs", 4, "--faces", 2, "--variants", 2, "--specimens", 3)
    words = (
        "evaluate",
        "decoupling",
        "--corpus",
        work / "people.yaml",
        "--model",
        decoupled,
        "--out",
        tmp_path / "out",
    )
    result = command(*words, *counts)
    assert (result.code, result.err) == (0, "")
    assert "| adversarial    |" in result.out
    figures = json.loads((tmp_path / "out/summary.json").read_text())["figures"]
    assert figures["adversarial"]["specificity"]["count"] == 3
    assert figures["training heads"]["same identity, %"]["count"] == 2
    with monkeypatch.context() as untouched:
        untouched.setattr("implicit3dmm.evaluation.decoupling.decoupling_figures", None)
        assert command(*words, *counts).out == result.out
    assert_refused(command(*words, "--pairs", 0), "pairs is 0")


def test_heads_are_found_from_their_landmarks(work, command, model, decoupled, tmp_path, assert_refused):
    words = ("evaluate", "landmarks", "--corpus", work / "people.yaml", "--subjects", 1, "--out", tmp_path / "out")
    result = command(*words, "--model", decoupled, model, "--weights", 1, 1000)
    assert (result.code, result.err) == (0, "")
    tables = json.loads((tmp_path / "out/summary.json").read_text())
    for rows in tables.values():
        assert rows["1.0"]["landmarks"]["mean"] < rows["1000.0"]["landmarks"]["mean"]
        assert rows["1.0"]["length"]["mean"] > rows["1000.0"]["length"]["mean"]
    assert command(*words, "--model", decoupled, model, "--weights", 1, 1000).out == result.out
    for wrong in (-1, "nan", "inf"):
        assert_refused(command(*words, "--weights", wrong), "give one or more of at least 0")


def test_registered_heads_are_interpolated(work, command, model, tmp_path, monkeypatch, assert_refused):
    monkeypatch.setattr("implicit3dmm.editing.files._picture", lambda *_: np.zeros((4, 4, 3), np.uint8))
    words = ("edit", "interpolate", work / "0.ply", work / "1.ply", "--out", tmp_path / "out", "--model", model)
    assert command(*words, "--shares", 0, 0.5, 1).code == 0
    start, half, end = (read_mesh(tmp_path / f"out/edit_00{number}.ply").vertices for number in range(3))
    np.testing.assert_allclose(start, read_mesh(tmp_path / "out/before.ply").vertices, atol=1e-3)
    placed = fit_similarity(read_mesh(work / "1.ply").vertices, end).apply(read_mesh(work / "1.ply").vertices)
    np.testing.assert_allclose(end, placed, atol=1e-2)
    assert 0 < np.abs(half - start).max() < np.abs(end - start).max()
    assert_refused(command(*words, "--part", "nose"), "take parts by 'edit drag --towards' instead")
