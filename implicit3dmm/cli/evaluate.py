"""implicit3dmm evaluate: figures on held-out heads."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from implicit3dmm.cli.common import Device, open_device, progress, run_folder


def evaluate(
    protocol: Positional[Literal["reconstruction"]],
    /,
    corpus: Path,
    out: Path,
    model: str = "imhead",
    split: Literal["test", "validation", "train"] = "test",
    heads: int | None = None,
    points: int = 10000,
    steps: int = 250,
    resolution: int = 256,
    seed: int = 0,
    device: Device = "auto",
) -> int:
    """Measures a model on heads that it has never seen; a stopped run goes on where it stopped.

    reconstruction: each head is given as surface points in a random pose and unit, fitted, and compared with the
    exact surface; the mean head stands beside it. docs/metrics.md defines the figures.

    Args:
        protocol: What to measure.
        corpus: Folder that 'implicit3dmm corpus' made; its recipe names the heads.
        out: Folder for results.jsonl, summary.md and summary.json.
        model: Released model or weights file.
        split: Which heads.
        heads: Only the first so many.
        points: Points of each scan.
        steps: Steps of the solver.
        resolution: Cells along the longest side of the meshes' box.
        seed: Seed of points and poses.
        device: Where to compute.
    """
    import implicit3dmm
    from implicit3dmm.data.corpus import Corpus
    from implicit3dmm.evaluation.protocols import ReconstructionConfig, evaluate_reconstruction
    from implicit3dmm.extraction import extract
    from implicit3dmm.fitting import FitConfig, fit
    from implicit3dmm.models import load_model

    loaded = load_model(model, device=open_device(device))
    held_out = Corpus(corpus)
    config = ReconstructionConfig(split=split, heads=heads, points=points, seed=seed)
    settings = FitConfig(seed=seed, steps=steps, points=points)
    for part in (config, settings):
        part.validate()
    about = {"implicit3dmm": implicit3dmm.__version__, "model": loaded.name, "steps": steps, "resolution": resolution}
    with run_folder(out, keeps="results.jsonl", advice="the same command goes on with it"):
        evaluate_reconstruction(
            held_out,
            lambda scan: fit(scan, loaded, config=settings, resolution=resolution),
            mean_head=extract(loaded, loaded.prior.mean(), resolution=resolution).mesh,
            folder=out,
            config=config,
            about=about,
            progress=progress(protocol),
        )
    print((out / "summary.md").read_text(encoding="utf-8"))
    return 0
