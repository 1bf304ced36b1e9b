"""One table over models that read vertices and models that read points."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from implicit3dmm.config import load_config
from implicit3dmm.data.heads import Heads
from implicit3dmm.data.npz import read_npz
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import HeldOut
from implicit3dmm.evaluation.compare import cost, evaluate_compare
from implicit3dmm.evaluation.references import is_reference, open_reference
from implicit3dmm.fitting import FitConfig
from implicit3dmm.mesh_models.pca import PCAModel, save_pca
from implicit3dmm.mesh_models.training import MeshRunConfig, MeshTrainer
from implicit3dmm.resources import config_file


@pytest.fixture(scope="module")
def heads() -> Heads:
    return Heads(Recipe(seed=4, train=8, test=2, expressions=("neutral", "smile")), name="people")


@pytest.fixture(scope="module")
def files(heads, tmp_path_factory):
    """Principal components that know the people but no smile, and a network that has learnt next to nothing."""
    folder, threads = tmp_path_factory.mktemp("models"), torch.get_num_threads()
    save_pca(folder / "pca.safetensors", PCAModel.of(heads, components=7, name="pca"))
    settings = load_config(MeshRunConfig, config_file("", "lamm/tiny"), ["training.steps=2"])
    MeshTrainer(settings, heads, folder / "lamm").train()
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
    return folder / "pca.safetensors", folder / "lamm" / "model.safetensors"


@pytest.fixture(scope="module")
def table(heads, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    return folder, evaluate_compare(
        heads, list(map(str, files)), folder=folder, held_out=HeldOut(heads=2, samples=2000)
    )


def test_rows_say_what_was_read_and_components_have_two(table):
    rows = [(row.name, row.reads) for row in table[1]]
    assert rows == [("pca", "vertices"), ("pca", "points"), ("lamm", "vertices"), ("mean head", "")]
    text = (table[0] / "summary.md").read_text()
    assert text.count("| pca ") == 3  # read twice, and once by region
    assert "over 4 heads" in text
    assert "over 2 heads" in text


def test_distances_of_vertices_are_those_of_the_whole_split_a_subject_at_a_time(heads, files, table):
    test = RegisteredHeads.of(heads, "test")
    reference = open_reference(files[0])
    away = 200 * np.linalg.norm(reference.reconstruct(test.vertices) - test.vertices, axis=-1).mean(1)
    whole = table[1][0].vertex_mm["whole_head"]
    assert whole.mean == pytest.approx(away.mean(), rel=1e-5)
    assert whole.count == 2


def test_vertices_have_errors_of_their_own_that_a_file_keeps(heads, files, table):
    test = RegisteredHeads.of(heads, "test")
    for number, path in ((0, files[0]), (2, files[1])):
        row, reference = table[1][number], open_reference(path)
        away = 200 * np.linalg.norm(reference.reconstruct(test.vertices) - test.vertices, axis=-1).astype(np.float64)
        kept = read_npz(table[0] / f"vertices/{row.name}/errors_test.npz", ("by_vertex", "by_head"))
        np.testing.assert_allclose(kept["by_vertex"], away.mean(0), rtol=1e-5)
        nose = heads.source.template.in_regions("nose")
        assert row.vertex_mm["nose"].mean == pytest.approx(away[:, nose].mean(), rel=1e-5)
    text = (table[0] / "summary.md").read_text()
    assert text.count(f"{table[1][2].vertex_mm['cheek_R'].mean:.2f} |") >= 1
    assert "| model | nose | mouth | eye_L |" in text.replace("  ", " ").replace("  ", " ")
    with Image.open(table[0] / "vertices.png") as picture:
        assert picture.width > 2 * 250


def test_a_run_goes_on_with_the_errors_of_vertices_that_it_kept(heads, files, table, tmp_path):
    shutil.copytree(table[0], tmp_path / "copy")
    kept = tmp_path / "copy/vertices/lamm/errors_test.npz"
    arrays = read_npz(kept, ("by_vertex", "by_head"))
    np.savez(kept, **arrays | {"by_head": arrays["by_head"] + 1})
    settings = dict(folder=tmp_path / "copy", held_out=HeldOut(heads=2, samples=2000))
    row = evaluate_compare(heads, [str(files[1])], **settings)[0]
    assert row.vertex_mm["face"].mean == pytest.approx(table[1][2].vertex_mm["face"].mean + 1)
    np.savez(kept, **arrays | {"by_head": arrays["by_head"][1:]})
    with pytest.raises(InputError, match=r"errors_test\.npz is of other heads; remove it, and it is made again"):
        evaluate_compare(heads, [str(files[1])], **settings)
    kept.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"errors_test\.npz is damaged .*; remove it"):
        evaluate_compare(heads, [str(files[1])], **settings)


def test_loose_points_of_a_head_at_rest_cost_more_and_sizes_are_those_of_the_files(files, table):
    _, (vertices, points, lamm, nothing) = table
    assert vertices.surface_mm["face"].mean < nothing.surface_mm["face"].mean
    assert points.cost.fit_seconds > 10 * vertices.cost.fit_seconds
    assert points.vertex_mm is None
    assert lamm.file_mb == pytest.approx(files[1].stat().st_size / 1e6)
    assert lamm.latent_size == 8
    assert all(row.cost.peak_mb > 100 for row in (vertices, points, lamm))


def test_a_run_goes_on_and_other_settings_are_refused(heads, files, table):
    folder, rows = table
    again = evaluate_compare(heads, [str(files[1])], folder=folder, held_out=HeldOut(heads=2, samples=2000))
    assert again[0].surface_mm["face"].mean == rows[2].surface_mm["face"].mean
    with pytest.raises(InputError, match="holds results of other settings"):
        evaluate_compare(heads, [str(files[1])], folder=folder, held_out=HeldOut(heads=2, samples=500))


def test_models_of_one_name_and_foreign_files_are_refused(heads, files, tmp_path):
    twin = tmp_path / "pca.safetensors"
    twin.write_bytes(files[0].read_bytes())
    with pytest.raises(InputError, match="models called pca, pca given; give models of different names"):
        evaluate_compare(heads, [str(files[0]), str(twin)], folder=tmp_path / "out", held_out=HeldOut())
    assert is_reference(files[0])
    assert is_reference(files[1])
    assert not is_reference(tmp_path / "nothing.safetensors")


def test_a_cost_is_measured_from_vertices(heads, files):
    threads = torch.get_num_threads()
    spent = cost(files[1], "vertices", heads.head(0).vertices, FitConfig(), 64)
    torch.set_num_threads(threads)
    assert 0 < spent.decode_ms < 1000
