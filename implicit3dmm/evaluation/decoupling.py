"""Diversity, decoupling and specificity of models of heads with factors (Abrevaya et al. 2019, section 5.3).

Each figure alone can be bought with another: heads that hardly differ are decoupled and specific, heads that differ in
everything are diverse. They are made to be read together, beside those of the training heads.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

import implicit3dmm
from implicit3dmm.data.heads import Heads
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.populations import ModelPopulation, Population, RegisteredPopulation, rows_by_label
from implicit3dmm.evaluation.references import check_names, open_reference
from implicit3dmm.evaluation.results import ResultsFolder, write_json
from implicit3dmm.evaluation.statistics import Estimate, estimate_mean
from implicit3dmm.evaluation.summary import write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.evaluation.verification import NormalImage, Verifier, VerifierConfig
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.template import FACE_REGIONS
from implicit3dmm.mesh_models.face_patch import FacePatch
from implicit3dmm.mesh_models.topology import Topology
from implicit3dmm.render import Picture, camera_for_points, grid, render, with_margin, write_png

AT_ONCE = 100
"""Heads that are made together."""

GLANCE = 200
"""Vertices by which the nearest training heads are looked for."""

CANDIDATES = 20
"""Training heads, the nearest by these vertices, that all vertices are compared with."""

TRAINING = "training heads"
"""What tables call them."""

IMAGE_SIZE = 64
"""Pixels along a side of the images that verifiers look at."""

SHOWN = 6
"""Heads in a row of a picture."""


@dataclass(frozen=True)
class DecouplingConfig:
    """How many heads are drawn."""

    pairs: int = 10000
    """Pairs of heads for each diversity."""
    faces: int = 100
    """Heads for each decoupling."""
    variants: int = 100
    """Further heads that share a factor with each of them."""
    specimens: int = 1000
    """Heads for the specificity."""
    seed: int = 0
    """Of the draws."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        for name in ("pairs", "faces", "variants", "specimens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give at least 0")


def evaluate_decoupling(
    heads: Heads,
    models: Sequence[str],
    *,
    folder: str | Path,
    config: DecouplingConfig,
    verifier: VerifierConfig,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, dict[str, Estimate]]:
    """The figures of `decoupling_figures` in the face, of the training heads and of models, and pictures of samples.

    Verifiers learn from training heads; their thresholds are chosen on test heads, of other people.

    Args:
        heads: what the models were trained on.
        models: released models, or files of networks of registered heads and of principal components.
        folder: where summary.md, summary.json and a folder for each model go; a stopped run goes on.
        config: how many heads are drawn.
        verifier: the networks that tell heads apart.
        progress: wraps the models, such as `tqdm`.

    Returns:
        Figures by the name of the model.

    Raises:
        InputError: a setting is out of range, a model is of another topology, two have one name, or the folder belongs
            to another run or cannot be written to.
    """
    config.validate()
    opened = [open_reference(model) for model in models]
    check_names([TRAINING, *(model.name for model in opened)])
    for model in opened:
        model.check(heads)
    bench = _Bench(heads, verifier)
    figures, notes = {}, {}
    populations = [(ModelPopulation(model), model.settings) for model in opened]
    for population, settings in progress([(RegisteredPopulation(TRAINING, bench.training), {}), *populations]):
        about = {
            "protocol": "decoupling",
            "recipe": asdict(heads.recipe),
            "config": asdict(config),
            "verifier": asdict(verifier),
            "implicit3dmm": implicit3dmm.__version__,
        }
        kept = ResultsFolder.of_method(folder, population.name, about | settings)
        if not kept.rows:
            of_heads = population.name == TRAINING
            known = {name: own for name, own in bench.verifiers.items() if name in population.factors}
            found = decoupling_figures(
                population, None if of_heads else bench.training.vertices, known, vertices=bench.face, config=config
            )
            write_png(kept.folder / "samples.png", _picture(population, bench, config.seed))
            told = {
                name: {"accuracy": each.accuracy, "false_acceptance": each.accepted} for name, each in known.items()
            }
            kept.append({"figures": {name: each._asdict() for name, each in found.items()}, "verifiers": told})
        (row,) = kept.rows
        figures[population.name] = {name: Estimate(**each) for name, each in row["figures"].items()}
        notes |= row["verifiers"]
    plain = {name: {figure: each._asdict() for figure, each in own.items()} for name, own in figures.items()}
    write_json(Path(folder) / "summary.json", {"figures": plain, "verifiers": notes})
    write_text(Path(folder) / "summary.md", _page(figures, notes, heads.name, config))
    return figures


class _Bench:
    """Training heads, the vertices that count, and verifiers, which are trained when they are first needed."""

    def __init__(self, heads: Heads, config: VerifierConfig):
        self.training = RegisteredHeads.of(heads, "train")
        self.topology = Topology.of(heads.source.template, controls=1)
        self._heads = heads
        self._config = config
        self._patch = FacePatch.of(self.topology, FACE_REGIONS)
        self.face = np.flatnonzero(self._patch.inside)

    @cached_property
    def verifiers(self) -> dict[str, Verifier]:
        """Of all factors of which two labels have two heads each, both of training and of test heads."""
        look = NormalImage(self._patch.image(self.training.mean, IMAGE_SIZE), self._patch.faces)
        others = RegisteredHeads.of(self._heads, "test")
        return {
            factor: Verifier.train(look, self.face, self.training, others, factor, self._config)
            for factor, labels in self.training.labels.items()
            if min(len(rows_by_label(labels)), len(rows_by_label(others.labels.get(factor, labels[:0])))) > 1
        }

    def mesh(self, head: Float[np.ndarray, "v 3"]) -> Mesh:
        """The closed head."""
        return Mesh(head, self.topology.triangles)


def decoupling_figures(
    population: Population,
    training: Float[np.ndarray, "r v 3"] | None,
    verifiers: Mapping[str, Verifier],
    *,
    vertices: Int[np.ndarray, " p"],
    config: DecouplingConfig,
) -> dict[str, Estimate]:
    """The figures of one population.

    Diversity is the mean vertex distance of two heads, mm of an average adult: of any two ("diversity"), and of two
    that share a factor ("diversity, same identity"). Decoupling is the share of heads, in percent, that pass for the
    same person as one whose code of the identity they share, and likewise of expressions. Specificity is the mean
    vertex distance to the nearest training head, mm.

    Intervals are over pairs, over the heads that others share a factor with, and over samples. The pairs of a model are
    drawn independently; of given heads, which are few, they are not, and the interval is too narrow.

    Args:
        population: whose heads.
        training: all training heads, canonical units; None for the training heads themselves, which have no
            specificity.
        verifiers: by factor.
        vertices: that count, such as those of the face.
        config: how many heads are drawn.

    Raises:
        InputError: a setting is out of range.
    """
    config.validate()
    rng = np.random.default_rng(config.seed)
    figures = {}
    for factor in (None, *population.factors):
        distances = [
            np.linalg.norm(pair[:, 0] - pair[:, 1], axis=-1).mean(-1)
            for pair in _draws(population, factor, config.pairs, 2, vertices, rng)
        ]
        name = "diversity" if factor is None else f"diversity, same {factor}"
        figures[name] = estimate_mean(np.concatenate(distances) * UNIT_MM)
    for factor, verifier in verifiers.items():
        if factor in population.factors:
            shares = [
                verifier.same(group)
                for group in _draws(population, factor, config.faces, config.variants + 1, vertices, rng)
            ]
            figures[f"same {factor}, %"] = estimate_mean(100 * np.concatenate(shares))
    if training is not None:
        near = np.ascontiguousarray(training[:, vertices])
        samples = _draws(population, None, config.specimens, 1, vertices, rng)
        figures["specificity"] = estimate_mean(
            UNIT_MM * np.array([nearest_distance(head, near) for chunk in samples for head in chunk[:, 0]])
        )
    return figures


def nearest_distance(head: Float[np.ndarray, "v 3"], others: Float[np.ndarray, "r v 3"]) -> float:
    """Mean vertex distance to the nearest of other heads.

    A few vertices choose the heads that are compared in full; the nearest by all vertices is all but surely among the
    `CANDIDATES` nearest by these.
    """
    return _nearest(head, others)[1]


def _nearest(head: Float[np.ndarray, "v 3"], others: Float[np.ndarray, "r v 3"]) -> tuple[int, float]:
    """Number of the nearest head, and how far it is."""
    some = np.linspace(0, len(head) - 1, min(GLANCE, len(head))).astype(int)
    glance = np.linalg.norm(others[:, some] - head[some], axis=-1).mean(-1)
    likely = np.argsort(glance)[:CANDIDATES]
    distances = np.linalg.norm(others[likely] - head, axis=-1).mean(-1)
    best = int(distances.argmin())
    return int(likely[best]), float(distances[best])


def decoupling_table(figures: Mapping[str, Mapping[str, Estimate]]) -> str:
    """A Markdown table of populations by name; a figure that one has not is left open."""
    columns = list(dict.fromkeys(name for each in figures.values() for name in each))
    rows = [
        [name, *(plus_minus(each[column], digits=2) if column in each else "–" for column in columns)]
        for name, each in figures.items()
    ]
    return markdown_table(["heads", *columns], rows)


def _page(
    figures: Mapping[str, Mapping[str, Estimate]],
    verifiers: Mapping[str, Mapping[str, float]],
    name: str,
    config: DecouplingConfig,
) -> str:
    told = "; ".join(
        f"{factor} {100 * each['accuracy']:.0f} % right, {100 * each['false_acceptance']:.0f} % falsely accepted"
        for factor, each in verifiers.items()
    )
    return (
        f"Faces of heads like those of {name}. *Diversity*: mean vertex distance of {config.pairs:,} pairs, of any two"
        " heads and of two that share a factor, mm of the average adult. *Same*: share of heads that pass for the same"
        f" as one they share the factor with, {config.faces} times {config.variants}. *Specificity*: mean vertex"
        f" distance of {config.specimens:,} heads to the nearest training head. ± half-widths of 95 % intervals;"
        " those of the training heads are too narrow, since their pairs are not independent. Verifiers learnt from the"
        f" training heads; on pairs of test heads: {told}.\n\n{decoupling_table(figures)}"
    )


def _picture(population: Population, bench: _Bench, seed: int) -> Picture:
    """Heads drawn anew over their nearest training heads; then heads that share each factor."""
    rng = np.random.default_rng(seed)
    drawn = population.draw(None, SHOWN, 1, rng)[:, 0]
    rows, labels = [drawn], ["drawn"]
    if population.name != TRAINING:
        near = bench.training.vertices[:, bench.face]
        rows.append([bench.training.vertices[_nearest(head[bench.face], near)[0]] for head in drawn])
        labels.append("nearest training head")
    for factor in population.factors:
        rows.append(population.draw(factor, 1, SHOWN, rng)[0])
        labels.append(f"one {factor}")
    camera = camera_for_points("three_quarter", np.concatenate([head for row in rows for head in row]))
    panels = [[render(bench.mesh(head), camera=camera, size=(230, 280)) for head in row] for row in rows]
    return with_margin(grid(panels, row_labels=labels), 12)


def _draws(
    population: Population,
    factor: str | None,
    groups: int,
    size: int,
    vertices: Int[np.ndarray, " p"],
    rng: np.random.Generator,
) -> Iterator[Float[np.ndarray, "g s p 3"]]:
    """Groups of heads, some at a time."""
    step = max(AT_ONCE // size, 1)
    for start in range(0, groups, step):
        yield population.draw(factor, min(step, groups - start), size, rng)[:, :, vertices]
