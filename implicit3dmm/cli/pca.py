"""implicit3dmm pca: a linear model of registered heads."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from implicit3dmm.cli.common import first_paragraph


def pca(
    corpus: Positional[Annotated[str, arg(metavar="CORPUS")]],
    /,
    *,
    out: Annotated[Path, arg(metavar="FILE.safetensors")],
    components: int = 256,
    shows: Literal["neutral", "all", "additive"] = "neutral",
    expression_components: int = 0,
) -> int:
    """Makes a PCA model of the training heads of a corpus: the baseline of every table.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe: its heads are made again, no samples are read.
        out: File for the model.
        components: Number of components, fewer than training heads.
        shows: Heads at rest; all records alike; or heads at rest, and by components of their own what expressions add.
        expression_components: Number of the latter.
    """
    from dataclasses import replace

    from implicit3dmm.data.corpus import open_heads
    from implicit3dmm.errors import InputError
    from implicit3dmm.evaluation.gate import projection_gate
    from implicit3dmm.mesh_models.pca import PCAModel, save_pca

    if out.suffix != ".safetensors":
        raise InputError(f"--out is {out}; a file that ends in .safetensors was expected; rename it")
    heads = open_heads(corpus)
    model = PCAModel.of(
        heads,
        components=components,
        name=out.stem,
        shows=shows,
        expression_components=expression_components,
    )
    gate = projection_gate(model, heads)
    save_pca(out, replace(model, info={**model.info, "gate": gate}))
    print(f"{out}: {len(model.deviations)} components of {model.info['heads']} heads")
    print(f"  {gate}")
    print(f"  {first_paragraph(model.info['licence'])}")
    return 0
