import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from safetensors.torch import load_file

from implicit3dmm.errors import InputError
from implicit3dmm.fitting import HeadFit
from implicit3dmm.fitting.evidence import Evidence
from implicit3dmm.fitting.files import picture, read_landmarks, read_transform, save_fit
from implicit3dmm.geometry.mesh import Mesh, read_mesh
from implicit3dmm.geometry.ply import read_ply
from implicit3dmm.geometry.similarity import Similarity

TURN = np.array([[0, -1, 0, 5], [1, 0, 0, -6], [0, 0, 1, 7], [0, 0, 0, 0.5]]) * 2.0
ROWS = np.random.default_rng(0).normal(size=(68, 3))


@pytest.fixture(scope="module")
def ball_fit():
    """A finished fit whose head is a ball, in millimetres, away from the origin."""
    ball = trimesh.creation.icosphere(subdivisions=3)
    to_canonical = Similarity(0.005, np.eye(3), np.array([-1.0, 0.0, 0.5]))
    mesh = Mesh(to_canonical.inverse().apply(0.5 * ball.vertices), ball.faces)
    report = {
        "model": "ball",
        "assumptions": ["one unit is 1 mm"],
        "error": {"scan_mean_mm": 1.0, "scan_median_mm": 1.0, "scan_p95_mm": 2.0},
        "alignment": {"score": float("nan")},
    }
    codes = {"identity": torch.arange(4.0)[None]}
    count = len(mesh.vertices)
    # Evidence on one side alone, 20 mm away on the other.
    away = np.where(ball.vertices[:, 0] > 0, 0.0, 20.0)
    evidence = Evidence(away, np.arange(count)[:, None], np.ones((count, 1)), None)
    return HeadFit(codes, to_canonical, mesh, mesh, np.zeros(count), evidence, np.zeros((68, 3)), True, report)


@pytest.fixture
def no_picture(monkeypatch):
    """A blank picture for tests that look at the other files; the true one takes seconds."""
    monkeypatch.setattr("implicit3dmm.fitting.files.picture", lambda _: np.zeros((4, 4, 3), np.uint8))


def write(path: Path, values: object) -> Path:
    if path.suffix == ".npy":
        np.save(path, np.asarray(values))
    elif path.suffix == ".json":
        path.write_text(json.dumps(values.tolist() if isinstance(values, np.ndarray) else values))
    else:
        np.savetxt(path, values)
    return path


@pytest.mark.parametrize("suffix", [".txt", ".npy", ".json"])
def test_a_transform_is_read_from_every_format(tmp_path, suffix):
    similarity = read_transform(write(tmp_path / f"pose{suffix}", TURN))
    assert similarity.scale == pytest.approx(2)
    np.testing.assert_allclose(similarity.apply(np.array([[1.0, 0, 0]])), [[10, -10, 14]])


@pytest.mark.parametrize("suffix", [".txt", ".npy", ".json"])
def test_landmarks_are_read_from_every_format_with_nan_for_unknown_ones(tmp_path, suffix):
    rows = ROWS.copy()
    rows[5] = np.nan
    np.testing.assert_array_equal(read_landmarks(write(tmp_path / f"marks{suffix}", rows)), rows)


def test_landmarks_of_json_may_be_null_or_numbered(tmp_path):
    listed = read_landmarks(write(tmp_path / "list.json", [[None] * 3, *ROWS[1:].tolist()]))
    assert np.isnan(listed[0]).all()
    np.testing.assert_array_equal(listed[1:], ROWS[1:])
    numbered = read_landmarks(write(tmp_path / "map.json", {"30": [1, 2, 3], "0": ROWS[0].tolist()}))
    np.testing.assert_array_equal(numbered[30], [1, 2, 3])
    np.testing.assert_array_equal(numbered[0], ROWS[0])
    assert np.isnan(numbered).any(axis=1).sum() == 66


BAD_FILES = {
    "empty.txt": b"",
    "empty.npy": b"",
    "empty.json": b"",
    "words.txt": b"one two three\n",
    "ragged.txt": b"1 2 3\n4 5\n",
    "binary.txt": bytes(range(256)),
    "text.npy": b"1 2 3",
    "text.json": b"1 2 3 four",
    "number.json": b"3",
    "words.json": b'[["a", "b", "c"]]',
    "ragged.json": b"[[1, 2, 3], [4, 5]]",
    "small.txt": b"1 2 3\n4 5 6\n",
    "null.json": b"null",
}


@pytest.mark.parametrize("read", [read_transform, read_landmarks])
@pytest.mark.parametrize("name", [*BAD_FILES, "objects.npy", "truncated.npy", "missing.txt", "folder.json"])
def test_unusable_files_are_refused_by_name_in_one_line(tmp_path, capfd, read, name):
    path = tmp_path / name
    if name in BAD_FILES:
        path.write_bytes(BAD_FILES[name])
    elif name == "objects.npy":
        np.save(path, np.array([[1, None]], dtype=object), allow_pickle=True)
    elif name == "truncated.npy":
        path.write_bytes(write(tmp_path / "whole.npy", ROWS).read_bytes()[:-8])
    elif name == "folder.json":
        path.mkdir()
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "shape"),
        (np.diag([1.0, 2, 1, 1]), "axis lengths"),
        (np.diag([-1.0, 1, 1, 1]), "mirroring"),
        (np.diag([1.0, 1, 1, 2]), "last row"),
        (np.full((4, 4), np.nan), "NaN"),
    ],
)
def test_a_matrix_that_is_no_similarity_is_refused(tmp_path, matrix, message):
    with pytest.raises(InputError, match=message):
        read_transform(write(tmp_path / "pose.npy", matrix))


@pytest.mark.parametrize(
    ("numbered", "message"),
    [
        ({"68": [1, 2, 3]}, "no landmark '68'"),
        ({"-1": [1, 2, 3]}, "no landmark '-1'"),
        ({"nose": [1, 2, 3]}, "no landmark 'nose'"),
        ({"3": 5.0}, "landmark 3"),
        ({"3": [1, 2]}, "landmark 3"),
        ({"3": {"x": 1}}, "landmark 3"),
    ],
)
def test_a_wrongly_numbered_landmark_is_refused_by_its_number(tmp_path, numbered, message):
    with pytest.raises(InputError, match=message):
        read_landmarks(write(tmp_path / "marks.json", numbered))


def test_a_fit_becomes_four_files(tmp_path, ball_fit):
    save_fit(ball_fit, tmp_path / "made" / "too")
    folder = tmp_path / "made" / "too"
    assert sorted(os.listdir(folder)) == ["codes.safetensors", "mesh.ply", "picture.png", "report.json"]
    mesh = read_mesh(folder / "mesh.ply")
    np.testing.assert_allclose(mesh.vertices, ball_fit.mesh.vertices, rtol=1e-6)
    np.testing.assert_array_equal(mesh.faces, ball_fit.mesh.faces)
    assert torch.equal(load_file(folder / "codes.safetensors")["identity"], ball_fit.codes["identity"])
    with Image.open(folder / "picture.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


@pytest.mark.usefixtures("no_picture")
def test_the_mesh_file_has_a_confidence_and_colours_that_other_programs_find(tmp_path, ball_fit):
    colors = np.arange(3 * len(ball_fit.mesh.vertices)).reshape(-1, 3) % 256
    colored = replace(ball_fit, mesh=replace(ball_fit.mesh, colors=colors))
    save_fit(colored, tmp_path)
    vertex = read_ply(tmp_path / "mesh.ply")["vertex"]
    np.testing.assert_allclose(vertex["confidence"], ball_fit.confidence)
    assert sorted({round(float(value), 3) for value in vertex["confidence"]}) == [0.2, 1.0]
    np.testing.assert_array_equal(read_mesh(tmp_path / "mesh.ply").colors, colors)
    by_trimesh = trimesh.load(tmp_path / "mesh.ply", process=False)
    np.testing.assert_array_equal(by_trimesh.visual.vertex_colors[:, :3], colors)


def test_the_picture_says_that_there_is_no_head(ball_fit, monkeypatch):
    said = []

    def drawn(*_: object, caption: list[str], **options: object) -> np.ndarray:
        said.extend(caption)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr("implicit3dmm.fitting.files.fit_picture", drawn)
    picture(ball_fit)
    assert not any("HEAD" in text for text in said)
    head = {"reason": "the fit is a shape that no head has"}
    picture(replace(ball_fit, is_head=False, report=ball_fit.report | {"head": head}))
    assert "NO HEAD: the fit is a shape that no head has." in said


@pytest.mark.usefixtures("no_picture")
def test_the_report_is_strict_json(tmp_path, ball_fit):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    save_fit(ball_fit, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert report == ball_fit.report | {"alignment": {"score": None}}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, InputError("no space"), OSError("no space")])
def test_a_save_that_fails_leaves_what_was_there(tmp_path, ball_fit, monkeypatch, stop):
    (tmp_path / "mesh.ply").write_bytes(b"earlier")

    def fail(*_: object) -> None:
        raise stop

    monkeypatch.setattr("implicit3dmm.fitting.files.picture", fail)
    with pytest.raises((KeyboardInterrupt, InputError, OSError)):
        save_fit(ball_fit, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mesh.ply"]
    assert (tmp_path / "mesh.ply").read_bytes() == b"earlier"


@pytest.mark.usefixtures("no_picture")
def test_a_second_fit_replaces_the_files_of_the_first(tmp_path, ball_fit):
    for _ in range(2):
        save_fit(ball_fit, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.usefixtures("no_picture")
def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path, ball_fit):
    (tmp_path / "mesh.ply").mkdir()
    with pytest.raises(InputError, match=r"mesh\.ply is a folder"):
        save_fit(ball_fit, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mesh.ply"]
