import runpy
from pathlib import Path

import torch

from implicit3dmm.models import load_model, save_codes

SCRIPT = Path(__file__).parents[2] / "scripts" / "edit_parts.py"


def test_the_script_edits_a_head_and_shows_it(tmp_path, capsys):
    model = load_model("imhead")
    save_codes(
        tmp_path / "codes.safetensors",
        model.prior.sample(1, generator=torch.Generator().manual_seed(1)),
        model="imhead",
    )
    runpy.run_path(str(SCRIPT))["main"](tmp_path / "codes.safetensors", out=tmp_path / "out", resolution=40)
    assert "5 edits" in capsys.readouterr().out
    assert (tmp_path / "out/picture.png").stat().st_size > 10_000
    assert len(list((tmp_path / "out").glob("edit_*.ply"))) == 5
