"""What `implicit3dmm fit` prints and writes: results on the standard output, everything else on the error stream."""

import json
import os
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from implicit3dmm.data.average_head import alignment_target
from implicit3dmm.geometry.alignment import align_scan
from implicit3dmm.geometry.mesh import read_mesh
from implicit3dmm.resources import asset

QUICK = ("--model", "imhead-neutral", "--steps", "2", "--resolution", "40")
FILES = ["codes.safetensors", "mesh.ply", "picture.png", "report.json"]


pytestmark = pytest.mark.usefixtures("no_picture")  # one test sees a true one


def strict_json(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def pose(scan_points, tmp_path_factory) -> tuple[str, Path]:
    """The option that gives the scan's pose: looking for it is half of a small fit's time."""
    path = tmp_path_factory.mktemp("pose") / "pose.txt"
    found = align_scan(scan_points, alignment_target(), rng=np.random.default_rng(0))
    np.savetxt(path, found.similarity.matrix())
    return "--transform", path


def test_a_fit_prints_a_summary_and_nothing_on_the_error_stream(command, scan, tmp_path):
    out = tmp_path / "out"
    result = command("fit", scan, "--out", out, *QUICK)
    assert (result.code, result.err) == (0, "")
    assert sorted(os.listdir(out)) == FILES
    for text in (f"{scan}: 3000 points", "one unit of the scan is 10 mm (cm)", "watertight", f"results in {out}"):
        assert text in result.out
    report = strict_json((out / "report.json").read_text())
    assert f"mean {report['error']['scan_mean_mm']:.2f} mm" in result.out
    assert read_mesh(out / "mesh.ply").is_watertight()


def test_json_is_one_document_and_nothing_else(command, scan, pose, tmp_path):
    result = command("fit", scan, "--out", tmp_path / "out", "--json", *pose, *QUICK)
    assert (result.code, result.err) == (0, "")
    assert strict_json(result.out) == strict_json((tmp_path / "out" / "report.json").read_text())


def test_json_of_a_refused_scan_is_nothing(command, tmp_path, assert_refused):
    assert_refused(command("fit", tmp_path / "none.ply", "--out", tmp_path / "out", "--json"), "does not exist")


@pytest.fixture
def good_bad_good(scan):
    """Three scans, of which the second has three points."""
    bad, good = scan.with_name("bad.npy"), scan.with_name("other.npy")
    np.save(bad, np.zeros((3, 3)))
    shutil.copy(scan, good)
    return [scan, bad, good]


def test_a_bad_scan_among_several_is_reported_and_the_others_are_fitted(command, good_bad_good, tmp_path):
    result = command("fit", *good_bad_good, "--out", tmp_path / "out", *QUICK)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert result.err.startswith(f"implicit3dmm: {good_bad_good[1]}: the scan has 3 points")
    assert sorted(os.listdir(tmp_path / "out")) == ["other", "person"]
    for name in ("other", "person"):
        assert sorted(os.listdir(tmp_path / "out" / name)) == FILES
        assert f"results in {tmp_path / 'out' / name}" in result.out


def test_json_of_several_scans_is_a_list_in_their_order(command, good_bad_good, tmp_path):
    result = command("fit", *good_bad_good[:2], "--out", tmp_path / "out", "--json", *QUICK)
    assert result.code == 2
    first, second = strict_json(result.out)
    assert first["scan"]["file"] == str(good_bad_good[0])
    assert set(second) == {"scan", "refused"}
    assert second["scan"]["file"] == str(good_bad_good[1])
    assert "3 points" in second["refused"]


def test_scans_of_one_name_are_refused(command, scan, tmp_path, assert_refused):
    twin = tmp_path / "elsewhere" / scan.name
    twin.parent.mkdir()
    shutil.copy(scan, twin)
    assert_refused(command("fit", scan, twin, "--out", tmp_path / "out"), "two scans are called 'person'")
    assert not (tmp_path / "out").exists()


def test_relative_paths_blanks_and_other_alphabets_are_fine(command, scan_points, pose, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "Kopf von Jörg 头 — 1"
    np.save(f"{name}.npy", scan_points)
    result = command("fit", f"{name}.npy", "--out", "./Ergebnisse für 头/1", *pose, *QUICK)
    assert (result.code, result.err) == (0, "")
    assert name in result.out
    assert sorted(os.listdir("Ergebnisse für 头/1")) == FILES
    assert (
        strict_json((tmp_path / "Ergebnisse für 头" / "1" / "report.json").read_text())["scan"]["file"] == f"{name}.npy"
    )


def test_the_scan_is_only_read(command, scan, pose, tmp_path):
    content = scan.read_bytes()
    scan.chmod(0o444)
    scan.parent.chmod(0o555)
    before = scan.stat().st_mtime_ns
    try:
        assert command("fit", scan, "--out", tmp_path / "out", *pose, *QUICK).code == 0
    finally:
        scan.parent.chmod(0o755)
    assert (scan.read_bytes(), scan.stat().st_mtime_ns) == (content, before)
    assert os.listdir(scan.parent) == [scan.name]


def test_a_second_fit_into_the_same_folder_replaces_the_first(command, scan, pose, tmp_path):
    out = tmp_path / "out"
    for seed in (1, 2):
        assert command("fit", scan, "--out", out, "--seed", seed, *pose, *QUICK).code == 0
    assert sorted(os.listdir(out)) == FILES


@pytest.mark.parametrize("words", [[], ["fit"], ["train"], ["sample"], ["extract"], ["corpus"], ["evaluate"]])
def test_a_command_without_arguments_explains_itself(command, words):
    result = command(*words)
    assert (result.code, result.out) == (2, "")
    assert "usage: implicit3dmm" in result.err
    for text in ("SCAN", "--out", "Folder for the results") if words == ["fit"] else ():
        assert text in result.err


def test_help_is_no_error(command):
    result = command("fit", "--help")
    assert (result.code, result.err) == (0, "")
    assert "usage: implicit3dmm fit" in result.out


def test_an_unknown_flag_is_refused(command, scan, tmp_path):
    result = command("fit", scan, "--out", tmp_path / "out", "--nonsense", "3")
    assert (result.code, result.out) == (2, "")
    assert "--nonsense" in result.err
    assert not (tmp_path / "out").exists()


def test_fit_without_a_scan_says_so(command, tmp_path, assert_refused):
    assert_refused(command("fit", "--out", tmp_path / "out"), "no scan is given; name one or more files")
    assert not (tmp_path / "out").exists()


def test_models_lists_what_is_shipped(command):
    result = command("models")
    assert (result.code, result.err) == (0, "")
    assert "\nimhead: ExpressionWarp, codes identity 256, expression 53, " in result.out
    assert "\nimhead-neutral: ImHead, codes identity 256" in result.out
    assert "\nparts: PartsCascade, codes nose 48, eyes 48, mouth 48, rem 112" in result.out
    assert "trained on 256 makehuman with 8 composites each" in result.out
    assert "CC0" in result.out
    assert "\nlamm: LAMM, codes 256, of registered heads" in result.out
    assert result.out.count("\n") == 15


def test_a_reader_who_has_seen_enough_is_no_error(process):
    child = process("models")
    child.stdout.close()
    with child.stderr:
        assert child.stderr.read() == ""
    assert child.wait(60) == 0


def test_the_installed_program_fits_quietly_and_draws_a_picture(process, finish, scan_points, tmp_path):
    np.save(tmp_path / "head.npy", scan_points)
    result = finish(process("fit", "head.npy", "--out", "out", "--json", *QUICK))
    assert (result.code, result.err) == (0, "")
    assert strict_json(result.out)["scan"]["file"] == "head.npy"
    with Image.open(tmp_path / "out" / "picture.png") as picture:
        assert picture.size[0] > 500


def test_a_full_disk_or_too_little_memory_is_one_line(command, scan, pose, tmp_path, monkeypatch, assert_refused):
    for error, message in ((OSError(28, "No space left on device"), "No space left"), (MemoryError(), "memory")):

        def fail(_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("implicit3dmm.fitting.files.picture", fail)
        assert_refused(command("fit", scan, "--out", tmp_path / "out", *pose, *QUICK), message)
        assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_tries", "no_picture")
def test_demo_fits_the_shipped_scan_edits_it_and_changes_a_head_part_by_part(command, tmp_path, monkeypatch):
    fit_command, editing_files = (import_module(f"implicit3dmm.{name}") for name in ("cli.fit", "editing.files"))
    fit, save_edits, seen = fit_command.fit, editing_files.save_edits, []

    def quick_fit(scans, **options):
        seen.append((scans, options))
        return fit(scans, **options, resolution=40, steps=2)

    def quick_edits(*args, resolution, **options):
        return save_edits(*args, **options, resolution=40)

    monkeypatch.setattr(fit_command, "fit", quick_fit)
    monkeypatch.setattr(editing_files, "save_edits", quick_edits)
    monkeypatch.setattr(editing_files, "_picture", lambda *_: np.zeros((4, 4, 3), np.uint8))
    result = command("demo", "--out", tmp_path / "demo")
    assert result.code == 0
    assert seen == [((asset("example_expression.ply"),), {"out": tmp_path / "demo", "device": "auto"})]
    report = json.loads((tmp_path / "demo" / "edits" / "report.json").read_text())
    neutral, surprised, nose = (entry["most_mm"] for entry in report["edits"])
    assert min(neutral, surprised, nose) > 1
    parts = json.loads((tmp_path / "demo" / "parts" / "report.json").read_text())
    assert parts["parts"] == ["nose", "eyes", "mouth", "rem"]
    *local, rest = (entry["moved_share"] for entry in parts["edits"])
    assert max(local) < 0.1 < 0.8 < rest
    assert all(str(tmp_path / "demo" / name / "picture.png") in result.out for name in ("edits", "parts"))
