"""Edits of a scanned head in a few lines: parts of another head, half the way to them, and parts drawn anew.

python scripts/edit_parts.py [SCAN] --out DIR
"""

from pathlib import Path

import torch
import tyro

from implicit3dmm import load_model
from implicit3dmm.editing import interpolate, open_head, sample_part, swap_parts
from implicit3dmm.editing.files import save_edits
from implicit3dmm.resources import asset

EXAMPLE = asset("example_scan.ply")


def main(scan: Path = EXAMPLE, /, *, out: Path, seed: int = 8, resolution: int = 192) -> None:
    """Writes the edited heads, each with its displacements, and one picture.

    Args:
        scan: Scan of a head, or codes of one.
        out: Folder for the results.
        seed: Of the donor, a head drawn from the model's prior, of the mouth and of the chin.
        resolution: Cells along the longest side of the meshes' box.
    """
    model = load_model("imhead")
    generator = torch.Generator().manual_seed(seed)
    before = open_head(scan, model)
    donor = model.condition(model.prior.sample(1, generator=generator))
    head = before.field
    edits = {
        "another's nose": head.with_part("nose", donor),
        "half way to it": interpolate(head, donor, 0.5, ["nose"]),
        "its eyes and ears": swap_parts(head, donor, ["eyes", "ears"]),
        "a new mouth": next(sample_part(model, head, "mouth", 1, generator=generator)),
        "a new chin": next(sample_part(model, head, "chin", 1, generator=generator)),
    }
    about = {"edit": "scripts/edit_parts.py", "head": str(scan), "seed": seed}
    save_edits(out, model, before, list(edits.values()), labels=list(edits), about=about, resolution=resolution)
    print(f"{len(edits)} edits in {out}")


if __name__ == "__main__":
    tyro.cli(main)
