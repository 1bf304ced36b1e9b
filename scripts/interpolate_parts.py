"""One head becomes another part by part, with the way of each part as a map (Gu and Pears, Figs. 2 and 8).

python scripts/interpolate_parts.py HEAD DONOR --model MODEL --out DIR
"""

from pathlib import Path

import tyro

from implicit3dmm import load_model
from implicit3dmm.editing import interpolate_in_turn, open_head
from implicit3dmm.editing.files import save_edits


def main(
    head: Path,
    donor: Path,
    /,
    *,
    model: str,
    out: Path,
    parts: tuple[str, ...] = ("nose", "eyes", "mouth", "rem"),
    shares: tuple[float, ...] = (0.5, 1.0),
    resolution: int = 192,
) -> None:
    """Writes the heads on the way, each with its displacements from where its part began, and one picture.

    Args:
        head: Where the way begins: codes (.safetensors), the folder of a fit, or a scan.
        donor: Where it ends; the same kinds of files.
        model: Weights file or released model with parts.
        out: Folder for the results.
        parts: The parts in their turn.
        shares: Stops on the way of each.
        resolution: Cells along the longest side of the meshes' box.
    """
    loaded = load_model(model)
    before, other = open_head(head, loaded), open_head(donor, loaded)
    steps = list(interpolate_in_turn(before.field, other.field, parts, shares))
    save_edits(
        out,
        loaded,
        before,
        [step.field for step in steps],
        labels=[f"{step.part} {step.share:g}" for step in steps],
        since=[step.since for step in steps],
        about={"edit": "scripts/interpolate_parts.py", "head": str(head), "donor": str(donor), "parts": parts},
        resolution=resolution,
    )
    print(f"{len(steps)} steps in {out}")


if __name__ == "__main__":
    tyro.cli(main)
