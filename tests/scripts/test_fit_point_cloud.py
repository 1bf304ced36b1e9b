import re
import runpy
from pathlib import Path

import pytest
import torch

from implicit3dmm.geometry.mesh import read_mesh
from implicit3dmm.resources import asset

SCRIPT = Path(__file__).parents[2] / "scripts" / "fit_point_cloud.py"


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread", "no_tries")
def test_the_script_fits_points_writes_a_mesh_and_prints_the_error(tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    main(asset("example_scan.ply"), tmp_path / "head.obj", steps=2, resolution=40)
    assert read_mesh(tmp_path / "head.obj").is_watertight()
    printed = capsys.readouterr().out
    assert "one unit of the scan is 10 mm (cm)" in printed
    assert float(re.search(r"scan to the fit: ([\d.]+) mm", printed)[1]) < 10
