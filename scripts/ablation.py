"""imHead's ablation (Potamias et al., section 6, Table 3), small enough for two CPU cores: trains, tests, tabulates.

python scripts/ablation.py --corpus corpora/base --out runs/ablation

Each variant is a config under configs/ablation; all see equally many points, 400 steps of 128 heads. What is done is
kept: the same command goes on with it. On two cores all of it takes about an hour.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import tyro
from tqdm import tqdm

from implicit3dmm.config import load_config
from implicit3dmm.data.corpus import Corpus
from implicit3dmm.evaluation.cases import HeldOut
from implicit3dmm.evaluation.estimates import estimate
from implicit3dmm.evaluation.methods import open_method
from implicit3dmm.evaluation.reconstruction import evaluate_reconstruction
from implicit3dmm.evaluation.summary import write_text
from implicit3dmm.evaluation.tables import markdown_table
from implicit3dmm.evaluation.trials import Trials
from implicit3dmm.resources import config_file
from implicit3dmm.training import RunConfig, Trainer

VARIANTS = {
    "local312": ("local codes, 312", "0.874", "0.914", "0.721"),
    "local1248": ("local codes, 1248", "0.767", "0.939", "0.788"),
    "local_global1344": ("local and global codes, 1344", "0.569", "0.958", "0.857"),
    "no_fusion": ("without FusionNet", "0.674", "0.947", "0.812"),
    "no_local_frames": ("without local frames", "0.884", "0.946", "0.732"),
    "full": ("imHead", "0.533", "0.986", "0.873"),
}
"""The paper's rows in its order: what they are, and its Chamfer distance, normal consistency and F@5mm on MimicMe."""

COLUMNS = (("neck_masked", "surface_mean_mm"), ("face", "surface_mean_mm"), ("neck_masked", "normal_consistency"))
"""Part and figure of our columns."""


def main(
    corpus: Path, out: Path, seeds: tuple[int, ...] = (0, 1, 2), heads: int = 12, resolution: int = 96, workers: int = 2
) -> None:
    """Trains every variant with every seed, fits the test heads, and writes summary.md.

    Args:
        corpus: Folder of a corpus with at least 128 training heads and the test heads.
        out: Folder for models, results and the summary.
        seeds: Seeds of the trainings.
        heads: Test heads, the first of their split.
        resolution: Cells along the longest side of the box of the fitted meshes.
        workers: Threads that share a training step.
    """
    torch.set_flush_denormal(True)
    source = Corpus(corpus)
    for variant in VARIANTS:
        for seed in seeds:
            train(variant, seed, source, out / "models" / _name(variant, seed), workers)
    files = [out / "models" / _name(variant, seed) / "model.safetensors" for variant in VARIANTS for seed in seeds]
    methods = [open_method(file, resolution=resolution) for file in files]
    trials = evaluate_reconstruction(
        source, methods, folder=out / "results", held_out=HeldOut(heads=heads), progress=tqdm
    )
    write_text(out / "summary.md", table({each.name: each for each in trials}, seeds, heads))
    print((out / "summary.md").read_text())


def train(variant: str, seed: int, corpus: Corpus, folder: Path, workers: int) -> None:
    """Trains one model, or goes on with it; one that is done is left alone."""
    if (folder / "model.safetensors").exists():
        return
    changes = (f"training.seed={seed}", f"training.workers={workers}")
    trainer = Trainer(load_config(RunConfig, config_file("ablation", variant), changes), corpus, folder)
    trainer.resume()
    trainer.train(progress=tqdm)


def table(trials: dict[str, Trials], seeds: Sequence[int], heads: int) -> str:
    """Means over seeds and heads, and standard deviations of the seeds' means."""
    rows = []
    for variant, (title, *paper) in VARIANTS.items():
        own = [trials[_name(variant, seed)] for seed in seeds]
        means = np.array([[estimate(each.rows, *column).mean for column in COLUMNS] for each in own])
        spread = means.std(axis=0, ddof=1) if len(seeds) > 1 else np.zeros(len(COLUMNS))
        cells = [f"{mean:.3f} ({std:.3f})" for mean, std in zip(means.mean(axis=0), spread, strict=True)]
        rows.append([title, str(own[0].latent_size), *cells, *paper])
    header = ["variant", "code", "above the neck, mm", "face, mm", "normals", "paper: CD", "NC", "F@5mm"]
    return (
        f"Surface error on {heads} held-out heads, mean over {len(seeds)} seeds (standard deviation of their means);"
        " at equal training points. The paper's columns are of MimicMe, whose figures do not compare with ours in size,"
        f" only in order.\n\n{markdown_table(header, rows)}"
    )


def _name(variant: str, seed: int) -> str:
    return f"{variant}-{seed}"


if __name__ == "__main__":
    tyro.cli(main)
