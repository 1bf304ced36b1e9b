"""Registration: how far the template's vertices on a fit lie from where they are on the true head."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Float

import implicit3dmm
from implicit3dmm.data.average_head import template
from implicit3dmm.data.heads import Heads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import Case, HeldOut
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.estimates import known
from implicit3dmm.evaluation.methods import Method
from implicit3dmm.evaluation.regions import PARTS, head_parts
from implicit3dmm.evaluation.results import ResultsFolder, Row, write_json
from implicit3dmm.evaluation.statistics import Estimate, estimate_mean
from implicit3dmm.evaluation.summary import write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.evaluation.trials import MEAN_HEAD
from implicit3dmm.fitting.head_fit import HeadFit
from implicit3dmm.fitting.registration import registered_mesh
from implicit3dmm.geometry.mesh import Mesh

FLIPPED = "flipped_share"


def evaluate_registration(
    heads: Heads,
    methods: Sequence[Method],
    *,
    folder: str | Path,
    held_out: HeldOut,
    points: int = 10000,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, list[Row]]:
    """Fits held-out heads, carries the template onto the fits, and measures every vertex against the true head.

    What a method's mesh has of the template's topology already (a linear model's) is taken as it is. Beside the methods
    stands the template itself in the true pose and size: what doing nothing would score. Each method has a folder of
    its own, with protocol.json and results.jsonl, one line a head, written when it is done; a stopped run goes on where
    it was. The folder gets summary.json and summary.md.

    Args:
        heads: of the built-in topology, whose vertices are known.
        methods: under test.
        folder: where the results go.
        held_out: which heads.
        points: given of each head.
        progress: wraps the fits to do, such as `tqdm`.

    Returns:
        Rows of each method by its name: the mean distance of each part's vertices in the subject's mm, and the share of
        the area in faces that look against the true ones.

    Raises:
        InputError: the heads have another topology, the split is empty, or a folder belongs to another run or cannot
            be written to.
    """
    held_out.validate()
    condition = Condition(points=points)
    condition.validate()
    if not np.array_equal(heads.source.template.triangles, template().triangles):
        raise InputError(f"{heads.name} has another topology than the built-in heads; give a recipe of makehuman")
    records = held_out.records(heads)
    common = {
        "protocol": "registration",
        "recipe": asdict(heads.recipe),
        "seed": held_out.seed,
        "points": points,
        "implicit3dmm": implicit3dmm.__version__,
    }
    rows: dict[str, list[Row]] = {}
    for method in methods:
        kept = ResultsFolder.of_method(folder, method.name, common | {"method": method.settings})
        done = {row["record"] for row in kept.rows}
        for record in progress([record for record in records if record not in done]):
            case = Case.of(heads, record, held_out)
            kept.append({"record": record} | _figures(_registered(method, case, condition), case.truth))
        rows[method.name] = [row for row in kept.rows if row["record"] in set(records)]
    cases = (Case.of(heads, record, held_out) for record in records)
    rows[MEAN_HEAD] = [
        {"record": case.record} | _figures(template().mesh.transformed(case.head.similarity.inverse()), case.truth)
        for case in cases
    ]
    means = {name: _means(own) for name, own in rows.items()}
    write_json(
        Path(folder) / "summary.json",
        {name: {part: value._asdict() for part, value in own.items()} for name, own in means.items()},
    )
    write_text(Path(folder) / "summary.md", _to_markdown(means, len(records)))
    return rows


def _registered(method: Method, case: Case, condition: Condition) -> Mesh:
    """The template on the method's fit, in the subject's millimetres."""
    scan = case.scan(condition)
    result = method.fit(scan.points)
    if isinstance(result, HeadFit):
        mesh = result.registered_mesh
    elif np.array_equal(result.mesh.faces, template().triangles):
        mesh = result.mesh
    else:
        surface = result.mesh.transformed(result.similarity)
        mesh = registered_mesh(surface, surface.vertices).transformed(result.similarity.inverse())
    return mesh.transformed(scan.placement.inverse())


def _figures(mesh: Mesh, truth: Mesh) -> dict[str, float]:
    away: Float[np.ndarray, " v"] = np.linalg.norm(mesh.vertices - truth.vertices, axis=1)
    against = np.einsum("fx,fx->f", mesh.face_normals(), truth.face_normals()) < 0
    areas = mesh.face_areas()
    parts = {name: float(away[mask].mean()) for name, mask in head_parts(template()).items()}
    return parts | {FLIPPED: float(areas[against].sum() / areas.sum())}


def _means(rows: Sequence[Row]) -> dict[str, Estimate]:
    return {name: estimate_mean(np.array([known(row[name]) for row in rows])) for name in (*PARTS, FLIPPED)}


def _to_markdown(means: dict[str, dict[str, Estimate]], count: int) -> str:
    table = markdown_table(
        ["distance of the vertices, mm", *means],
        [[part.replace("_", " "), *(plus_minus(own[part]) for own in means.values())] for part in PARTS]
        + [["flipped area, %", *(f"{100 * own[FLIPPED].mean:.3f}" for own in means.values())]],
    )
    return (
        f"Heads: {count}. Mean distance of the template's vertices on the fit to the same vertices of the true head,"
        " the subject's mm, ± half-widths of 95 % intervals over heads; and the share of the area in faces that look"
        f" against the true ones. The mean head is the template in the true pose and size.\n\n{table}"
    )
