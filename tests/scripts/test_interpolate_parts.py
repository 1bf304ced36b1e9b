import runpy
from pathlib import Path

import torch

from implicit3dmm.models import load_model, save_codes

SCRIPT = Path(__file__).parents[2] / "scripts" / "interpolate_parts.py"


def test_one_head_becomes_another_part_by_part(tmp_path, capsys):
    model = load_model("imhead-neutral")
    for name, seed in (("a", 1), ("b", 2)):
        codes = model.prior.sample(1, generator=torch.Generator().manual_seed(seed))
        save_codes(tmp_path / f"{name}.safetensors", codes, model=model.name)
    ends = (tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    parts, out = ("nose", "chin"), tmp_path / "out"
    runpy.run_path(str(SCRIPT))["main"](*ends, model="imhead-neutral", out=out, parts=parts, resolution=40)
    assert "4 steps" in capsys.readouterr().out
    assert len(list(out.glob("edit_*.ply"))) == 4
    assert (out / "picture.png").stat().st_size > 10_000
