"""Protocols of fields and of fits to points; principal components, which can be fitted too, stand beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from implicit3dmm.cli.common import Device, progress
from implicit3dmm.cli.evaluate.common import Heads, Models, Split, TheHeads, TheModels, results, show


def reconstruction(
    corpus: str, out: Path, models: TheModels = Models(), heads: TheHeads = Heads(), points: int = 10000
) -> int:
    """Held-out heads from surface points in a random pose and unit, against the exact surfaces.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe (a YAML file or a shipped one, such as base).
        out: Folder for summary.md, summary.json, errors.png and a folder of each model.
        models: What is tested.
        heads: Which heads.
        points: Points of each scan.
    """
    from implicit3dmm.evaluation.reconstruction import evaluate_reconstruction

    return _measure(evaluate_reconstruction, corpus, out, models, heads, points=points)


def noise(
    corpus: str,
    out: Path,
    models: TheModels = Models(),
    heads: TheHeads = Heads(),
    noise_mm: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0),
    points: tuple[int, ...] = (10000, 1000, 250),
    views: tuple[str, ...] = ("whole", "frontal"),
) -> int:
    """Reconstruction from fewer and noisier points, of the whole head and of what one frontal camera sees.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe (a YAML file or a shipped one, such as base).
        out: Folder for summary.md, summary.json, noise.png and a folder of each model.
        models: What is tested.
        heads: Which heads.
        noise_mm: Standard deviations of the noise in each coordinate, the subject's mm.
        points: Numbers of points.
        views: What the scans show; see docs/metrics.md.
    """
    from implicit3dmm.evaluation.robustness import evaluate_noise

    return _measure(evaluate_noise, corpus, out, models, heads, noise_mm=noise_mm, points=points, views=views)


def partial(
    corpus: str,
    out: Path,
    models: TheModels = Models(),
    heads: TheHeads = Heads(),
    views: tuple[str, ...] = (
        "whole", "frontal", "front half", "left half", "face", "no cranium", "no ears", "holes"
    ),
    points: int = 10000,
    noise_mm: float = 0.0,
) -> int:  # fmt: skip
    """Reconstruction from scans that show but a part of the head.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe (a YAML file or a shipped one, such as base).
        out: Folder for summary.md, summary.json and a folder of each model.
        models: What is tested.
        heads: Which heads.
        views: What the scans show; see docs/metrics.md.
        points: Points of each scan.
        noise_mm: Standard deviation of the noise in each coordinate, the subject's mm.
    """
    from implicit3dmm.evaluation.robustness import evaluate_partial

    return _measure(evaluate_partial, corpus, out, models, heads, views=views, points=points, noise_mm=noise_mm)


def specificity(
    corpus: str,
    out: Path,
    model: tuple[str, ...] = ("imhead",),
    samples: int = 1000,
    levels: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    train_heads: int | None = None,
    resolution: int = 64,
    seed: int = 0,
    device: Device = "auto",
) -> int:
    """New heads drawn from a model's prior, and how far each is from the nearest training head.

    Args:
        corpus: What the models were trained on: a corpus's folder or a recipe; its test heads stand beside the samples.
        out: Folder for summary.md, summary.json, specificity.png and a folder of each model.
        model: Released models, weights files of fields or of principal components.
        samples: Samples of each model in all, shared out among the levels.
        levels: Factors of the prior's standard deviations.
        train_heads: Only the first so many training heads.
        resolution: Cells along the longest side of the box of a field's meshes.
        seed: Seed of the draws.
        device: Where to compute.
    """
    from implicit3dmm.data.corpus import open_heads
    from implicit3dmm.evaluation.specificity import SpecificityConfig, evaluate_specificity

    config = SpecificityConfig(samples=samples, levels=levels, heads=train_heads, seed=seed)
    methods = Models(model=model, resolution=resolution, device=device).open(seed=seed)
    source = open_heads(corpus)
    with results(out):
        evaluate_specificity(source, methods, folder=out, config=config, progress=progress("specificity"))
    return show(out)


def scale(
    corpus: tuple[str, ...], out: Path, models: TheModels = Models(), heads: TheHeads = Heads(), points: int = 10000
) -> int:
    """Models that were trained on more and on other heads (rows), tested on several sets of heads (columns).

    Args:
        corpus: Test sets: folders that 'implicit3dmm corpus' made, or recipes.
        out: Folder for summary.md, summary.json and a folder of each test set, as 'reconstruction' makes it.
        models: What is tested.
        heads: Which heads of each test set.
        points: Points of each scan.
    """
    from implicit3dmm.data.corpus import open_heads
    from implicit3dmm.evaluation.scale import evaluate_scale

    held_out, methods = heads.held_out(), models.open(seed=heads.seed)
    test_sets = [open_heads(name) for name in corpus]
    with results(out, keeps="*/*/results.jsonl"):
        evaluate_scale(test_sets, methods, folder=out, held_out=held_out, points=points, progress=progress("scale"))
    return show(out)


def alignment(
    corpus: str,
    out: Path,
    split: Split = "test",
    poses: int = 50,
    kinds: tuple[str, ...] = ("whole", "front", "noise", "shoulders"),
    units: tuple[Literal["mm", "m", "none"], ...] = ("mm", "m", "none"),
    scan: Path | None = None,
    scan_pose: Path | None = None,
    points: int = 10000,
    seed: int = 0,
) -> int:
    """Scans in random poses and units, and how many are brought to the canonical frame.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe (a YAML file or a shipped one, such as base).
        out: Folder for results.jsonl, summary.md and summary.json.
        split: Which of the corpus's heads.
        poses: Random poses of each kind and unit.
        kinds: Kinds of scans: whole, front, noise, shoulders, view, hair.
        units: Units of the scans, which the alignment is not told.
        scan: A real scan that is aligned as often as the heads.
        scan_pose: Its true pose, a 4 x 4 matrix to the canonical frame (.txt, .npy or .json).
        points: Points of each scan of a whole head.
        seed: Seed of scans, poses and alignments.
    """
    from implicit3dmm.data.corpus import open_heads
    from implicit3dmm.errors import InputError
    from implicit3dmm.evaluation.alignment import AlignmentConfig, RealScan, evaluate_alignment
    from implicit3dmm.fitting.files import read_transform
    from implicit3dmm.geometry.mesh import read_mesh

    if (scan is None) != (scan_pose is None):
        raise InputError("one of --scan and --scan-pose is given; a real scan needs both; give both or neither")
    real = scan and RealScan(scan.name, read_mesh(scan), read_transform(scan_pose))
    config = AlignmentConfig(split=split, poses=poses, kinds=kinds, units=units, points=points, seed=seed)
    source = open_heads(corpus)
    with results(out, keeps="results.jsonl"):
        evaluate_alignment(source, folder=out, config=config, scan=real, progress=progress("alignment"))
    return show(out)


def expressions(
    corpus: str, out: Path, models: TheModels = Models(), heads: TheHeads = Heads(), points: int = 10000
) -> int:
    """Held-out heads under expressions: the surface, and the way back to the neutral head.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe with expressions, such as expressive.
        out: Folder for summary.md, summary.json, pictures of the correspondence and a folder of each model.
        models: What is tested.
        heads: Which heads; a subject has one for each expression, one after the other.
        points: Points of each scan.
    """
    from implicit3dmm.evaluation.expressions import evaluate_expressions

    return _measure(evaluate_expressions, corpus, out, models, heads, points=points)


def registration(
    corpus: str, out: Path, models: TheModels = Models(), heads: TheHeads = Heads(), points: int = 10000
) -> int:
    """Held-out heads in the template's topology, and how far each vertex is from its true place.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe (a YAML file or a shipped one, such as base).
        out: Folder for summary.md, summary.json and a folder of each model.
        models: What is tested.
        heads: Which heads.
        points: Points of each scan.
    """
    from implicit3dmm.evaluation.registration import evaluate_registration

    return _measure(evaluate_registration, corpus, out, models, heads, points=points)


def parts(
    corpus: str,
    out: Path,
    models: TheModels = Models(),
    heads: TheHeads = Heads(),
    points: int = 10000,
    samples: int = 150_000,
    part_samples: int = 10_000,
) -> int:
    """Held-out heads as in 'reconstruction', and their nose, eyes and mouth, each from samples of its own.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe (a YAML file or a shipped one, such as base).
        out: Folder for summary.md, summary.json and a folder of each model.
        models: What is tested.
        heads: Which heads.
        points: Points of each scan.
        samples: Samples, on either surface, of the whole head, of the head above its neck, and of the remainder.
        part_samples: Samples of nose, eyes and mouth each.
    """
    from implicit3dmm.evaluation.parts import evaluate_parts

    counts = {"samples": samples, "part_samples": part_samples}
    return _measure(evaluate_parts, corpus, out, models, heads, points=points, **counts)


def locality(
    corpus: str,
    out: Path,
    models: TheModels = Models(),
    parts: tuple[str, ...] = ("nose", "mouth", "eyes", "ears"),
    pairs: int = 20,
    frames: Literal["part", "all"] = "part",
    split: Split = "test",
    seed: int = 0,
) -> int:
    """Parts swapped between held-out heads, and where the surface moved.

    Args:
        corpus: Folder that 'implicit3dmm corpus' made, or a recipe (a YAML file or a shipped one, such as base).
        out: Folder for summary.md, summary.json and a folder of each model.
        models: What is tested.
        parts: Parts that are swapped, one at a time.
        pairs: Pairs of heads, each with the next one of its split.
        frames: Whether a part's local frames alone move, or the landmark network places all anew.
        split: Which of the corpus's heads.
        seed: Seed of the points that are fitted.
    """
    from implicit3dmm.data.corpus import open_heads
    from implicit3dmm.evaluation.locality import LocalityConfig, evaluate_locality

    config = LocalityConfig(parts=parts, pairs=pairs, frames=frames, split=split, seed=seed)
    methods, source = models.open(seed=seed), open_heads(corpus)
    with results(out):
        evaluate_locality(source, methods, folder=out, config=config, progress=progress("locality"))
    return show(out)


def _measure(protocol: Callable, corpus: str, out: Path, models: Models, heads: Heads, **options: Any) -> int:
    """Runs a protocol on one corpus, with `options` of its own."""
    from implicit3dmm.data.corpus import open_heads

    held_out, methods, source = heads.held_out(), models.open(seed=heads.seed), open_heads(corpus)
    with results(out):
        bar = progress(protocol.__name__.removeprefix("evaluate_"))
        protocol(source, methods, folder=out, held_out=held_out, progress=bar, **options)
    return show(out)
