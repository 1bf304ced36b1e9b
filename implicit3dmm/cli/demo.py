"""implicit3dmm demo: the main job on what the package ships."""

from pathlib import Path

from implicit3dmm.cli.common import Device

SEED = 8
"""Of the head that the other nose is taken from."""


def demo(out: Path = Path("demo"), device: Device = "auto") -> int:
    """Fits the released model to the shipped scan: a held-out head that smiles, cut, noisy, with holes and shoulders.

    The folder gets the fit and, in edits, the same head without its expression, with another one and with another nose;
    edits/picture.png shows the four.

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
    return code
