"""Trials of methods on held-out heads: one fit and its figures each, written down as they are done."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import implicit3dmm
from implicit3dmm.data.heads import Heads
from implicit3dmm.evaluation.cases import Case, HeldOut, PartFigures, Scan
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.methods import FittedHead, Method, MethodInfo
from implicit3dmm.evaluation.results import ResultsFolder, Row
from implicit3dmm.geometry.mesh import Mesh

MEAN_HEAD = "mean head"
"""The do-nothing method of every table, and the condition of its rows."""

UNKNOWN = MethodInfo()

log = logging.getLogger(__name__)

Measure = Callable[[Method, Case, Scan, FittedHead], Row]
"""What is written down of a fit."""

Judge = Callable[[Case, Mesh], PartFigures]
"""Figures of a mesh in the subject's millimetres."""


def judged(method: Method, case: Case, scan: Scan, result: FittedHead, *, judge: Judge = Case.judge) -> Row:
    """Figures of the fitted mesh."""
    return {"figures": judge(case, result.mesh.transformed(scan.placement.inverse()))}


@dataclass(frozen=True, eq=False)
class Trials:
    """What was measured of one method.

    Attributes:
        name: of the method.
        folder: that holds its rows.
        rows: one for each head and condition that was asked for, heads in order.
        info: what stands beside the figures.
        latent_size: numbers that describe a head; None for the mean head.
    """

    name: str
    folder: Path
    rows: Sequence[Row]
    info: MethodInfo = UNKNOWN
    latent_size: int | None = None

    def under(self, condition: Condition) -> "Trials":
        """Those under one condition."""
        rows = [row for row in self.rows if row["condition"] == condition.name]
        return Trials(self.name, self.folder, rows, self.info, self.latent_size)


def run_trials(
    heads: Heads,
    methods: Sequence[Method],
    conditions: Sequence[Condition],
    *,
    protocol: str,
    folder: str | Path,
    held_out: HeldOut,
    judge: Judge = Case.judge,
    measure: Measure | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Trials]:
    """Lets each method find each head under each condition, and the mean head stand beside them.

    Each method has a folder of its own in `folder`, with protocol.json and results.jsonl, one line a trial, written
    when the trial is done. A run that was stopped goes on where it was; more heads, conditions or methods may be
    asked for later. A fit that raises is a row with the error, and is not tried again: its points are the same
    at every try.

    The mean head is the first method's, brought to the subject by the true similarity: what doing nothing would
    score, were pose and size known.

    Args:
        heads: where the held-out heads are from.
        methods: under test.
        conditions: what they are shown.
        protocol: name of the protocol, which a folder serves one of.
        folder: where the results go.
        held_out: which heads, and how they are measured.
        judge: what the figures are.
        measure: what is written down of each fit, "figures" among it; by default these alone.
        settings: more that decides on the results, as JSON values.
        progress: wraps the trials to do, such as `tqdm`.

    Returns:
        Trials of each method in turn, then those of the mean head.

    Raises:
        InputError: the split is empty, or a folder belongs to another run or cannot be written to.
    """
    records = held_out.records(heads)
    measure = measure or partial(judged, judge=judge)
    common = {
        "protocol": protocol,
        "recipe": asdict(heads.recipe),
        "seed": held_out.seed,
        "samples": held_out.samples,
        "implicit3dmm": implicit3dmm.__version__,
    } | dict(settings or {})
    reference = ResultsFolder.of_method(
        folder, f"mean head of {methods[0].name}", common | {"method": methods[0].settings}
    )
    results = [ResultsFolder.of_method(folder, method.name, common | {"method": method.settings}) for method in methods]
    planned: list[tuple[int, str, ResultsFolder, Callable[[Case], Row]]] = []
    for record in records:
        planned.append((record, MEAN_HEAD, reference, partial(_mean_head_row, methods[0], judge)))
        planned += [
            (record, condition.name, kept, partial(_row, method, condition, measure))
            for condition in conditions
            for method, kept in zip(methods, results, strict=True)
        ]
    done = {id(kept): {(row["record"], row["condition"]) for row in kept.rows} for kept in (reference, *results)}
    pending = [trial for trial in planned if trial[:2] not in done[id(trial[2])]]
    case_of = lru_cache(maxsize=1)(partial(Case.of, heads, held_out=held_out))
    for record, _, kept, row_of in progress(pending):
        kept.append(row_of(case_of(record)))
    asked = [condition.name for condition in conditions]
    return [
        *(
            Trials(method.name, kept.folder, _chosen(kept.rows, records, asked), method.info, method.latent_size)
            for method, kept in zip(methods, results, strict=True)
        ),
        Trials(MEAN_HEAD, reference.folder, _chosen(reference.rows, records, [MEAN_HEAD])),
    ]


def _chosen(rows: Sequence[Row], records: Sequence[int], conditions: Sequence[str]) -> list[Row]:
    chosen = [row for row in rows if row["record"] in set(records) and row["condition"] in conditions]
    return sorted(chosen, key=lambda row: (row["record"], conditions.index(row["condition"])))


def _row(method: Method, condition: Condition, measure: Measure, case: Case) -> Row:
    return _about(case, condition.name) | _attempt(method, measure, case, case.scan(condition))


def _mean_head_row(method: Method, judge: Judge, case: Case) -> Row:
    figures = judge(case, method.mean_head.transformed(case.head.similarity.inverse()))
    seconds = {"cpu_seconds": None, "wall_seconds": None}
    return _about(case, MEAN_HEAD) | {"figures": figures, "error": None} | seconds


def _about(case: Case, condition: str) -> Row:
    return {
        "record": case.record,
        "subject": case.head.subject,
        "expression": case.head.expression,
        "condition": condition,
    }


def _attempt(method: Method, measure: Measure, case: Case, scan: Scan) -> Row:
    """What is measured of the fit, and its times, or its error."""
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        result = method.fit(scan.points)
        seconds = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
        return measure(method, case, scan, result) | {"error": None, **seconds}
    except Exception as error:  # Whatever a method raises is its result on this head, and the others go on.
        log.warning("record %d: the fit by %s failed", case.record, method.name, exc_info=True)
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        return {"figures": None, "error": reason, "cpu_seconds": None, "wall_seconds": None}
