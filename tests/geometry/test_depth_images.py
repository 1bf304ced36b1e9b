import numpy as np
import pytest
from PIL import Image

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.depth_images import DepthImage, Intrinsics, is_depth_image, read_depth_image

CAMERA = Intrinsics(500.0, 520.0, 79.5, 59.5)
SIZE = (120, 160)
RADIUS, CENTRE = 90.0, np.array([10.0, -5.0, 700.0])


def ball(centre=CENTRE, radius=RADIUS) -> np.ndarray:
    """Depth of a ball for each pixel, infinite beside it; solved for the ray, not by the code under test."""
    rows, columns = np.indices(SIZE)
    ray = np.stack([(columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy, np.ones(SIZE)], axis=-1)
    a, b, c = (ray**2).sum(-1), ray @ centre, centre @ centre - radius**2
    with np.errstate(invalid="ignore"):
        return np.nan_to_num((b - np.sqrt(b**2 - a * c)) / a, nan=np.inf)


def scene(*things: np.ndarray, wall: float = np.inf) -> np.ndarray:
    depth = np.minimum.reduce([*things, np.full(SIZE, wall)])
    return np.where(np.isfinite(depth), depth, 0.0)


def off_ball(vertices: np.ndarray) -> np.ndarray:
    return np.abs(np.linalg.norm(vertices - CENTRE, axis=1) - RADIUS)


def test_pixels_come_to_lie_on_the_surface_that_was_seen_facing_the_camera():
    mesh = DepthImage(scene(ball()), CAMERA).surface()
    assert off_ball(mesh.vertices).max() < 1e-9
    assert (np.einsum("ij,ij->i", mesh.face_normals(), mesh.vertices[mesh.faces].mean(1)) < 0).all()
    assert len(mesh.vertices) > 5000
    # All is there but what the picture cuts off and the rim, where the surface is steeper than 80 degrees.
    assert mesh.face_areas().sum() > 0.65 * 2 * np.pi * RADIUS**2


@pytest.mark.parametrize("behind", [150.0, 300.0, 1000.0])
def test_a_wall_behind_is_dropped_and_so_are_mixed_pixels(behind):
    depth = scene(ball(), wall=CENTRE[2] + RADIUS + behind)
    jumps = np.argwhere(np.abs(np.diff(depth, axis=1)) > 50)
    for row, column in jumps:  # cameras see the mean of near and far there
        depth[row, column] = depth[row, column : column + 2].mean()
    mesh = DepthImage(depth, CAMERA).surface()
    assert len(jumps) > 50
    assert off_ball(mesh.vertices).max() < 1e-9


def test_a_stray_in_front_and_a_larger_thing_behind_are_not_taken_for_the_head():
    stray = ball(np.array([-40.0, 30.0, 400.0]), 8.0)
    behind = ball(np.array([-60.0, 0.0, 1700.0]), 300.0)
    mesh = DepthImage(scene(ball(), stray, behind), CAMERA).surface()
    assert off_ball(mesh.vertices).max() < 1e-9


def test_a_part_of_the_head_beside_a_gap_is_kept():
    depth = scene(ball())
    depth[:, 84:87] = 0
    mesh = DepthImage(depth, CAMERA).surface()
    assert len(np.unique(mesh.face_components())) == 2
    assert np.ptp(mesh.vertices[:, 0]) > 1.7 * RADIUS


def test_zero_and_nan_are_no_measurement():
    depth = scene(ball())
    lost = np.random.default_rng(0).random(SIZE) < 0.05
    whole = DepthImage(depth, CAMERA).surface()
    for nothing in (0.0, np.nan, -1.0, np.inf):
        mesh = DepthImage(np.where(lost, nothing, depth), CAMERA).surface()
        assert np.isfinite(mesh.vertices).all()
        assert off_ball(mesh.vertices).max() < 1e-9
        assert 0.9 * len(whole.vertices) < len(mesh.vertices) < len(whole.vertices)


def written(folder, kind: str):
    millimetres = np.round(scene(ball()))
    path = folder / f"depth{kind}"
    match kind:
        case ".png" | ".tif":
            Image.fromarray(millimetres.astype(np.uint16)).save(path)
        case ".tiff":
            Image.fromarray((millimetres / 1000).astype(np.float32)).save(path)
        case ".npy":
            np.save(path, millimetres / 1000)
        case ".npz":
            np.savez(path, depth=millimetres.astype(np.uint16), intrinsics=np.array(CAMERA))
    return path, millimetres


@pytest.mark.parametrize("kind", [".png", ".tif", ".tiff", ".npy", ".npz"])
def test_every_format_is_read_in_its_usual_unit(tmp_path, kind):
    path, millimetres = written(tmp_path, kind)
    image = read_depth_image(path, intrinsics=None if kind == ".npz" else CAMERA)
    np.testing.assert_allclose(image.depth_mm, millimetres, rtol=1e-6)
    assert (image.intrinsics, image.file) == (CAMERA, str(path))
    doubled = read_depth_image(path, intrinsics=CAMERA, mm_per_unit=2000 if kind in (".npy", ".tiff") else 2)
    np.testing.assert_allclose(doubled.depth_mm, 2 * millimetres, rtol=1e-6)
    assert is_depth_image(path) == (kind != ".npy")


def test_intrinsics_are_four_numbers_or_a_camera_matrix():
    assert Intrinsics.parse("500, 520,79.5,59.5") == CAMERA
    matrix = np.array([[500, 0, 79.5], [0, 520, 59.5], [0, 0, 1]])
    assert Intrinsics.of(matrix, source="it") == CAMERA


@pytest.mark.parametrize("text", ["", "500", "500,500,80", "1,2,3,4,5", "a,b,c,d", "nan,1,1,1", "0,1,1,1", "-5,5,1,1"])
def test_other_intrinsics_are_refused_by_name(text):
    with pytest.raises(InputError, match="the intrinsics"):
        Intrinsics.parse(text)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.zeros(SIZE), "0 measured pixels"),
        (np.full(SIZE, np.nan), "0 measured pixels"),
        (ball(radius=20.0), "nothing larger than 100 mm"),
        (np.random.default_rng(0).uniform(300, 3000, SIZE), "nothing larger than 100 mm"),
    ],
)
def test_images_without_a_large_surface_are_refused(depth, message):
    with pytest.raises(InputError, match=message):
        DepthImage(np.where(np.isinf(depth), 0, depth), CAMERA).surface()


def bad_file(folder, name: str):
    path = folder / name
    rng = np.random.default_rng(0)
    match name:
        case "colour.png":
            Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(path)
        case "grey.png":
            Image.fromarray(rng.integers(0, 255, (9, 9), dtype=np.uint8)).save(path)
        case "cut.png":
            Image.fromarray(rng.integers(0, 60000, (99, 99), dtype=np.uint16)).save(path)
            path.write_bytes(path.read_bytes()[:-4000])
        case "stack.npy":
            np.save(path, np.ones((2, 9, 9)))
        case "text.npy":
            np.save(path, np.full((9, 9), "a"))
        case "other.npz":
            np.savez(path, points=np.ones((9, 9)))
        case "camera.npz":
            np.savez(path, depth=np.ones((9, 9)), intrinsics=np.ones(5))
        case "head.ply" | "empty.png":
            path.touch()
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("colour.png", "give the depths, not the colours"),
        ("grey.png", "give the depths, not the colours"),
        ("cut.png", "cannot be read|damaged"),
        ("empty.png", "cannot be read|damaged"),
        ("missing.png", "cannot be read"),
        ("stack.npy", r"\(rows, columns\)"),
        ("text.npy", r"\(rows, columns\)"),
        ("other.npz", "no array 'depth'"),
        ("camera.npz", "the intrinsics are not four numbers"),
        ("head.ply", "is no depth image"),
    ],
)
def test_files_that_are_no_depth_images_are_refused_in_one_line(tmp_path, name, message):
    camera = None if name == "camera.npz" else CAMERA
    with pytest.raises(InputError, match=message) as error:
        read_depth_image(bad_file(tmp_path, name), intrinsics=camera)
    assert "\n" not in str(error.value)


def test_a_camera_and_a_sound_unit_are_asked_for(tmp_path):
    path, _ = written(tmp_path, ".png")
    with pytest.raises(InputError, match="--intrinsics FX,FY,CX,CY"):
        read_depth_image(path)
    for unit in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="the depth unit"):
            read_depth_image(path, intrinsics=CAMERA, mm_per_unit=unit)
