"""The loss curve of a run as a picture."""

import json
from pathlib import Path

import numpy as np

from implicit3dmm.errors import InputError
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.render import plot_curves, write_png

SMOOTHING = 9

SHOWN = {
    "surface": "surface: mean |f| on it",
    "distance": "around it: mean weighted error",
    "correspondence": "warp: mean distance to the neutral place",
    "heads": "registered heads: mean error of a coordinate",
    "control": "with moved control points: mean error of a coordinate",
}
"""The losses that are lengths, and what the picture calls them."""


def draw_curve(folder: Path) -> Path:
    """Draws curve.png from metrics.jsonl: the losses that are lengths, in mm, by step.

    Raises:
        InputError: the run has logged nothing yet.
    """
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    if not rows:
        raise InputError(f"{folder} has logged nothing yet; train for at least training.log_every steps")
    steps = np.array([row["step"] for row in rows])
    series = {
        label: np.array([row[name] for row in rows]) * UNIT_MM for name, label in SHOWN.items() if name in rows[0]
    }
    window = np.ones(min(SMOOTHING, len(rows)))
    smooth = {
        name: (steps, np.convolve(values, window, "same") / np.convolve(np.ones(len(rows)), window, "same"))
        for name, values in series.items()
    }
    path = folder / "curve.png"
    write_png(path, plot_curves(smooth, title="Training loss", xlabel="step", ylabel="mm", log_y=True))
    return path
