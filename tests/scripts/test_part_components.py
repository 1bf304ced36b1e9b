import json
import runpy
from pathlib import Path

import pytest

from implicit3dmm.errors import InputError

SCRIPT = Path(__file__).parents[2] / "scripts" / "part_components.py"


def test_a_code_goes_to_both_sides_of_the_mean_along_its_components(tmp_path, capsys):
    main, out = runpy.run_path(str(SCRIPT))["main"], tmp_path / "out"
    main(model="imhead-neutral", part="identity", out=out, components=1, resolution=40)
    assert "2 heads" in capsys.readouterr().out
    moved = [edit["mean_of_moved_mm"] for edit in json.loads((out / "report.json").read_text())["edits"]]
    assert len(moved) == 2
    assert min(moved) > 0.5
    with pytest.raises(InputError, match="no code 'nose'; give one of identity"):
        main(model="imhead-neutral", part="nose", out=out)
