"""implicit3dmm train: a model from a corpus."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from implicit3dmm.cli.common import Device, open_device, progress, run_folder


def train(
    config: Positional[Annotated[str, arg(metavar="CONFIG")]],
    overrides: Positional[Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...")]] = (),
    /,
    *,
    corpus: tuple[Path, ...] = (Path("corpora/base"),),
    out: Path = Path("runs/model"),
    start: Annotated[str | None, arg(name="from", metavar="MODEL")] = None,
    resume: bool = False,
    explain: bool = False,
    device: Device = "auto",
) -> int:
    """Trains a model; the run folder gets config, checkpoints, metrics, the loss curve and model.safetensors.

    Args:
        config: YAML file, or a shipped one such as imhead/tiny, imhead/base, deepsdf/base.
        overrides: Changes to the config, such as training.steps=2000 field.blend.neighbours=8.
        corpus: Folder that 'implicit3dmm corpus' made; several train one model together.
        out: Run folder.
        start: Released model or weights file to start from, for heads of one's own: imhead/finetune is its config.
        resume: Go on from the folder's last checkpoint.
        explain: List the keys of the config with their meaning, and train nothing.
        device: Where to compute.
    """
    from implicit3dmm.config import describe, load_config
    from implicit3dmm.data.corpora import Corpora
    from implicit3dmm.data.corpus import Corpus
    from implicit3dmm.errors import InputError
    from implicit3dmm.resources import config_file
    from implicit3dmm.training import RunConfig, Trainer
    from implicit3dmm.training.curve import draw_curve

    chosen = overrides if start is None else (*overrides, f"start={start}")
    settings = load_config(RunConfig, config_file("", config), chosen)
    if explain:
        print(describe(RunConfig))
        return 0
    if (out / "checkpoint.safetensors").exists() and not resume:
        raise InputError(f"{out} holds a run already; add --resume to go on with it, or choose another folder")
    members = [Corpus(folder) for folder in corpus]
    samples = members[0] if len(members) == 1 else Corpora(members)
    with run_folder(out, keeps="checkpoint.safetensors", advice="--resume goes on from the last checkpoint"):
        trainer = Trainer(settings, samples, out, device=open_device(device))
        if resume:
            trainer.resume()
        trainer.train(progress=progress("steps"))
        draw_curve(out)
    weights = out / "model.safetensors"
    print(f"{weights}: {trainer.run.step} steps in {trainer.run.spent.seconds:.0f} s; fit with --model {weights}")
    return 0
