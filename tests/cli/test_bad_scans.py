"""What is no scan is refused by name, in one line, and leaves nothing behind."""

import io

import numpy as np
import pytest
import trimesh

RNG = np.random.default_rng(0)
CLOUD = RNG.normal(size=(500, 3))
BALL = trimesh.creation.icosphere(subdivisions=3)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20


def with_value(value: float) -> np.ndarray:
    points = CLOUD.copy()
    points[123, 1] = value
    return points


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def xyz(array: np.ndarray) -> bytes:
    return "\n".join(" ".join(map(str, row)) for row in array.tolist()).encode()


def exported(suffix: str, **options: object) -> bytes:
    content = BALL.export(file_type=suffix, **options)
    return content if isinstance(content, bytes) else content.encode()


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


OBJECTS = np.array([[1.0, 2.0, None]] * 200, dtype=object)
STL_WITHOUT_FACES = bytes(80) + (0).to_bytes(4, "little")
OFF_WITHOUT_FACES = b"OFF\n200 0 0\n" + xyz(CLOUD[:200]) + b"\n"

BAD_SCANS = [
    *[(f"empty{suffix}", b"", "is empty") for suffix in (".ply", ".obj", ".stl", ".glb", ".xyz", ".npy", ".npz")],
    ("cut binary.ply", cut(exported("ply")), "truncated or damaged"),
    ("cut ascii.ply", cut(exported("ply", encoding="ascii")), "truncated or damaged"),
    ("cut header.ply", exported("ply")[:60], "no whole PLY header"),
    ("cut.npy", cut(npy(CLOUD)), "damaged or no NPY file"),
    ("cut.npz", cut(npz(points=CLOUD)), "damaged or no NPZ file"),
    ("cut.stl", cut(exported("stl")), "damaged or no STL file"),
    ("cut.glb", cut(exported("glb")), "damaged or no GLB file"),
    ("cut.off", cut(exported("off")), "damaged or no OFF file"),
    *[(f"picture{suffix}", PNG, "is expected") for suffix in (".ply", ".obj", ".stl", ".glb", ".off", ".npy", ".npz")],
    ("scan.fbx", PNG, "unknown suffix '.fbx'"),
    ("scan", PNG, "unknown suffix ''"),
    ("nan.npy", npy(with_value(np.nan)), "1 of 500 points have NaN or infinite coordinates, the first is point 123"),
    ("infinite.npy", npy(with_value(np.inf)), "NaN or infinite"),
    ("nan.xyz", xyz(with_value(np.nan)), "NaN or infinite"),
    ("infinite.npz", npz(points=with_value(-np.inf)), "NaN or infinite"),
    ("huge.npy", npy(with_value(1e300)), "coordinate of 1e+300"),
    ("few.npy", npy(CLOUD[:99]), "99 points; at least 100"),
    ("plane.npy", npy(CLOUD * [1, 1, 0]), "in one plane"),
    ("tilted plane.npy", npy(CLOUD @ np.array([[1, 2, 3], [0, 1, -1], [1, 3, 2.0]])), "in one plane"),
    ("line.npy", npy(np.outer(np.arange(500.0), [1, 2, 3])), "on one line"),
    ("place.npy", npy(np.tile([1.1, 2.2, 3.3], (500, 1))), "in one place"),
    ("shape.npy", npy(CLOUD[:, :2]), "shape (500, 2)"),
    ("vector.npy", npy(CLOUD.ravel()), "shape (1500,)"),
    ("volume.npy", npy(np.zeros((5, 100, 3))), "shape (5, 100, 3)"),
    ("complex.npy", npy(CLOUD + 1j), "complex"),
    ("text.npy", npy(np.array([["a", "b", "c"]] * 200)), "real numbers"),
    ("none.npy", npy(np.zeros((0, 3))), "no points"),
    ("objects.npy", npy(OBJECTS), "object array"),
    ("objects.npz", npz(points=OBJECTS), "object array"),
    ("other.npz", npz(weights=CLOUD), "no array 'points' or 'vertices'"),
    ("no faces.stl", STL_WITHOUT_FACES, "no faces|damaged or no STL"),
    ("no faces.off", OFF_WITHOUT_FACES, "has no faces"),
    ("wrong faces.npz", npz(vertices=CLOUD, faces=np.array([[0, 1, 900]])), "vertices that do not exist"),
    ("flat faces.npz", npz(vertices=CLOUD, faces=np.array([[0, 0, 1], [2, 2, 2]])), "no area"),
    ("words.xyz", b"these are no numbers\n" * 200, "damaged or no XYZ"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_SCANS, ids=[name for name, _, _ in BAD_SCANS])
def test_what_is_no_scan_is_refused_and_leaves_nothing(
    command, tmp_path, untouched, assert_refused, name, content, message
):
    (tmp_path / name).write_bytes(content)
    untouched.note()
    result = command("fit", tmp_path / name, "--out", tmp_path / "made" / "for this")
    assert_refused(result, next((text for text in message.split("|") if text in result.err), message))
    untouched.check()


def test_a_missing_scan_and_a_folder_are_refused(command, tmp_path, untouched, assert_refused):
    assert_refused(command("fit", tmp_path / "none.ply", "--out", tmp_path / "out"), "none.ply does not exist")
    assert_refused(command("fit", tmp_path, "--out", tmp_path / "out"), "is not a file")
    untouched.check()


def test_earlier_results_stay_when_the_next_scan_is_refused(command, tmp_path, untouched, assert_refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mesh.ply").write_bytes(b"earlier")
    (tmp_path / "empty.ply").touch()
    untouched.note()
    assert_refused(command("fit", tmp_path / "empty.ply", "--out", tmp_path / "out"), "is empty")
    untouched.check()


def test_a_picture_named_ply_is_refused_by_the_installed_program(process, finish, tmp_path, untouched, assert_refused):
    (tmp_path / "picture.ply").write_bytes(PNG)
    untouched.note()
    result = finish(process("fit", "picture.ply", "--out", "made/here"))
    assert_refused(result, "picture.ply does not start with 'ply'; a PLY file is expected; check its suffix")
    untouched.check()
