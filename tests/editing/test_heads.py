"""Heads to edit from codes, edits and scans; what an edit leaves on disk."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from implicit3dmm.editing import displacement_mm, open_head
from implicit3dmm.editing.files import save_edits
from implicit3dmm.errors import InputError
from implicit3dmm.fitting import FitConfig
from implicit3dmm.geometry.mesh import Mesh, read_mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.models import load_codes, load_head, save_codes, save_head
from implicit3dmm.resources import asset

RESOLUTION = 40


@pytest.fixture
def codes(model, tmp_path):
    """Two files of codes."""
    drawn = model.prior.sample(2, generator=torch.Generator().manual_seed(3))
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for number, path in enumerate(paths):
        save_codes(path, {name: table[number : number + 1] for name, table in drawn.items()}, model=model.name)
    return paths


def test_codes_give_the_head_in_the_canonical_frame(model, people, codes):
    head = open_head(codes[0], model)
    assert torch.equal(head.field.embeddings, people[0].embeddings)
    assert head.mm_per_unit == UNIT_MM
    assert np.array_equal(head.placement.matrix(), np.eye(4))


def test_an_edited_head_is_kept_bit_for_bit_and_can_be_edited_again(model, people, tmp_path):
    edited = people[0].with_part("nose", people[1])
    save_head(tmp_path / "head.safetensors", edited, model=model.name)
    again = load_head(tmp_path / "head.safetensors", model)
    assert torch.equal(again.embeddings, edited.embeddings)
    assert torch.equal(again.anchors, edited.anchors)
    back = open_head(tmp_path / "head.safetensors", model).field.with_part("nose", people[0])
    assert torch.equal(back.embeddings, people[0].embeddings)
    with pytest.raises(InputError, match="needs codes 'identity'"):
        model.condition(load_codes(tmp_path / "head.safetensors", model))


@pytest.mark.usefixtures("no_tries")
def test_a_scan_is_fitted_and_its_frame_kept(model):
    scan = read_mesh(asset("example_scan.ply"))
    head = open_head(asset("example_scan.ply"), model, config=FitConfig(points=1500, steps=3))
    mesh, _ = head.mesh(model, head.field, resolution=RESOLUTION)
    low, high = np.percentile(scan.vertices, [5, 95], axis=0)
    middle = mesh.vertices.mean(axis=0)
    assert ((middle > low) & (middle < high)).all()


def test_what_is_no_head_is_not_edited(model, monkeypatch):
    none = SimpleNamespace(is_head=False, report={"head": {"reason": "a cube has no nose"}})
    monkeypatch.setattr("implicit3dmm.editing.heads.fit", lambda *_, **__: none)
    with pytest.raises(InputError, match="no head was found; a cube has no nose; give another scan"):
        open_head("cube.ply", model)


def test_codes_of_another_model_are_refused_by_name(model, codes, tmp_path):
    save_codes(tmp_path / "c.safetensors", {"identity": torch.zeros(1, 256)}, model="other")
    with pytest.raises(InputError, match="holds codes of the model other, not of imhead"):
        open_head(tmp_path / "c.safetensors", model)


def test_displacement_is_signed_and_in_millimetres(template):
    before = template.mesh
    after = Mesh(before.vertices + 0.01 * before.vertex_normals(), before.faces)
    assert np.median(displacement_mm(after, before, mm_per_unit=200)) == pytest.approx(2, rel=0.02)
    assert np.median(displacement_mm(before, after, mm_per_unit=200)) == pytest.approx(-2, rel=0.02)


def test_edits_leave_meshes_heads_picture_and_report(model, people, codes, tmp_path, monkeypatch):
    monkeypatch.setattr("implicit3dmm.editing.files._picture", lambda *_: np.zeros((4, 4, 3), np.uint8))
    before = open_head(codes[0], model)
    moved = Similarity(2.0, np.eye(3), np.array([5.0, 0.0, 0.0]))
    before = type(before)(before.field, moved, UNIT_MM / 2)
    edited = [people[0], people[0].with_part("nose", people[1])]
    report = save_edits(tmp_path / "out", model, before, edited, about={"edit": "swap"}, resolution=RESOLUTION)
    names = {"before.ply", "picture.png", "report.json"}
    names |= {f"edit_00{i}.{kind}" for i in (0, 1) for kind in ("ply", "safetensors")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    same, nose = report["edits"]
    assert (same["moved_share"], same["most_mm"]) == (0, 0)
    assert 0 < nose["moved_share"] < 0.2
    assert nose["most_mm"] > 1
    assert read_mesh(tmp_path / "out/before.ply").vertices[:, 0].mean() == pytest.approx(5, abs=0.1)
    assert "displacement_mm" in (tmp_path / "out/edit_001.ply").read_bytes()[:600].decode(errors="ignore")


def test_a_field_without_local_embeddings_cannot_be_kept_as_a_head(tmp_path):
    class Plain:
        state = None

    with pytest.raises(InputError, match="no local embeddings"):
        save_head(tmp_path / "x.safetensors", Plain(), model="deepsdf")
    assert not (tmp_path / "x.safetensors").exists()
