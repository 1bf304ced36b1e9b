"""Alignment: how often a scan in any pose and unit, whole or in part, is brought to the canonical frame."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

import implicit3dmm
from implicit3dmm.data.average_head import alignment_target, template
from implicit3dmm.data.heads import Heads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.alignment_summary import SUBJECTS, write_summary
from implicit3dmm.evaluation.cases import SCAN_OFFSET_MM, SCAN_UNITS
from implicit3dmm.evaluation.results import ResultsFolder, Row
from implicit3dmm.evaluation.simulated_scans import SCANS, ScannedHead, generated_head, real_head
from implicit3dmm.geometry.alignment import MM_PER_CANONICAL, Alignment, align_scan
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import Similarity

MM_IN = {"mm": 1.0, "m": 1000.0}
"""Millimetres in the units that a scan may have; with "none" they are random."""

STREAM = 4
"""Last word of the protocol's seeds; those of corpora and other protocols end otherwise."""

FitFunction = Callable[[Float[np.ndarray, "n 3"]], Similarity]
"""Refines a pose by a fit: surface points in, their similarity to the canonical frame out."""


@dataclass(frozen=True)
class AlignmentConfig:
    """What is aligned."""

    split: Literal["train", "validation", "test"] = "test"
    """Split whose heads are taken, the next one for each pose; their first expression alone."""
    poses: int = 50
    """Random poses of each kind and unit."""
    kinds: tuple[str, ...] = ("whole", "front", "noise", "shoulders")
    """Kinds of scans, keys of `SCANS`; also view and hair."""
    units: tuple[Literal["mm", "m", "none"], ...] = ("mm", "m", "none")
    """Units of the scans, which the alignment is not told; "none" is a random one."""
    points: int = 10000
    """Points on the whole head; of a part those that lie on it."""
    seed: int = 0
    """Seed of scans, poses and alignments."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        for name, known in (("kinds", list(SCANS)), ("units", [*MM_IN, "none"])):
            unknown = [value for value in getattr(self, name) if value not in known]
            if unknown or not getattr(self, name):
                raise InputError(f"{name}: {', '.join(unknown) or 'none'} given; choose among {', '.join(known)}")
        if min(self.poses, self.points) < 1:
            raise InputError("poses and points must be at least 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give at least 0")


class RealScan(NamedTuple):
    """A scan of a real head, and where it lies."""

    name: str
    mesh: Mesh
    """With faces; any frame and unit."""
    to_canonical: Similarity
    """The reference that alignments are held against."""


class Case(NamedTuple):
    """One alignment."""

    subject: str
    """One of `SUBJECTS`."""
    record: int | None
    """Number of the head in its corpus; None for a real scan."""
    kind: str
    unit: str
    pose: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells this case from the others of its run."""
        return self.subject, self.kind, self.unit, self.pose


def evaluate_alignment(
    heads: Heads,
    *,
    folder: str | Path,
    config: AlignmentConfig,
    scan: RealScan | None = None,
    fit: FitFunction | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Row]:
    """Aligns scans in random poses and units, and counts how many land within 5 degrees and 3 % of scale.

    A pose is any rotation, evenly, and any place within a metre along each axis. The alignment is never told the
    unit. The truth about a head of a corpus is the similarity that its corpus keeps; a real scan has the size of an
    average adult under its reference. Each pose takes the next head of the split; the kinds of scans of one pose show
    the same head.

    The folder gets protocol.json, results.jsonl (one line a case, written when it is done), summary.json and
    summary.md. A run that was stopped goes on where it was, also with more poses.

    Args:
        heads: whose held-out heads.
        folder: where the results go.
        config: what is aligned.
        scan: a real scan, aligned as often as the heads.
        fit: also measures what a fit to the same points makes of the pose; the folder is then one of fits.
        progress: wraps the cases to do, such as `tqdm`.

    Returns:
        A row for each case: what it was, errors in degrees, as a share of the scale and in mm, processor seconds,
        and what the alignment says of itself.

    Raises:
        InputError: a setting is out of range, the split is empty, or the folder belongs to another run or cannot be
            written to.
    """
    config.validate()
    cases = _cases(heads, config, with_scan=scan is not None)
    settings = {key: value for key, value in asdict(config).items() if key not in ("poses", "kinds", "units")}
    about = {
        "protocol": "alignment",
        "config": settings,
        "recipe": asdict(heads.recipe),
        "scan": None if scan is None else {"name": scan.name, "to_canonical": scan.to_canonical.matrix().tolist()},
        "fit": fit is not None,
        "implicit3dmm": implicit3dmm.__version__,
    }
    results = ResultsFolder(folder, about)
    done = {_key(row) for row in results.rows}

    @lru_cache(maxsize=2)
    def head_of(record: int | None) -> ScannedHead:
        if record is None:
            return real_head(scan.mesh, scan.to_canonical, template().mesh)
        head = heads.head(record)
        rng = np.random.default_rng([config.seed, record, STREAM])
        return generated_head(head.vertices, heads.source.template, head.similarity, rng)

    for case in progress([case for case in cases if case.key not in done]):
        results.append(_row(case, head_of(case.record), config, fit))
    chosen = {case.key for case in cases}
    rows = [row for row in results.rows if _key(row) in chosen]
    write_summary(results.folder, rows)
    return rows


def _cases(heads: Heads, config: AlignmentConfig, *, with_scan: bool) -> list[Case]:
    """All cases; those of one head lie together."""
    records = heads.records(config.split)[:: len(heads.recipe.record_names)].tolist()
    if not records:
        raise InputError(f"{heads.name} has no {config.split} heads; choose another split or corpus")
    return [
        Case(subject, records[pose % len(records)] if subject == "held-out" else None, kind, unit, pose)
        for pose in range(config.poses)
        for subject in SUBJECTS[: 1 + with_scan]
        for kind in config.kinds
        for unit in config.units
    ]


def _key(row: Row) -> tuple[str, str, str, int]:
    return row["subject"], row["kind"], row["unit"], row["pose"]


def _row(case: Case, head: ScannedHead, config: AlignmentConfig, fit: FitFunction | None) -> Row:
    names = (SUBJECTS.index(case.subject), list(SCANS).index(case.kind), [*MM_IN, "none"].index(case.unit))
    rng = np.random.default_rng([config.seed, *names, case.pose, STREAM])
    placement = _random_placement(case.unit, rng)
    points = rng.permutation(placement.apply(SCANS[case.kind](head, config.points, rng)))
    truth = head.to_canonical.compose(placement.inverse())
    found = align_scan(points, alignment_target(), rng=rng)
    row = case._asdict() | {"points": len(points)} | _errors(found.similarity, truth) | _account(found, placement)
    return row if fit is None else row | {"fit": _fit_errors(fit, points, truth)}


def _random_placement(unit: str, rng: np.random.Generator) -> Similarity:
    """From the subject's millimetres to the scan's frame."""
    rotation = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    scale = 1 / MM_IN[unit] if unit in MM_IN else float(np.exp(rng.uniform(*np.log(SCAN_UNITS))))
    return Similarity(scale, rotation, scale * rng.uniform(-SCAN_OFFSET_MM, SCAN_OFFSET_MM, 3))


def _errors(found: Similarity, truth: Similarity) -> Row:
    """Rotation in degrees; relative scale; and how far the middle of the head lands from its place, mm of an adult."""
    middle = truth.inverse().apply(np.zeros((1, 3)))
    return {
        "rotation_degrees": found.angle_to(truth),
        "scale_error": found.scale / truth.scale - 1,
        "translation_mm": float(np.linalg.norm(found.apply(middle))) * MM_PER_CANONICAL,
    }


def _account(found: Alignment, placement: Similarity) -> Row:
    """What the alignment says of itself."""
    return {
        "unit_found": found.unit,
        "unit_right": abs(found.mm_per_unit * placement.scale - 1) < 1e-6,
        "score": found.score,
        "runner_up": found.runner_up,
        "plausible": bool(found.is_plausible),
        "ambiguous": bool(found.is_ambiguous),
        "hair": found.hair,
        "cpu_seconds": found.cpu_seconds,
    }


def _fit_errors(fit: FitFunction, points: np.ndarray, truth: Similarity) -> Row:
    began = time.process_time()
    return _errors(fit(points), truth) | {"cpu_seconds": time.process_time() - began}
