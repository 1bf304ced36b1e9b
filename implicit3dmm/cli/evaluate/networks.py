"""Protocols of registered heads: everything in one table, and what models of registered heads alone can do."""

from pathlib import Path

from implicit3dmm.cli.common import progress
from implicit3dmm.cli.evaluate.common import Heads, Split, TheHeads, results, show


def compare(
    corpus: str,
    out: Path,
    model: tuple[str, ...] = ("imhead", "parts", "lamm"),
    heads: TheHeads = Heads(heads=20),
    points: int = 10000,
    resolution: int = 128,
) -> int:
    """Everything in one table: fields from loose points, principal components from points and from vertices, networks
    of registered heads from vertices; errors, sizes, times and memory.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe (a YAML file or a shipped one, such as registered).
        out: Folder for summary.md, summary.json, vertices.png and a folder of each model.
        model: Released models, files of fields, of principal components and of networks of registered heads.
        heads: Whose surfaces are measured; distances of vertices are taken over the whole split.
        points: Points of each scan.
        resolution: Cells along the longest side of the box of a field's meshes.
    """
    from implicit3dmm.data.corpus import open_heads
    from implicit3dmm.evaluation.compare import evaluate_compare

    source = open_heads(corpus)
    with results(out, keeps="*/*/results.jsonl"):
        evaluate_compare(
            source,
            model,
            folder=out,
            held_out=heads.held_out(),
            points=points,
            resolution=resolution,
            progress=progress("compare"),
        )
    return show(out)


def control(
    corpus: str,
    out: Path,
    model: tuple[str, ...] = ("lamm",),
    regions: tuple[str, ...] = ("nose", "mouth", "eye_L", "ear_L", "chin"),
    split: Split = "test",
    subjects: int | None = None,
) -> int:
    """Control points of registered heads moved to where other heads have them, and how local edits of regions are.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe (a YAML file or a shipped one, such as registered).
        out: Folder for summary.md, summary.json and locality.png.
        model: Released networks of registered heads or weights files: lamm, sdvae.
        regions: Regions that are edited, one at a time.
        split: Which of the corpus's heads.
        subjects: Only the first so many people.
    """
    from implicit3dmm.data.corpus import open_heads
    from implicit3dmm.evaluation.control import evaluate_control
    from implicit3dmm.mesh_models.model import load_network

    models = [load_network(name) for name in model]
    source = open_heads(corpus)
    with results(out, keeps="summary.json"):
        evaluate_control(
            source,
            models,
            folder=out,
            split=split,
            pairs=subjects,
            regions=regions,
            progress=progress("control"),
        )
    return show(out)


def decoupling(
    corpus: str,
    out: Path,
    model: tuple[str, ...] = ("adversarial",),
    pairs: int = 10000,
    faces: int = 100,
    variants: int = 100,
    specimens: int = 1000,
    seed: int = 0,
) -> int:
    """Heads drawn from models: how they differ, whether those that share a person or an expression show it, and how far
    they are from training heads, beside the training heads themselves.

    Args:
        corpus: What the models were trained on: a folder that 'implicit3dmm corpus' made, or a recipe.
        out: Folder for summary.md, summary.json and a folder of each model with a picture.
        model: Released networks of registered heads, their weights files, files of principal components.
        pairs: Pairs of heads for each diversity.
        faces: Heads for each decoupling.
        variants: Further heads that share a factor with each of them.
        specimens: Heads for the specificity.
        seed: Seed of the draws.
    """
    from implicit3dmm.data.corpus import open_heads
    from implicit3dmm.evaluation.decoupling import DecouplingConfig, evaluate_decoupling
    from implicit3dmm.evaluation.verification import VerifierConfig

    config = DecouplingConfig(pairs=pairs, faces=faces, variants=variants, specimens=specimens, seed=seed)
    source = open_heads(corpus)
    with results(out):
        evaluate_decoupling(
            source,
            model,
            folder=out,
            config=config,
            verifier=VerifierConfig(seed=seed),
            progress=progress("decoupling"),
        )
    return show(out)


def landmarks(
    corpus: str,
    out: Path,
    model: tuple[str, ...] = ("adversarial",),
    weights: tuple[float, ...] = (0.0, 0.1, 1.0, 10.0),
    split: Split = "test",
    subjects: int | None = None,
    seed: int = 0,
) -> int:
    """Registered heads from their 68 landmarks alone, by how much a code's length counts.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe (a YAML file or a shipped one, such as registered).
        out: Folder for summary.md, summary.json and a folder of each model.
        model: Released networks of registered heads, their weights files, files of principal components.
        weights: Of a code's squared length beside squared millimetres.
        split: Which of the corpus's heads.
        subjects: Only the first so many people.
        seed: Seed of the searches' starts.
    """
    from implicit3dmm.data.corpus import open_heads
    from implicit3dmm.evaluation.landmarks import LandmarkConfig, evaluate_landmarks

    config = LandmarkConfig(split=split, subjects=subjects, weights=weights, seed=seed)
    source = open_heads(corpus)
    with results(out):
        evaluate_landmarks(source, model, folder=out, config=config, progress=progress("landmarks"))
    return show(out)
