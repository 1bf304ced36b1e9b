"""implicit3dmm train: a model from a corpus."""

from collections.abc import Callable
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
        config: YAML file, or a shipped one such as imhead/tiny, imhead/base, deepsdf/base, lamm/base.
        overrides: Changes to the config, such as training.steps=2000 field.blend.neighbours=8.
        corpus: Folder that 'implicit3dmm corpus' made; several train one field together. Networks of registered heads,
            such as lamm, read no samples and take a recipe's name too, or a folder of meshes in LAMM's layout.
        out: Run folder.
        start: Released model or weights file to start from, for heads of one's own: imhead/finetune is its config.
        resume: Go on from the folder's last checkpoint.
        explain: List the keys of the config with their meaning, and train nothing.
        device: Where to compute.
    """
    from implicit3dmm.config import describe, load_config
    from implicit3dmm.errors import InputError
    from implicit3dmm.resources import config_file
    from implicit3dmm.training.curve import draw_curve
    from implicit3dmm.yaml_files import read_yaml

    path = config_file("", config)
    kind, open_trainer, use = _networks() if "network" in read_yaml(path) else _fields()
    chosen = overrides if start is None else (*overrides, f"start={start}")
    settings = load_config(kind, path, chosen)
    if explain:
        print(describe(kind))
        return 0
    if (out / "checkpoint.safetensors").exists() and not resume:
        raise InputError(f"{out} holds a run already; add --resume to go on with it, or choose another folder")
    with run_folder(out, keeps="checkpoint.safetensors", advice="--resume goes on from the last checkpoint"):
        trainer = open_trainer(settings, corpus, out, open_device(device))
        if resume:
            trainer.resume()
        trainer.train(progress=progress("steps"))
        draw_curve(out)
    weights, run = out / "model.safetensors", trainer.run
    print(f"{weights}: {run.step} steps in {run.spent.seconds:.0f} s; {use} --model {weights}")
    return 0


def _fields() -> tuple[type, Callable, str]:
    """Of fields: the config's class, what opens a trainer, and what to do with the weights."""
    from implicit3dmm.data.corpora import Corpora
    from implicit3dmm.data.corpus import Corpus
    from implicit3dmm.training import RunConfig, Trainer

    def open_trainer(settings: RunConfig, corpora: tuple[Path, ...], out: Path, device: str) -> Trainer:
        members = [Corpus(folder) for folder in corpora]
        return Trainer(settings, members[0] if len(members) == 1 else Corpora(members), out, device=device)

    return RunConfig, open_trainer, "fit with"


def _networks() -> tuple[type, Callable, str]:
    """The same of networks of registered heads."""
    from implicit3dmm.data.corpus import open_heads
    from implicit3dmm.data.lamm_layout import LAMMFolder, is_lamm_folder
    from implicit3dmm.errors import InputError
    from implicit3dmm.mesh_models.training import MeshRunConfig, MeshTrainer

    def open_trainer(settings: MeshRunConfig, corpora: tuple[Path, ...], out: Path, device: str) -> MeshTrainer:
        if len(corpora) > 1:
            raise InputError(f"{len(corpora)} corpora given; a network of registered heads takes one; give one")
        given = corpora[0]
        heads = LAMMFolder(given) if is_lamm_folder(given) else open_heads(given)
        trainer = MeshTrainer(settings, heads, out, device=device)
        if trainer.network.remark:
            print(trainer.network.remark)
        return trainer

    return MeshRunConfig, open_trainer, "compare with 'implicit3dmm evaluate compare'"
