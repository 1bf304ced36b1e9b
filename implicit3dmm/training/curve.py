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

JUDGED = {
    "gap": "real against generated heads: the critic's scores",
    "smoothness": "roughness of generated heads (1: training heads)",
    "classification": "labels that generated heads do not show",
    "features": "features that heads of one code do not share",
}
"""What an adversarial training shows, which lowers no length."""


def draw_curve(folder: Path) -> Path:
    """Draws curve.png from metrics.jsonl: by step the losses that are lengths, in mm, or those of an adversary.

    Raises:
        InputError: the run has logged nothing yet.
    """
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    if not rows:
        raise InputError(f"{folder} has logged nothing yet; train for at least training.log_every steps")
    steps = np.array([row["step"] for row in rows])
    judged = JUDGED.keys() <= rows[0].keys()
    shown, factor = (JUDGED, 1) if judged else (SHOWN, UNIT_MM)
    series = {label: np.array([row[name] for row in rows]) * factor for name, label in shown.items() if name in rows[0]}
    window = np.ones(min(SMOOTHING, len(rows)))
    smooth = {
        name: (steps, np.convolve(values, window, "same") / np.convolve(np.ones(len(rows)), window, "same"))
        for name, values in series.items()
    }
    path = folder / "curve.png"
    ylabel = "loss" if judged else "mm"
    write_png(path, plot_curves(smooth, title="Training loss", xlabel="step", ylabel=ylabel, log_y=not judged))
    return path
