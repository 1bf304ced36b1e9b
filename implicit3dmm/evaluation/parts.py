"""Part by part: Chamfer distance and F-score of a head and of its parts, each from samples of its own.

So Gu and Pears judge a model of parts ("Parts-Based Implicit 3D Face Modeling", section 4.3, Tables 1 and 2): 10,000
samples lie on a nose, where samples of a whole head leave it some two thousand.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from implicit3dmm.data.heads import Heads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import Case, HeldOut, PartFigures
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.estimates import estimate, estimate_difference
from implicit3dmm.evaluation.methods import Method
from implicit3dmm.evaluation.metrics import Region, nearest_corners
from implicit3dmm.evaluation.results import Row, write_json
from implicit3dmm.evaluation.statistics import f_score, mean_of_means
from implicit3dmm.evaluation.summary import counted, describe, footnotes, write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.evaluation.trials import Trials, run_trials
from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.sampling import SurfaceSamples, sample_surface
from implicit3dmm.heads.template import PARTS, REMAINDER, HeadTemplate, group_regions

SAMPLES = 150_000
"""Samples of the whole head, of the head above its neck, and of the remainder."""
PART_SAMPLES = 10_000
"""Samples of nose, eyes and mouth, as the paper has on whole heads; on faces it has 6,000."""
THRESHOLD_MM = 1.0
"""The F-score's distance."""
ROUNDS = 8
"""So often samples of a part are drawn at most; of a prediction that has little of it there are then fewer."""

CHAMFER, FLOOR = "chamfer_l1_mm", "chamfer_l1_floor_mm"
SCORE, CEILING = "f_samples@1mm", "f_samples_ceiling@1mm"

WIDE = {"whole_head": "whole head", "neck_masked": "above the neck", REMAINDER: "remainder"}
COLUMNS = {name: WIDE.get(name, name) for name in ("whole_head", "neck_masked", *PARTS, REMAINDER)}
"""The parts and their titles; the remainder is what is above the neck and none of the others."""

Points = Float[np.ndarray, "n 3"]


def evaluate_parts(
    heads: Heads,
    methods: Sequence[Method],
    *,
    folder: str | Path,
    held_out: HeldOut,
    points: int = 10000,
    samples: int = SAMPLES,
    part_samples: int = PART_SAMPLES,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Trials]:
    """Reconstructs held-out heads as `evaluate_reconstruction` does, and measures them part by part.

    Equal seeds give the fits that `evaluate_reconstruction` judges. The folder gets what `run_trials` writes,
    summary.json and summary.md.

    Args:
        heads: whose held-out heads.
        methods: under test; differences are taken to the first.
        folder: where the results go.
        held_out: which heads; its number of samples is not used.
        points: given of each head.
        samples: on either surface, of the whole head, of the head above its neck, and of the remainder.
        part_samples: of nose, eyes and mouth each.
        progress: wraps the trials to do, such as `tqdm`.

    Returns:
        Trials of each method, then those of the mean head, with the figures of `SampledParts.compare`.

    Raises:
        InputError: a setting is out of range, the split is empty, or the folder belongs to another run or cannot
            be written to.
    """
    held_out = replace(held_out, samples=samples)
    held_out.validate()
    condition = Condition(points=points)
    condition.validate()
    if part_samples < 1:
        raise InputError(f"part_samples is {part_samples}; give at least 1")

    @lru_cache(maxsize=1)
    def truth(case: Case) -> SampledParts:
        return SampledParts(case.truth, case.template, samples, part_samples, rng=case.rng(1))

    trials = run_trials(
        heads,
        methods,
        [condition],
        protocol="parts",
        folder=folder,
        held_out=held_out,
        judge=lambda case, mesh: truth(case).compare(mesh, rng=case.rng(2)),
        settings={"part_samples": part_samples},
        progress=progress,
    )
    write_json(Path(folder) / "summary.json", _to_json(trials))
    write_text(Path(folder) / "summary.md", _to_markdown(trials, samples, part_samples))
    return trials


def part_masks(template: HeadTemplate) -> dict[str, Region]:
    """Masks of the template's vertices: all, all but the neck, nose, eyes, mouth, and what is left above the neck."""
    neck = template.in_regions("neck")
    parts = {part: template.in_regions(*group_regions(part)) for part in PARTS}
    rest = ~np.any([neck, *parts.values()], axis=0)
    return {"whole_head": np.ones_like(neck), "neck_masked": ~neck, **parts, REMAINDER: rest}


class SampledParts:
    """A true head with samples of each of its parts, which predictions are held against."""

    def __init__(
        self, truth: Mesh, template: HeadTemplate, samples: int, part_samples: int, *, rng: np.random.Generator
    ):
        """Draws the samples, twice for the floor.

        Args:
            truth: in the subject's millimetres.
            template: of its topology.
            samples: of the whole head, of the head above its neck, and of the remainder.
            part_samples: of each other part.
            rng: source of the draws.
        """
        self._truth = truth
        self._masks = part_masks(template)
        self._counts = {name: part_samples if name in PARTS else samples for name in self._masks}
        self._samples = {name: self._of_truth(name, rng) for name in self._masks}
        self._floor = {name: _compared(self._of_truth(name, rng), own) for name, own in self._samples.items()}

    def compare(self, prediction: Mesh, *, rng: np.random.Generator) -> PartFigures:
        """Figures of each part.

        A place of the prediction belongs to the part that the nearest place of the truth belongs to, and this to that
        of the corner of its triangle that it is nearest to. On either surface equally many samples are drawn on a part,
        evenly by area, and compared with those of the same part of the other.

        - ``chamfer_l1_mm``: 0.5 (mean + mean) of the distances to the nearest sample of the other, unsquared.
        - ``f_samples@1mm``: harmonic mean of the shares of either's samples within 1 mm of a sample of the other.
        - ``chamfer_l1_floor_mm``, ``f_samples_ceiling@1mm``: the same of the truth, sampled twice.

        Where the prediction has nothing of a part its Chamfer is NaN and its F-score 0.

        Args:
            prediction: in the subject's millimetres.
            rng: source of the draws.
        """
        vertices = self._nearest(prediction.vertices)
        figures = {}
        for name, mask in self._masks.items():
            drawn = _draw(
                prediction, mask[vertices], lambda s, mask=mask: mask[self._nearest(s.points)], self._counts[name], rng
            )
            chamfer, score = _compared(drawn, self._samples[name])
            floor, ceiling = self._floor[name]
            figures[name] = {CHAMFER: chamfer, FLOOR: floor, SCORE: score, CEILING: ceiling, "samples": len(drawn)}
        return figures

    def _of_truth(self, name: str, rng: np.random.Generator) -> Points:
        mask, mesh = self._masks[name], self._truth
        return _draw(mesh, mask, lambda s: mask[nearest_corners(mesh, s.faces, s.points)], self._counts[name], rng)

    def _nearest(self, points: Points) -> Int[np.ndarray, " n"]:
        """The vertex of the truth that decides on each point's part."""
        nearest = distance_to_surface(points, self._truth)
        return nearest_corners(self._truth, nearest.face, nearest.point)


def _draw(
    mesh: Mesh,
    inside: Bool[np.ndarray, " v"],
    belongs: Callable[[SurfaceSamples], Bool[np.ndarray, " n"]],
    count: int,
    rng: np.random.Generator,
) -> Points:
    """Samples of a part of a mesh, evenly by area.

    Args:
        mesh: the whole surface.
        inside: its vertices that lie in the part.
        belongs: which samples do; only faces near such vertices are asked.
        count: of samples; there are fewer where the part is but a trace.
        rng: source of the draws.
    """
    touched = np.zeros(len(inside), bool)
    touched[mesh.faces[inside[mesh.faces].any(axis=1)]] = True
    density = touched[mesh.faces].any(axis=1).astype(float)
    drawn: list[Points] = []
    while density.any() and sum(map(len, drawn)) < count and len(drawn) < ROUNDS:
        samples = sample_surface(mesh, count, rng=rng, density=density)
        drawn.append(samples.points[belongs(samples)])
    points = np.concatenate([np.empty((0, 3)), *drawn])
    # In their order on the surface, which nearest neighbours are found quicker in.
    return points[np.sort(rng.choice(len(points), min(count, len(points)), replace=False))]


def _compared(a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "m 3"]) -> tuple[float, float]:
    """Chamfer distance, mm, and F-score of two sets of samples."""
    if not len(a):
        return float("nan"), 0.0
    there, back = NearestNeighbours(b).query(a)[0], NearestNeighbours(a).query(b)[0]
    return mean_of_means(there, back), f_score(there, back, THRESHOLD_MM)


def _to_json(trials: Sequence[Trials]) -> dict[str, object]:
    def figures(rows: Sequence[Row], part: str) -> dict[str, object]:
        own = {metric: estimate(rows, part, metric) for metric in (CHAMFER, FLOOR, SCORE, CEILING)}
        first = trials[0].rows
        away = {f"{metric} minus first": estimate_difference(rows, first, part, metric) for metric in (CHAMFER, SCORE)}
        return {metric: value._asdict() for metric, value in (own | away).items()}

    return {each.name: describe(each) | {part: figures(each.rows, part) for part in COLUMNS} for each in trials}


def _to_markdown(trials: Sequence[Trials], samples: int, part_samples: int) -> str:
    counts = f"Samples on each surface: {part_samples} of {', '.join(PARTS)} each, {samples} of the others."
    chamfer = _table(trials, "Chamfer-L1, mm", CHAMFER, FLOOR)
    score = _table(trials, f"F-score at {THRESHOLD_MM:g} mm", SCORE, CEILING)
    return "\n".join([counted(trials), f"{counts}\n", chamfer, score, footnotes(trials)])


def _table(trials: Sequence[Trials], title: str, metric: str, ideal: str) -> str:
    """A row a method, then what the truth has against itself, then the differences to the first method."""
    first, *others = trials[:-1]
    rows = {each.name: [estimate(each.rows, part, metric) for part in COLUMNS] for each in trials}
    rows["the truth, sampled twice"] = [estimate(trials[-1].rows, part, ideal) for part in COLUMNS]
    for other in others:
        away = [estimate_difference(other.rows, first.rows, part, metric) for part in COLUMNS]
        rows[f"{other.name} minus {first.name}, head by head"] = away
    cells = [[name, *(plus_minus(value, digits=3) for value in values)] for name, values in rows.items()]
    return markdown_table([title, *COLUMNS.values()], cells)
