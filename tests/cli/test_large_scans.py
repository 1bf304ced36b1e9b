"""Scans of many points are thinned, and that is said."""

import json

import numpy as np
import pytest

from implicit3dmm.fitting.job import MOST_POINTS


@pytest.mark.usefixtures("no_picture")
@pytest.mark.parametrize("count", [600_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_a_large_scan_is_thinned_and_the_summary_and_the_report_say_so(command, scan_points, tmp_path, count):
    rng = np.random.default_rng(0)
    cloud = np.lib.format.open_memmap(tmp_path / "large.npy", mode="w+", dtype=np.float32, shape=(count, 3))
    for start in range(0, count, 500_000):
        part = cloud[start : start + 500_000]
        part[:] = scan_points[rng.integers(len(scan_points), size=len(part))] + rng.normal(0, 0.03, part.shape)
    cloud.flush()
    quick = ("--model", "imhead-neutral", "--steps", "1", "--resolution", "32")
    result = command("fit", tmp_path / "large.npy", "--out", tmp_path / "out", *quick)
    assert (result.code, result.err) == (0, "")
    assert f"the scan's {count} points were thinned to {MOST_POINTS}" in result.out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["scan"]["points"], report["scan"]["used_points"]) == (count, MOST_POINTS)
    assert report["alignment"]["unit"] == "cm"
    assert report["error"]["left_out"] < 0.1
