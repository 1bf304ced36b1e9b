"""implicit3dmm train: a model from a corpus."""

from pathlib import Path
from typing import Annotated, Any

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
            such as lamm, read no samples and take a recipe's name too.
        out: Run folder.
        start: Released model or weights file to start from, for heads of one's own: imhead/finetune is its config.
        resume: Go on from the folder's last checkpoint.
        explain: List the keys of the config with their meaning, and train nothing.
        device: Where to compute.
    """
    from implicit3dmm.config import describe, load_config
    from implicit3dmm.errors import InputError
    from implicit3dmm.resources import config_file
    from implicit3dmm.yaml_files import read_yaml

    path = config_file("", config)
    kind = _Networks if "network" in read_yaml(path) else _Fields
    chosen = overrides if start is None else (*overrides, f"start={start}")
    settings = load_config(kind.config(), path, chosen)
    if explain:
        print(describe(kind.config()))
        return 0
    if (out / "checkpoint.safetensors").exists() and not resume:
        raise InputError(f"{out} holds a run already; add --resume to go on with it, or choose another folder")
    heads = kind.heads(corpus)
    with run_folder(out, keeps="checkpoint.safetensors", advice="--resume goes on from the last checkpoint"):
        trainer = kind.trainer(settings, heads, out, open_device(device))
        if resume:
            trainer.resume()
        trainer.train(progress=progress("steps"))
        kind.finish(out)
    weights, run = out / "model.safetensors", trainer.run
    print(f"{weights}: {run.step} steps in {run.spent.seconds:.0f} s; {kind.use} --model {weights}")
    return 0


class _Fields:
    """The training of fields."""

    use = "fit with"

    @staticmethod
    def config() -> type:
        from implicit3dmm.training import RunConfig

        return RunConfig

    @staticmethod
    def heads(corpora: tuple[Path, ...]) -> Any:
        from implicit3dmm.data.corpora import Corpora
        from implicit3dmm.data.corpus import Corpus

        members = [Corpus(folder) for folder in corpora]
        return members[0] if len(members) == 1 else Corpora(members)

    @staticmethod
    def trainer(settings: Any, heads: Any, out: Path, device: str) -> Any:
        from implicit3dmm.training import Trainer

        return Trainer(settings, heads, out, device=device)

    @staticmethod
    def finish(out: Path) -> None:
        from implicit3dmm.training.curve import draw_curve

        draw_curve(out)


class _Networks:
    """The training of networks of registered heads."""

    use = "compare with 'implicit3dmm evaluate compare'"

    @staticmethod
    def config() -> type:
        from implicit3dmm.mesh_models.training import MeshRunConfig

        return MeshRunConfig

    @staticmethod
    def heads(corpora: tuple[Path, ...]) -> Any:
        from implicit3dmm.data.corpus import open_heads
        from implicit3dmm.errors import InputError

        if len(corpora) > 1:
            raise InputError(f"{len(corpora)} corpora given; a network of registered heads takes one; give one")
        return open_heads(corpora[0])

    @staticmethod
    def trainer(settings: Any, heads: Any, out: Path, device: str) -> Any:
        from implicit3dmm.mesh_models.training import MeshTrainer

        return MeshTrainer(settings, heads, out, device=device)

    @staticmethod
    def finish(out: Path) -> None:
        """Its losses have no unit that a picture could share."""
