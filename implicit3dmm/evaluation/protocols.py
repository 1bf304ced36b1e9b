"""Reconstruction: how well a method finds held-out heads again from points on their surface."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from implicit3dmm.data.corpus import Corpus
from implicit3dmm.data.recipe import Head
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.metrics import SAMPLES, compare_surfaces
from implicit3dmm.evaluation.regions import head_parts
from implicit3dmm.evaluation.results import ResultsFolder, Row
from implicit3dmm.evaluation.summary import ReconstructionSummary, write_summary
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.geometry.similarity import Similarity

SCAN_UNITS = (1e-3, 10.0)
"""Range of a scan's units in one millimetre, from metres to tenths of a millimetre, even in magnitude."""

SCAN_OFFSET_MM = 1000.0
"""A scan's origin lies up to so far from the subject's along each axis."""

STREAM = 2
"""Last word of the protocol's seeds; a corpus ends its own otherwise, so it never draws the same points."""

log = logging.getLogger(__name__)


class FittedHead(Protocol):
    """What a method gives back."""

    @property
    def mesh(self) -> Mesh:
        """The reconstructed surface, in the frame and unit of the points that were given."""
        ...


FitFunction = Callable[[Float[np.ndarray, "n 3"]], FittedHead]
"""A method under test: surface points in an unknown pose and unit to a head."""

Parts = Mapping[str, Bool[np.ndarray, " v"]]
PartFigures = dict[str, dict[str, float | int]]


@dataclass(frozen=True)
class ReconstructionConfig:
    """Which heads are reconstructed, and from what."""

    split: Literal["train", "validation", "test"] = "test"
    """Split of the corpus whose heads are taken."""
    heads: int | None = None
    """Only so many heads, the first of the split; all by default."""
    points: int = 10000
    """Surface points that the method is given of each head."""
    samples: int = SAMPLES
    """Samples on each surface that the figures are taken from."""
    seed: int = 0
    """Seed of points, poses and samples."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        for name in ("heads", "points", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; give at least 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give at least 0")


@dataclass(frozen=True, eq=False)
class HeldOutScan:
    """A simulated scan of one head, and the truth about it.

    Attributes:
        record: number of the head in its corpus.
        head: the head that was scanned.
        points: on the exact surface, the neck's cap left out, in no order; in the scan's frame and unit.
        placement: from the subject's millimetres to the scan's frame.
        truth: the exact mesh, in the subject's millimetres.
    """

    record: int
    head: Head
    points: Float[np.ndarray, "n 3"]
    placement: Similarity
    truth: Mesh


def evaluate_reconstruction(
    corpus: Corpus,
    fit: FitFunction,
    *,
    mean_head: Mesh,
    folder: str | Path,
    config: ReconstructionConfig,
    about: Mapping[str, Any],
    progress: Callable[[Iterable], Iterable] = iter,
) -> ReconstructionSummary:
    """Reconstructs held-out heads from surface points and measures them against the exact surfaces.

    Each head's points are drawn afresh from its exact mesh and brought into a random pose, place and unit.
    The method sees these points alone. Its mesh is led back by the known transform, not aligned to the truth,
    and compared with it in the subject's own millimetres; see `surface_metrics` for the figures and
    `head_parts` for the parts of the head. Beside it stands the mean head, brought to the subject by the true
    similarity: what doing nothing would score, were pose and size known.

    The folder gets protocol.json, results.jsonl (one line a head, written when the head is done),
    summary.json, summary.md and errors.png. A run that was stopped goes on where it was. A head whose fit
    raises is a row with the error, and is not tried again: its points are the same at every try.

    Args:
        corpus: whose held-out heads.
        fit: the method under test.
        mean_head: what the method knows of heads before it sees one, canonical units.
        folder: where the results go.
        config: which heads, how many points, the seed.
        about: what is under test, such as model, solver settings, command and versions; JSON values, kept in
            protocol.json. A folder is refused for anything else.
        progress: wraps the records to do, such as `tqdm`.

    Raises:
        InputError: the split is empty, or the folder belongs to another run or cannot be written to.
    """
    records = corpus.records(config.split)[: config.heads].tolist()
    if not records:
        raise InputError(f"{corpus.folder} has no {config.split} heads; choose another split or corpus")
    settings = {
        "protocol": "reconstruction",
        "config": asdict(config),
        "recipe": asdict(corpus.recipe),
        "about": about,
    }
    results = ResultsFolder(folder, settings)
    done = {row["record"] for row in results.rows}
    parts = head_parts(corpus.source.template)
    for record in progress([record for record in records if record not in done]):
        results.append(_reconstruct(draw_scan(corpus, record, config), fit, mean_head, parts, config))
    return write_summary(results.folder, sorted(results.rows, key=lambda row: row["record"]))


def draw_scan(corpus: Corpus, record: int, config: ReconstructionConfig) -> HeldOutScan:
    """The points that a method is given of one record, such as to look into a fit that failed.

    Args:
        corpus: where the record is from.
        record: its number.
        config: `points` and `seed` matter; equal ones give equal scans.
    """
    head, template = corpus.head(record), corpus.source.template
    truth = Mesh(head.vertices, template.triangles).transformed(head.similarity.inverse())
    rng = np.random.default_rng([config.seed, record, 0, STREAM])
    placement = _random_placement(rng)
    # No scan shows the cap: it is where the head was cut off.
    points = sample_surface(truth.with_faces(~template.cap), config.points, rng=rng).points
    return HeldOutScan(record, head, placement.apply(rng.permutation(points)), placement, truth)


def _random_placement(rng: np.random.Generator) -> Similarity:
    """Any rotation, evenly; any unit between the usual ones; any place within a metre or so."""
    scale = np.exp(rng.uniform(*np.log(SCAN_UNITS)))
    rotation = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    return Similarity(scale, rotation, scale * rng.uniform(-SCAN_OFFSET_MM, SCAN_OFFSET_MM, 3))


def _reconstruct(
    scan: HeldOutScan, fit: FitFunction, mean_head: Mesh, parts: Parts, config: ReconstructionConfig
) -> Row:
    judge = partial(_figures, scan=scan, parts=parts, config=config)
    return {
        "record": scan.record,
        "subject": scan.head.subject,
        "expression": scan.head.expression,
        **_attempt(fit, scan, judge),
        "mean_head": judge(mean_head.transformed(scan.head.similarity.inverse())),
    }


def _attempt(fit: FitFunction, scan: HeldOutScan, judge: Callable[[Mesh], PartFigures]) -> Row:
    """Figures and times of the fit, or its error."""
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        mesh = fit(scan.points).mesh
        seconds = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
        return {"fit": judge(mesh.transformed(scan.placement.inverse())), "error": None, **seconds}
    except Exception as error:  # Whatever a method raises is its result on this head, and the others go on.
        log.warning("record %d: the fit failed", scan.record, exc_info=True)
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        return {"fit": None, "error": reason, "cpu_seconds": None, "wall_seconds": None}


def _figures(mesh: Mesh, *, scan: HeldOutScan, parts: Parts, config: ReconstructionConfig) -> PartFigures:
    """Figures of each part, from samples that are the same for every mesh that is held against this truth."""
    rng = np.random.default_rng([config.seed, scan.record, 1, STREAM])
    comparison = compare_surfaces(mesh, scan.truth, mm_per_unit=1.0, rng=rng, samples=config.samples)
    return {name: comparison.metrics(mask) for name, mask in parts.items()}
