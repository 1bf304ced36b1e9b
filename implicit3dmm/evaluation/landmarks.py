"""Heads from 68 landmarks alone: how near the rest comes, and how much the codes have to be held (Abrevaya et al. 2019,
section 5.5 and equation 13)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

import implicit3dmm
from implicit3dmm.data.heads import Heads
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.estimates import over_heads
from implicit3dmm.evaluation.references import Reference, check_names, open_reference
from implicit3dmm.evaluation.results import ResultsFolder, write_json
from implicit3dmm.evaluation.statistics import Estimate
from implicit3dmm.evaluation.summary import write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.template import FACE_REGIONS
from implicit3dmm.mesh_models.landmark_fit import fit_landmarks


@dataclass(frozen=True)
class LandmarkConfig:
    """Which heads, and how codes are held."""

    split: str = "test"
    """Whose heads."""
    subjects: int | None = None
    """Only the first so many people."""
    weights: tuple[float, ...] = (0.0, 0.1, 1.0, 10.0)
    """Of a code's squared norm beside squared millimetres."""
    seed: int = 0
    """Of the starts."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if not self.weights or not all(0 <= weight < np.inf for weight in self.weights):
            raise InputError(f"weights is {self.weights}; give one or more of at least 0")
        if len(set(self.weights)) < len(self.weights):
            raise InputError(f"weights is {self.weights}; give each once")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give at least 0")


class Sparse(NamedTuple):
    """Errors of one weight, mm of the average adult."""

    face: Estimate
    """Root mean square distance of the face's vertices."""
    landmarks: Estimate
    """Of the landmarks themselves."""
    length: Estimate
    """Root mean square of a code's numbers; 1 for a likely head."""


def evaluate_landmarks(
    heads: Heads,
    models: Sequence[str],
    *,
    folder: str | Path,
    config: LandmarkConfig,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, dict[float, Sparse]]:
    """Fits codes to the 68 landmarks of held-out heads in the canonical frame, under each weight.

    Args:
        heads: whose held-out heads, with all their expressions.
        models: networks of registered heads, and files of principal components.
        folder: where summary.md, summary.json and a folder for each model go; a stopped run goes on.
        config: which heads.
        progress: wraps the fits to do, such as `tqdm`.

    Returns:
        Errors by model and weight.

    Raises:
        InputError: a setting is out of range, a model is of another topology or two have one name, or the folder
            belongs to another run or cannot be written to.
    """
    config.validate()
    template = heads.source.template
    face, landmarks = np.flatnonzero(template.in_regions(*FACE_REGIONS)), np.asarray(template.landmarks, np.int64)
    opened = [open_reference(model) for model in models]
    check_names([model.name for model in opened])
    for model in opened:
        model.check(heads)
    data = RegisteredHeads.of(heads, config.split, subjects=config.subjects)
    tables: dict[str, dict[float, Sparse]] = {}
    for model in opened:
        settings = {
            "protocol": "landmarks",
            "recipe": asdict(heads.recipe),
            "config": asdict(config),
            "implicit3dmm": implicit3dmm.__version__,
            "method": model.settings,
        }
        kept = ResultsFolder.of_method(folder, model.name, settings)
        done = {(row["head"], row["weight"]) for row in kept.rows}
        todo = [(row, weight) for row in range(len(data)) for weight in config.weights if (row, weight) not in done]
        for row, weight in progress(todo):
            rng = np.random.default_rng([config.seed, row])
            figures = _fitted(model, data.vertices[row], landmarks, face, weight, rng)
            kept.append({"head": row, "subject": int(data.subjects[row]), "weight": weight, **figures})
        tables[model.name] = {
            weight: Sparse(*(_mean(kept.rows, weight, figure) for figure in Sparse._fields))
            for weight in config.weights
        }
    plain = {
        name: {weight: {k: v._asdict() for k, v in row._asdict().items()} for weight, row in rows.items()}
        for name, rows in tables.items()
    }
    write_json(Path(folder) / "summary.json", plain)
    write_text(Path(folder) / "summary.md", _to_markdown(tables, heads, config, len(data)))
    return tables


def _fitted(
    model: Reference,
    head: Float[np.ndarray, "v 3"],
    landmarks: Int[np.ndarray, " n"],
    face: Int[np.ndarray, " f"],
    weight: float,
    rng: np.random.Generator,
) -> dict[str, float]:
    points = head[landmarks]
    code = fit_landmarks(
        lambda codes: model.likely(codes)[:, landmarks], points, size=model.latent_size, weight=weight, rng=rng
    )
    with torch.no_grad():
        found = model.likely(torch.from_numpy(code)[None])[0].numpy()
    squares = np.square(found - head).sum(1) * UNIT_MM**2
    return {
        "face": float(np.sqrt(squares[face].mean())),
        "landmarks": float(np.sqrt(squares[landmarks].mean())),
        "length": float(np.sqrt(np.square(code).mean())),
    }


def _mean(rows: Sequence[dict], weight: float, figure: str) -> Estimate:
    own = [row for row in rows if row["weight"] == weight]
    return over_heads(np.array([row[figure] for row in own]), np.array([row["subject"] for row in own]))


def _to_markdown(tables: dict[str, dict[float, Sparse]], heads: Heads, config: LandmarkConfig, count: int) -> str:
    lines = [
        [name, f"{weight:g}", *(plus_minus(value) for value in row)]
        for name, rows in tables.items()
        for weight, row in rows.items()
    ]
    return (
        f"{count} heads of {heads.name}, {config.split} split, from their 68 landmarks alone, in the canonical frame."
        " Root mean square distances from vertex to vertex, mm of the average adult, and root mean square of a code's"
        " numbers; ± half-widths of 95 % intervals over subjects.\n\n"
        + markdown_table(["model", "weight", "face", "landmarks", "code"], lines, left=1)
    )
