"""implicit3dmm corpus: training data from a recipe."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from implicit3dmm.cli.common import first_paragraph, progress, run_folder


def corpus(
    recipe: Positional[Annotated[str, arg(metavar="RECIPE")]],
    overrides: Positional[Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...")]] = (),
    /,
    *,
    out: Path,
) -> int:
    """Builds a corpus of heads with surface and signed-distance samples; a killed build goes on where it stopped.

    Args:
        recipe: YAML file, or the name of a shipped one: small (64 heads) or base (1,066).
        overrides: Changes to the recipe, such as train=100 detail_mm=0.3.
        out: Folder for the corpus.
    """
    from implicit3dmm.config import load_config
    from implicit3dmm.data.building import build_corpus
    from implicit3dmm.data.recipe import Recipe
    from implicit3dmm.resources import config_file

    settings = load_config(Recipe, config_file("corpora", recipe), overrides)
    with run_folder(out, keeps="shard-*", advice="the same command goes on with it"):
        made = build_corpus(settings, out, progress=progress("heads"))
    counts = ", ".join(f"{len(made.records(split))} {split}" for split in ("train", "validation", "test"))
    print(f"{out}: {counts} records of {made.recipe.source}")
    print(f"  {first_paragraph(made.source.licence)}")
    return 0
