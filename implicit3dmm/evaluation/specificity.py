"""Specificity: how much a model's new heads look like heads (imHead, section 4 and Fig. 3)."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

import implicit3dmm
from implicit3dmm.data.heads import Heads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.estimates import known
from implicit3dmm.evaluation.methods import Method
from implicit3dmm.evaluation.nearest import HeadIndex
from implicit3dmm.evaluation.results import ResultsFolder, Row, write_json
from implicit3dmm.evaluation.statistics import Estimate, estimate_mean
from implicit3dmm.evaluation.summary import write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.evaluation.trials import MEAN_HEAD
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.render.curves import plot_curves
from implicit3dmm.render.pictures import write_png

HELD_OUT = "held-out heads"
"""Heads of the same population that the models were not trained on: what a sample as good as these would score."""

STREAM = 4
"""Last word of the draws' seeds."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpecificityConfig:
    """Which samples are drawn, and what they are compared with."""

    samples: int
    """Samples of each method in all, shared out evenly among the levels."""
    levels: tuple[float, ...]
    """Factors of the prior's standard deviations."""
    train: str = "train"
    """Split that the nearest head is looked for in."""
    held_out: str = "test"
    """Split of the heads that stand beside the samples."""
    heads: int | None = None
    """Only the first so many training heads; all by default."""
    seed: int = 0
    """Seed of the draws."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if not self.levels or not all(0 <= level < np.inf for level in self.levels):
            raise InputError(f"levels is {self.levels}; give one or more numbers of at least 0")
        if len(set(self.levels)) < len(self.levels):
            raise InputError(f"levels is {self.levels}; give each level once")
        if self.samples < len(self.levels):
            raise InputError(f"samples is {self.samples}; give at least one for each of {len(self.levels)} levels")
        if self.heads is not None and self.heads < 1:
            raise InputError(f"heads is {self.heads}; give at least 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give at least 0")


def evaluate_specificity(
    heads: Heads,
    methods: Sequence[Method],
    *,
    folder: str | Path,
    config: SpecificityConfig,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, list[Row]]:
    """Draws new heads and measures how far each is from the nearest training head.

    A sample's distance to a head is the mean distance of its vertices, each for its share of the sample's area, to the
    head's exact surface, in the canonical frame and in millimetres of an average adult; the neck is left out. The
    prior's standard deviations are multiplied by each level in turn; draw number i is the same direction at every
    level. A low figure alone is no praise, as the mean head has a low one too: a model's samples should be about as
    far from the training heads as held-out heads are, which stand beside them.

    The folder gets one folder a method, which keeps each sample's row and goes on where it was, summary.json,
    summary.md and specificity.png.

    Args:
        heads: what the methods were trained on, and held-out heads beside them.
        methods: whose samples.
        folder: where the results go.
        config: which samples.
        progress: wraps what is to be done, such as `tqdm`.

    Returns:
        Rows by the name of the method; "held-out heads" and "mean head" (of the first method) are two more.

    Raises:
        InputError: a setting is out of range, a split is empty, or a folder belongs to another run or cannot be
            written to.
    """
    config.validate()
    common = {
        "protocol": "specificity",
        "recipe": asdict(heads.recipe),
        "train": config.train,
        "heads": config.heads,
        "implicit3dmm": implicit3dmm.__version__,
    }
    planned = _planned(heads, methods, config)
    results = {
        series.name: ResultsFolder.of_method(folder, series.name, common | series.settings) for series in planned
    }
    done = {name: {(row["level"], row["number"]) for row in kept.rows} for name, kept in results.items()}
    pending = [(series, draw) for series in planned for draw in series.draws if draw not in done[series.name]]
    if pending:
        index = HeadIndex(heads, progress(heads.records(config.train)[: config.heads].tolist()))
        for series, draw in progress(pending):
            results[series.name].append(_row(series, index, *draw))
    rows = {
        series.name: [row for row in results[series.name].rows if (row["level"], row["number"]) in set(series.draws)]
        for series in planned
    }
    _write_summary(Path(folder), rows, config)
    return rows


@dataclass(frozen=True, eq=False)
class _Series:
    """Heads of one kind.

    Attributes:
        name: what the table calls them.
        settings: what decides on them.
        draws: level and number of each.
        make: the head of a level and number, canonical units.
    """

    name: str
    settings: Mapping[str, Any]
    draws: Sequence[tuple[float, int]]
    make: Callable[[float, int], Mesh]


def _planned(heads: Heads, methods: Sequence[Method], config: SpecificityConfig) -> list[_Series]:
    """The samples of each method, then what stands beside them."""
    draws = [(level, number) for number in range(config.samples // len(config.levels)) for level in config.levels]
    samples = [
        _Series(
            method.name, {"seed": config.seed, "method": method.settings}, draws, partial(_draw, method, config.seed)
        )
        for method in methods
    ]
    held_out = [(0.0, record) for record in heads.records(config.held_out).tolist()]
    first = methods[0]
    return [
        *samples,
        _Series(HELD_OUT, {}, held_out, lambda _, record: heads.mesh(record)),
        _Series(MEAN_HEAD, {"method": first.settings}, [(0.0, 0)], lambda *_: first.mean_head),
    ]


def _draw(method: Method, seed: int, level: float, number: int) -> Mesh:
    rng = np.random.default_rng([seed, number, STREAM])
    return next(iter(method.sample(1, temperature=level, rng=rng)))


def _row(series: _Series, index: HeadIndex, level: float, number: int) -> Row:
    cpu = time.process_time()
    row: Row = {"level": level, "number": number, "distance_mm": None, "nearest": None, "error": None}
    try:
        found = index.nearest(series.make(level, number))
        row |= {"distance_mm": found.distance_mm, "nearest": found.record}
    except InputError as error:  # such as a sample without a surface; it is counted, and the others go on
        log.warning("%s: sample %d at %g standard deviations failed", series.name, number, level, exc_info=True)
        row["error"] = str(error)
    return row | {"cpu_seconds": time.process_time() - cpu}


def _write_summary(folder: Path, rows: Mapping[str, Sequence[Row]], config: SpecificityConfig) -> None:
    yardsticks = {name: estimate_mean(_distances(rows[name])) for name in (HELD_OUT, MEAN_HEAD)}
    methods = {
        name: {level: _at(each, level) for level in config.levels}
        for name, each in rows.items()
        if name not in yardsticks
    }
    write_json(folder / "summary.json", _to_json(rows, methods, yardsticks))
    write_text(folder / "summary.md", _to_markdown(rows, methods, yardsticks, config))
    curves = {name: [value.mean for value in by_level.values()] for name, by_level in methods.items()}
    curves |= {name: [value.mean] * len(config.levels) for name, value in yardsticks.items()}
    picture = plot_curves(
        {name: (list(config.levels), errors) for name, errors in curves.items()},
        title="Distance of samples to the nearest training head",
        xlabel="standard deviations of the prior",
        ylabel="specificity error, mm",
    )
    write_png(folder / "specificity.png", picture)


def _at(rows: Sequence[Row], level: float) -> Estimate:
    return estimate_mean(_distances([row for row in rows if row["level"] == level]))


def _distances(rows: Sequence[Row]) -> Float[np.ndarray, " n"]:
    return np.array([known(row["distance_mm"]) for row in rows])


def _to_json(
    rows: Mapping[str, Sequence[Row]],
    methods: Mapping[str, Mapping[float, Estimate]],
    yardsticks: Mapping[str, Estimate],
) -> dict[str, Any]:
    return {
        "interval": "mean ± half_width: 95 %, Student's t over samples",
        "methods": {
            name: {
                "levels": {f"{level:g}": value._asdict() for level, value in by_level.items()},
                "failed": sum(row["error"] is not None for row in rows[name]),
            }
            for name, by_level in methods.items()
        },
        **{name: value._asdict() for name, value in yardsticks.items()},
    }


def _to_markdown(
    rows: Mapping[str, Sequence[Row]],
    methods: Mapping[str, Mapping[float, Estimate]],
    yardsticks: Mapping[str, Estimate],
    config: SpecificityConfig,
) -> str:
    header = ["samples of", *(f"{level:g} sd" for level in config.levels), "failed"]
    lines = [
        [
            name,
            *(plus_minus(value, digits=2) for value in by_level.values()),
            str(sum(row["error"] is not None for row in rows[name])),
        ]
        for name, by_level in methods.items()
    ]
    lines += [[name, *(plus_minus(value, digits=2) for _ in config.levels), "0"] for name, value in yardsticks.items()]
    return (
        "Distance of a new head to the nearest training head, neck masked, mm of an average adult; mean ± half-width of"
        f" the 95 % interval over samples, {config.samples // len(config.levels)} at each level. The prior's standard"
        f" deviations are multiplied by the level. The {yardsticks[HELD_OUT].count} held-out heads are of the same"
        f" population.\n\n{markdown_table(header, lines)}"
    )
