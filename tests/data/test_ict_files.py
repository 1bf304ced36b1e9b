import json
import os
from pathlib import Path

import numpy as np
import pytest

from implicit3dmm.data.sources import ict_files
from implicit3dmm.data.sources.ict_files import CLONE_VARIABLE, DATA_VARIABLE, FILE_NAME, convert_clone, load_ict_arrays
from implicit3dmm.errors import InputError

# A miniature of the published mesh: face, head, mouth, sockets, (gums, teeth), eyeballs, and an eyelash behind.
STARTS = (0, 4, 8, 10, 11, 12, 14, 15, 17, 19)
KEPT_VERTICES = [*range(12), *range(15, 19)]
VERTICES = 20
FACES = (
    "f 1/1 2/2 3/3 4/4",
    "f 3/1 4/2 5/3 6/4",  # between face and head: the head's
    "f 6/1 7/2 8/3",
    "f 1/1 9/2 10/3",  # between face and mouth
    "f 13/1 14/2 15/3",  # gums and teeth: dropped
    "f 16/1 17/2 18/3 19/4",  # between the eyeballs
    "f 20/1 20/2 20/3",  # the eyelash: dropped
)
QUADS = [[0, 1, 2, 3], [2, 3, 4, 5], [5, 6, 7, 7], [0, 8, 9, 9], [12, 13, 14, 15]]
QUAD_GEOMETRY = [0, 1, 1, 2, 8]
EXPRESSIONS = ["jawOpen", "mouthSmile_L"]


def write_obj(path: Path, vertices: np.ndarray) -> None:
    lines = ["# a comment", "mtllib none.mtl", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices), "vt 0 0"]
    path.write_text("\n".join([*lines, *FACES, ""]))


@pytest.fixture
def shapes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    neutral = np.round(rng.normal(size=(VERTICES, 3)), 6)
    modes = {
        name: np.round(neutral + 0.1 * rng.normal(size=neutral.shape), 6)
        for name in ("identity000", "identity001", *EXPRESSIONS)
    }
    return {"generic_neutral_mesh": neutral} | modes


@pytest.fixture
def clone(tmp_path, monkeypatch, shapes) -> Path:
    """A miniature clone, and an environment that names it."""
    folder = tmp_path / "ICT-FaceKit"
    (folder / "FaceXModel").mkdir(parents=True)
    for name, vertices in shapes.items():
        write_obj(folder / "FaceXModel" / f"{name}.obj", vertices)
    lists = {"expressions": EXPRESSIONS, "idx_to_landmark_verts": [3, 1, 2]}
    (folder / "FaceXModel" / "vertex_indices.json").write_text(json.dumps(lists))
    monkeypatch.setattr(ict_files, "GEOMETRY_STARTS", STARTS)
    monkeypatch.setattr(ict_files, "IDENTITY_MODES", 2)
    monkeypatch.setenv(CLONE_VARIABLE, str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def nothing(monkeypatch) -> None:
    for variable in (CLONE_VARIABLE, DATA_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


def test_a_clone_gives_what_is_needed_of_it(clone, shapes):
    arrays = convert_clone(clone)
    neutral = shapes["generic_neutral_mesh"]
    np.testing.assert_array_equal(arrays["template"], neutral[KEPT_VERTICES].astype(np.float32))
    np.testing.assert_array_equal(arrays["quads"], QUADS)
    np.testing.assert_array_equal(arrays["quad_geometry"], QUAD_GEOMETRY)
    np.testing.assert_array_equal(arrays["vertex_geometry"], [0] * 4 + [1] * 4 + [2, 2, 3, 4, 7, 7, 8, 8])
    np.testing.assert_array_equal(arrays["landmarks68"], [3, 1, 2])
    assert arrays["expression_names"].tolist() == EXPRESSIONS
    for kind, names in (("identity", ["identity000", "identity001"]), ("expression", EXPRESSIONS)):
        for name, steps, scale in zip(names, arrays[f"{kind}_q"], arrays[f"{kind}_scale"], strict=True):
            offset = (shapes[name] - neutral)[KEPT_VERTICES]
            assert np.abs(steps * np.float64(scale) - offset).max() < 0.51 * scale
            assert np.abs(steps).max() == 32767


def test_it_is_converted_once_and_again_when_it_changes(clone, shapes, tmp_path, monkeypatch):
    first = load_ict_arrays()
    (file,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert file.name == FILE_NAME
    with monkeypatch.context() as patch:
        patch.setattr(ict_files, "convert_clone", lambda _: pytest.fail("converted again"))
        again = load_ict_arrays()
    assert all(np.array_equal(first[key], again[key]) for key in ict_files.KEYS)
    write_obj(clone / "FaceXModel" / "identity000.obj", shapes["identity000"] + 1)
    os.utime(clone / "FaceXModel" / "identity000.obj", ns=(1, 1))
    assert not np.array_equal(load_ict_arrays()["identity_scale"], first["identity_scale"])


def test_the_converted_file_is_what_a_data_folder_holds(clone, tmp_path, monkeypatch):
    expected = load_ict_arrays()
    (file,) = (tmp_path / "cache").rglob(FILE_NAME)
    monkeypatch.delenv(CLONE_VARIABLE)
    monkeypatch.setenv(DATA_VARIABLE, str(file.parent))
    assert all(np.array_equal(expected[key], array) for key, array in load_ict_arrays().items())


def test_without_files_the_message_says_what_to_clone_and_set(nothing, tmp_path, monkeypatch):
    message = rf"clone https://github\.com/.*ICT-FaceKit and set {CLONE_VARIABLE} .*or set {DATA_VARIABLE}"
    with pytest.raises(InputError, match=message):
        load_ict_arrays()
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=message):
        load_ict_arrays()


def test_a_folder_that_is_no_clone_is_refused(nothing, tmp_path, monkeypatch):
    monkeypatch.setenv(CLONE_VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=r"has no FaceXModel/\*\.obj"):
        load_ict_arrays()


@pytest.mark.parametrize("name", ["generic_neutral_mesh.obj", "identity001.obj", "mouthSmile_L.obj"])
@pytest.mark.parametrize("damage", ["missing", "short", "words"])
def test_a_damaged_file_is_named_and_nothing_is_cached(clone, tmp_path, name, damage):
    path = clone / "FaceXModel" / name
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_text("\n".join(path.read_text().splitlines()[:10]))
    else:
        path.write_text(path.read_text().replace("v 0", "v zero").replace("v -", "v minus"))
    with pytest.raises(InputError, match=f"{name} .*clone"):
        load_ict_arrays()
    assert not list((tmp_path / "cache").rglob("*.npz"))


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_a_damaged_list_is_named(clone, text):
    (clone / "FaceXModel" / "vertex_indices.json").write_text(text)
    with pytest.raises(InputError, match=r"vertex_indices\.json cannot be read"):
        load_ict_arrays()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY"])
def test_a_damaged_npz_is_named(nothing, tmp_path, monkeypatch, content):
    (tmp_path / FILE_NAME).write_bytes(content)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=rf"{FILE_NAME} is damaged or another file"):
        load_ict_arrays()


def test_an_npz_without_an_array_is_named(nothing, tmp_path, monkeypatch):
    np.savez(tmp_path / FILE_NAME, template=np.zeros((3, 3)))
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match="identity_q"):
        load_ict_arrays()


def test_a_real_clone_gives_the_published_arrays(data_folder):
    if CLONE_VARIABLE not in os.environ:
        pytest.skip(f"needs a clone of {ict_files.REPOSITORY}: set {CLONE_VARIABLE} to it")
    with np.load(data_folder / FILE_NAME, allow_pickle=False) as expected:
        for key, array in convert_clone(Path(os.environ[CLONE_VARIABLE])).items():
            np.testing.assert_array_equal(array, expected[key], err_msg=key)
