"""implicit3dmm register: one topology for everybody."""

import numpy as np
import torch

from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import read_mesh
from implicit3dmm.models import load_model, save_codes


def test_codes_and_edited_heads_come_in_the_templates_topology(command, template, tmp_path, assert_refused):
    model = load_model("imhead")
    codes = model.prior.sample(1, generator=torch.Generator().manual_seed(3))
    save_codes(tmp_path / "a.safetensors", codes, model="imhead")
    assert command("extract", tmp_path / "a.safetensors", "--out", tmp_path / "a.ply", "--resolution", "64").code == 0
    result = command("register", tmp_path / "a.safetensors", "--out", tmp_path / "r.ply", "--resolution", "64")
    assert (result.code, result.err) == (0, "")
    assert "14642 vertices" in result.out
    registered, surface = (read_mesh(tmp_path / name) for name in ("r.ply", "a.ply"))
    assert np.array_equal(registered.faces, template.triangles)
    assert np.abs(distance_to_surface(registered.vertices, surface).distance).max() < 1e-4
    nose = registered.vertices[template.in_regions("nose")].mean(axis=0)
    assert np.linalg.norm(nose - template.vertices[template.in_regions("nose")].mean(axis=0)) < 0.1
    assert_refused(command("register", tmp_path / "a.safetensors", "--out", tmp_path / "r.txt"), ".txt")
