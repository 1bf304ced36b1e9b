"""One table over everything: fields, principal components and networks of registered heads, on the same heads.

A model of registered heads is given the vertices, in correspondence and in the canonical frame; a field is given loose
points in an unknown pose and unit, and so are principal components, which can read either. What that is worth is for
the reader to judge: the table says which row had what.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

import implicit3dmm
from implicit3dmm.data.heads import Heads
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.evaluation.cases import Case, HeldOut
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.estimates import estimate, over_heads
from implicit3dmm.evaluation.methods import FieldMethod, Method, MethodInfo, open_method
from implicit3dmm.evaluation.painted import painted_vertices
from implicit3dmm.evaluation.references import Reference, check_names, is_reference, open_reference
from implicit3dmm.evaluation.regions import HEADLINE, WIDE_PARTS, head_parts
from implicit3dmm.evaluation.results import ResultsFolder, Row, write_json
from implicit3dmm.evaluation.statistics import Estimate
from implicit3dmm.evaluation.summary import write_text
from implicit3dmm.evaluation.tables import large_number, markdown_table, plus_minus
from implicit3dmm.evaluation.trials import MEAN_HEAD, run_trials
from implicit3dmm.evaluation.vertex_errors import VertexErrors, vertex_errors
from implicit3dmm.extraction import extract
from implicit3dmm.fitting.config import FitConfig
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.template import REGIONS
from implicit3dmm.mesh_models.model import is_network_file
from implicit3dmm.models import model_file
from implicit3dmm.render import write_png

DECODES = 20
"""Times that a code is decoded to time it."""
SHOWN_SHARE = 99.0
"""Per cent of the vertices, all models together, whose errors lie within the picture's colour scale."""

Parts = Mapping[str, Estimate]


class Cost(NamedTuple):
    """What one head costs, in a process of its own with one thread."""

    fit_seconds: float
    """Processor-seconds from vertices or points to the code; a fit to points gives the mesh too."""
    decode_ms: float
    """Processor time from the code to the mesh, ms."""
    peak_mb: float
    """Peak memory of the whole process, MB."""


@dataclass(frozen=True)
class Compared:
    """A row of the table."""

    name: str
    reads: str
    """"vertices" or "points"; nothing for the mean head."""
    info: MethodInfo
    latent_size: int | None = None
    parameters: int | None = None
    file_mb: float | None = None
    vertex_mm: Parts | None = None
    """Mean distance of the vertices to their true places, by part of the head, regions included; None for what reads
    points."""
    surface_mm: Parts | None = None
    """Surface error, by part of the head."""
    cost: Cost | None = None


def evaluate_compare(
    heads: Heads,
    models: Sequence[str],
    *,
    folder: str | Path,
    held_out: HeldOut,
    points: int = 10000,
    resolution: int = 128,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Compared]:
    """Reconstructs held-out heads by every model from what it reads, and measures what that costs.

    vertices.png shows where on the head vertices are missed, as LAMM's Figs. 5 and 6 do: the mean distance of each over
    all heads of the split, on the mean of these, a column for each model that reads vertices.

    `vertex_mm` is taken over all heads of the split, `surface_mm` over the first `held_out.heads` of them, since fits
    are slow. Intervals are over subjects, each with the mean of its heads.

    Args:
        heads: whose held-out heads; models of registered heads are of their topology.
        models: released models, or files of fields, principal components and networks of registered heads.
        folder: where summary.md, summary.json, vertices.png and the rows go; a stopped run goes on.
        held_out: which heads, and how they are measured.
        points: of each head, for models that read points.
        resolution: cells along the longest side of the box of a field's meshes.
        progress: wraps the fits and reconstructions to do, such as `tqdm`.

    Raises:
        InputError: a setting is out of range, a model is of another topology, two models have one name, or the folder
            belongs to another run or cannot be written to.
    """
    held_out.validate()
    condition = Condition(points=points)
    condition.validate()
    paths = [model_file(model) for model in models]
    references = {path: open_reference(path) for path in paths if is_reference(path)}
    for reference in references.values():
        reference.check(heads)
    fits = FitConfig(seed=held_out.seed)
    readers = {
        path: open_method(path, config=fits, resolution=resolution) for path in paths if not is_network_file(path)
    }
    everyone = RegisteredHeads.of(heads, held_out.split) if references else None
    for own in (references, readers):
        check_names([each.name for each in own.values()])
    known_rows, painted = {}, {}
    for path, reference in references.items():
        row, errors = _from_vertices(reference, heads, everyone, folder, held_out, progress)
        known_rows[path, "vertices"], painted[reference.name] = row, errors.by_vertex
    if readers:
        settings = dict(protocol="reconstruction", folder=Path(folder) / "points", held_out=held_out, progress=progress)
        *trials, nothing = run_trials(heads, list(readers.values()), [condition], **settings)
        for (path, method), own in zip(readers.items(), trials, strict=True):
            row = Compared(method.name, "points", method.info, method.latent_size, surface_mm=_surface(own.rows))
            known_rows[path, "points"] = row
        known_rows[None, ""] = Compared(MEAN_HEAD, "", nothing.info, surface_mm=_surface(nothing.rows))
    case = Case.of(heads, held_out.records(heads)[0], held_out)
    table = []
    for path in (*paths, None):
        for reads in ("vertices", "points", ""):
            row = known_rows.get((path, reads))
            if row is not None and path is not None:
                given = case.head.vertices if reads == "vertices" else case.scan(condition).points
                size = path.stat().st_size / 1e6
                row = replace(row, cost=_alone(partial(cost, path, reads, given, fits, resolution)), file_mb=size)
                row = replace(row, parameters=row.parameters or _parameters(readers[path]))
            table += [row] if row is not None else []
    write_json(Path(folder) / "summary.json", [asdict(row) for row in table])
    if painted:
        mesh = Mesh(everyone.mean.astype(np.float64), heads.source.template.triangles)
        picture = painted_vertices(mesh, {"": list(painted.values())}, columns=list(painted), share=SHOWN_SHARE)
        write_png(Path(folder) / "vertices.png", picture)
    write_text(Path(folder) / "summary.md", _to_markdown(table, heads, held_out, points))
    return table


def cost(path: Path, reads: str, given: Float[np.ndarray, "n 3"], fits: FitConfig, resolution: int) -> Cost:
    """Fits and decodes one head in this process.

    Args:
        path: of the model.
        reads: "vertices" or "points".
        given: the head as vertices in the canonical frame, or as loose points.
        fits: settings of a fit to points.
        resolution: of a field's mesh.
    """
    torch.set_num_threads(1)
    if reads == "vertices":
        reference = open_reference(path)
        fitting, code = _timed(lambda: reference.encode(given[None]))
        reference.decode(code)
        decoding, _ = _timed(lambda: [reference.decode(code) for _ in range(DECODES)])
        decoding /= DECODES
    else:
        method = open_method(path, config=fits, resolution=resolution)
        fitting, result = _timed(lambda: method.fit(given))
        if isinstance(method, FieldMethod):
            decoding, _ = _timed(lambda: extract(method.model, result.codes, resolution=resolution))
        else:
            decoding, _ = _timed(lambda: method.model.mesh(result.coefficients))
    return Cost(fitting, 1e3 * decoding, peak_mb())


def peak_mb() -> float:
    """Peak memory of this process, MB; Linux's own figure where it is there, since the other counts the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _timed(run: Callable) -> tuple[float, object]:
    started = time.process_time()
    result = run()
    return time.process_time() - started, result


def _alone(run: Callable[[], Cost]) -> Cost:
    """The result of a call in a fresh process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run).result()


def _from_vertices(
    reference: Reference,
    heads: Heads,
    everyone: RegisteredHeads,
    folder: str | Path,
    held_out: HeldOut,
    progress: Callable[[Iterable], Iterable],
) -> tuple[Compared, VertexErrors]:
    """A model of registered heads, given the vertices of all heads of the split."""
    common = {
        "protocol": "compare",
        "recipe": asdict(heads.recipe),
        "seed": held_out.seed,
        "samples": held_out.samples,
        "implicit3dmm": implicit3dmm.__version__,
        "method": reference.settings,
    }
    kept = ResultsFolder.of_method(Path(folder) / "vertices", reference.name, common)
    path, parts = kept.folder / f"errors_{held_out.split}.npz", head_parts(heads.source.template)
    errors = vertex_errors(path, reference, everyone, parts, progress=progress)
    records = held_out.records(heads)
    done = {row["record"] for row in kept.rows}
    for record in progress([record for record in records if record not in done]):
        case = Case.of(heads, record, held_out)
        found = reference.reconstruct(case.head.vertices[None].astype(np.float32))[0]
        mesh = Mesh(found.astype(np.float64), heads.source.template.triangles)
        figures = case.judge(mesh.transformed(case.head.similarity.inverse()))
        kept.append({"record": record, "subject": case.head.subject, "figures": figures})
    vertex_mm = {part: over_heads(own, everyone.subjects) for part, own in zip(parts, errors.by_head.T, strict=True)}
    row = Compared(
        reference.name,
        "vertices",
        reference.info,
        reference.latent_size,
        reference.parameters,
        vertex_mm=vertex_mm,
        surface_mm=_surface([row for row in kept.rows if row["record"] in set(records)]),
    )
    return row, errors


def _surface(rows: Sequence[Row]) -> Parts:
    return {part: estimate(rows, part, "surface_mean_mm") for part in WIDE_PARTS}


def _parameters(method: Method) -> int | None:
    if isinstance(method, FieldMethod):
        return sum(parameter.numel() for parameter in method.model.field.parameters())
    return method.model.components.size


def _to_markdown(table: Sequence[Compared], heads: Heads, held_out: HeldOut, points: int) -> str:
    header = [
        "model", "reads", "trained on", "training, cpu s", "code", "weights", "file, MB",
        "vertices, mm", "face", "surface, mm", "face", "fit, cpu s", "decode, ms", "peak, MB",
    ]  # fmt: skip
    lines = []
    for row in table:
        size, seconds = row.file_mb, row.info.training_cpu_seconds
        lines.append(
            [
                row.name,
                row.reads or "–",
                row.info.training_set or "–",
                "–" if seconds is None else f"{seconds:.0f}",
                large_number(row.latent_size),
                large_number(row.parameters),
                "–" if size is None else f"{size:.1f}",
                *_two(row.vertex_mm),
                *_two(row.surface_mm),
                *_costs(row.cost),
            ]
        )
    everyone, some = len(heads.records(held_out.split)), len(held_out.records(heads))
    return (
        f"Heads of {heads.name}, {held_out.split} split. *Vertices*: mean distance of a head's vertices to their true"
        f" places over {everyone} heads, above the neck and in the face, mm of the average adult, for models that are"
        f" given them in correspondence. *Surface*: the protocols' surface error over {some} heads, above the neck and"
        f" in the face, the subject's mm; rows that read points were given {points:,} loose ones in an unknown pose and"
        " unit. ± half-widths of 95 % intervals over subjects. *Decode* is from the code to the mesh; *peak* memory is"
        f" the whole process's, program included.\n\n{markdown_table(header, lines, left=3)}{_by_region(table)}"
    )


def _by_region(table: Sequence[Compared]) -> str:
    """The distances of vertices region by region; nothing where no model reads vertices."""
    lines = [[row.name, *(f"{row.vertex_mm[name].mean:.2f}" for name in REGIONS)] for row in table if row.vertex_mm]
    return f"\n*Vertices* by region, mm:\n\n{markdown_table(['model', *REGIONS], lines)}" if lines else ""


def _costs(cost: Cost | None) -> tuple[str, str, str]:
    if cost is None:
        return ("–", "–", "–")
    return f"{cost.fit_seconds:.2f}", f"{cost.decode_ms:.1f}", f"{cost.peak_mb:.0f}"


def _two(parts: Parts | None) -> tuple[str, str]:
    if parts is None:
        return ("–", "–")
    return plus_minus(parts[HEADLINE], digits=3), plus_minus(parts["face"], digits=3)
