"""What shows no head is fitted all the same, kept and marked, and told apart by the exit code."""

import json
import os

import numpy as np
import pytest
from PIL import Image

QUICK = ("--model", "imhead-neutral", "--resolution", "40", "--steps", "4")
FILES = ["codes.safetensors", "mesh.ply", "picture.png", "report.json"]


pytestmark = pytest.mark.usefixtures("no_picture")


@pytest.fixture
def cube(tmp_path):
    """3000 points of a cube of 20 cm, millimetres."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-100, 100, (3000, 3))
    points[np.arange(3000), rng.integers(0, 3, 3000)] = 100 * rng.choice((-1.0, 1.0), 3000)
    path = tmp_path / "cube.npy"
    np.save(path, points)
    return path


def test_a_cube_is_fitted_kept_marked_and_ends_with_exit_code_3(command, cube, tmp_path):
    result = command("fit", cube, "--out", tmp_path / "out", *QUICK)
    assert result.code == 3
    assert result.err.count("\n") == 1
    assert result.err.startswith(f"implicit3dmm: {cube}: no head was found; ")
    assert "NO HEAD: " in result.out
    assert sorted(os.listdir(tmp_path / "out")) == FILES
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["is_head"] is False
    assert report["head"]["reason"] in result.err
    assert report["head"]["doubt"] > report["head"]["most"]


def test_among_several_each_is_said_and_a_refused_one_weighs_more(command, cube, scan, tmp_path):
    result = command("fit", scan, cube, "--out", tmp_path / "out", "--json", *QUICK)
    assert result.code == 3
    assert [report["is_head"] for report in json.loads(result.out)] == [True, False]
    (tmp_path / "empty.ply").touch()
    result = command("fit", cube, tmp_path / "empty.ply", "--out", tmp_path / "more", *QUICK)
    assert result.code == 2
    assert "no head was found" in result.err
    assert "is empty" in result.err


def test_depth_images_ask_for_their_camera_and_a_right_one(command, tmp_path, assert_refused):
    path, out = tmp_path / "depth.png", tmp_path / "out"
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(path)
    assert_refused(command("fit", path, "--out", out), "add --intrinsics FX,FY,CX,CY")
    assert_refused(command("fit", path, "--out", out, "--intrinsics", "500,500,32"), "are not four numbers")
    camera = ("--intrinsics", "50,50,31.5,23.5")
    assert_refused(command("fit", path, "--out", out, *camera), "0 measured pixels")
    assert_refused(command("fit", path, "--out", out, *camera, "--depth-unit", "0"), "the depth unit is 0")
    assert_refused(command("fit", path, "--out", out, *camera, "--unit", "cm"), "the unit 'cm' is given with a depth")
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(path)
    assert_refused(command("fit", path, "--out", out, *camera), "not the colours")
    np.save(tmp_path / "depth.npy", np.ones((48, 64)))
    assert_refused(command("fit", tmp_path / "depth.npy", "--out", out), "if it is a depth image")
    assert not out.exists()


def test_a_depth_image_is_fitted(command, tmp_path):
    """A ball in the picture: it is no head, but gets through."""
    rows, columns = np.indices((120, 160))
    inside = 55**2 - (rows - 60) ** 2 - (columns - 80) ** 2
    depth = np.where(inside > 0, 700 - np.sqrt(inside.clip(0)) * 1.6, 0).astype(np.uint16)
    Image.fromarray(depth).save(tmp_path / "ball.png")
    camera = ("--intrinsics", "450,450,79.5,59.5")
    result = command("fit", tmp_path / "ball.png", "--out", tmp_path / "out", *camera, *QUICK)
    assert result.code == 3
    assert "one unit of the scan is 1 mm (mm)" in result.out
