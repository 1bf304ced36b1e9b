"""implicit3dmm demo: the main job on what the package ships."""

from pathlib import Path

from implicit3dmm.cli.common import Device

SEED = 8
"""Of the head that the other nose is taken from, and of the two heads of which one becomes the other."""


def demo(out: Path = Path("demo"), device: Device = "auto") -> int:
    """Fits the released model to the shipped scan: a held-out head that smiles, cut, noisy, with holes and shoulders.

    The folder gets the fit and, in edits, the same head without its expression, with another one and with another nose;
    edits/picture.png shows the four. In parts/picture.png one head becomes another part by part, both drawn from the
    released cascade's prior.

    Args:
        out: Folder for the results.
        device: Where to compute.
    """
    import torch

    from implicit3dmm.cli.common import open_device
    from implicit3dmm.cli.fit import fit
    from implicit3dmm.editing import named_expression, open_fit
    from implicit3dmm.editing.files import save_edits
    from implicit3dmm.models import load_model
    from implicit3dmm.resources import asset

    code = fit((asset("example_expression.ply"),), out=out, device=device)
    model = load_model("imhead", device=open_device(device))
    before = open_fit(out, model)
    donor = model.condition(model.prior.sample(1, generator=torch.Generator().manual_seed(SEED)))
    edits = {
        "neutral": before.field.with_expression(named_expression(model, {})),
        "surprised": before.field.with_expression(named_expression(model, {"surprise": 1.0})),
        "another's nose": before.field.with_part("nose", donor),
    }
    about = {"edit": "demo", "seed": SEED}
    save_edits(out / "edits", model, before, list(edits.values()), labels=list(edits), about=about, resolution=160)
    print(f"the head without its expression, surprised, and with another nose: {out / 'edits' / 'picture.png'}")
    _part_by_part(out / "parts", open_device(device))
    print(f"one head becomes another part by part: {out / 'parts' / 'picture.png'}")
    return code


def _part_by_part(folder: Path, device: str) -> None:
    """Takes nose, eyes, mouth and remainder of a head drawn from the cascade's prior to those of another, in turn."""
    import torch

    from implicit3dmm.editing import EditableHead, interpolate_in_turn
    from implicit3dmm.editing.files import save_edits
    from implicit3dmm.geometry.similarity import Similarity
    from implicit3dmm.heads.frame import UNIT_MM
    from implicit3dmm.models import load_model

    model = load_model("parts", device=device)
    drawn = model.prior.sample(2, temperature=0.8, generator=torch.Generator().manual_seed(SEED))
    head, other = (model.condition({name: table[k : k + 1] for name, table in drawn.items()}) for k in range(2))
    steps = list(interpolate_in_turn(head, other, model.field.parts, shares=(1.0,)))
    save_edits(
        folder,
        model,
        EditableHead(head, Similarity.identity(), UNIT_MM),
        [step.field for step in steps],
        labels=[step.part for step in steps],
        since=[step.since for step in steps],
        about={"edit": "demo", "seed": SEED, "parts": model.field.parts},
        resolution=96,
    )
