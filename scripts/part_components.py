"""The first principal components of a part's code, on the mean head (Gu and Pears, Fig. 1).

python scripts/part_components.py --model MODEL --part nose --out DIR
"""

from pathlib import Path

import tyro

from implicit3dmm import load_model
from implicit3dmm.editing import EditableHead
from implicit3dmm.editing.files import save_edits
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.frame import UNIT_MM


def main(*, model: str, part: str, out: Path, components: int = 3, spread: float = 3.0, resolution: int = 192) -> None:
    """Writes the mean head with the part moved along each component, to both sides, and one picture.

    Args:
        model: Weights file or released model with a code for each part.
        part: The part.
        out: Folder for the results.
        components: How many.
        spread: How far to each side, standard deviations.
        resolution: Cells along the longest side of the meshes' box.
    """
    loaded = load_model(model)
    if part not in loaded.prior.parts:
        raise InputError(f"{loaded.name} has no code {part!r}; give one of {', '.join(loaded.prior.parts)}")
    prior, mean = loaded.prior.parts[part], loaded.prior.mean()
    moved = {
        f"{side * spread:+g} sd of {number + 1}": loaded.condition(
            mean | {part: mean[part] + side * spread * prior.std[number] * prior.axes[:, number]}
        )
        for number in range(components)
        for side in (-1, 1)
    }
    before = EditableHead(loaded.condition(mean), Similarity.identity(), UNIT_MM)
    about = {"edit": "scripts/part_components.py", "part": part, "spread": spread}
    save_edits(out, loaded, before, list(moved.values()), labels=list(moved), about=about, resolution=resolution)
    print(f"{len(moved)} heads in {out}")


if __name__ == "__main__":
    tyro.cli(main)
