"""Registration: how far the template's vertices on a fit lie from where they are on the true head.

A model with a template of its own also takes the true head's landmarks to it; how far from the template's they land.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

import implicit3dmm
from implicit3dmm.data.average_head import template, template_landmarks
from implicit3dmm.data.heads import Heads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import Case, HeldOut, Scan
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.estimates import known
from implicit3dmm.evaluation.methods import FieldMethod, FittedHead, Method
from implicit3dmm.evaluation.regions import PARTS, head_parts
from implicit3dmm.evaluation.results import ResultsFolder, Row, write_json
from implicit3dmm.evaluation.statistics import Estimate, estimate_mean, share_within
from implicit3dmm.evaluation.summary import write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.evaluation.trials import MEAN_HEAD
from implicit3dmm.extraction import on_template
from implicit3dmm.fitting.head_fit import HeadFit
from implicit3dmm.fitting.registration import registered_mesh
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.frame import UNIT_MM

FLIPPED = "flipped_share"

LANDMARKS = "landmarks"
"""Key, in a row, of the distances of landmarks on the template."""
GROUPS = {
    "nose": slice(27, 36),
    "eyes": slice(36, 48),
    "mouth": slice(48, 68),
    "jaw and brows": slice(27),
    "all": slice(68),
}
"""Groups of the 68 iBUG landmarks."""
NEAR_MM = 2.0
WITHIN = f"within {NEAR_MM:g} mm"
"""Share of all landmarks that land so near to the template's."""


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
        Rows of each method by its name: the mean distance of each part's vertices in the subject's mm, the share of the
        area in faces that look against the true ones, and for a model with a template of its own, how far from the
        template's landmarks it takes the true ones (Gu and Pears, Eqn 10), by `GROUPS`.

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
            kept.append({"record": record} | _fitted_figures(method, case, case.scan(condition)))
        rows[method.name] = [row for row in kept.rows if row["record"] in set(records)]
    cases = (Case.of(heads, record, held_out) for record in records)
    rows[MEAN_HEAD] = [
        {"record": case.record}
        | _figures(template().mesh.transformed(case.head.similarity.inverse()), case.truth)
        | {LANDMARKS: _landmark_figures(case.head.vertices[case.template.landmarks])}
        for case in cases
    ]
    means = {name: _means(own) for name, own in rows.items()}
    landed = {name: _landmark_means(own) for name, own in rows.items() if any(LANDMARKS in row for row in own)}
    write_json(
        Path(folder) / "summary.json",
        {name: _plain(own) | {LANDMARKS: _plain(landed.get(name, {}))} for name, own in means.items()},
    )
    write_text(Path(folder) / "summary.md", _to_markdown(means, landed, len(records)))
    return rows


def _fitted_figures(method: Method, case: Case, scan: Scan) -> Row:
    result = method.fit(scan.points)
    return _figures(_registered(result, scan), case.truth) | _landmarks(method, case, scan, result)


def _registered(result: FittedHead, scan: Scan) -> Mesh:
    """The template on a fit, in the subject's millimetres."""
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


def _landmarks(method: Method, case: Case, scan: Scan, result: FittedHead) -> Row:
    """Where the fit takes the true landmarks; nothing for a model without a template of its own."""
    if not (isinstance(method, FieldMethod) and isinstance(result, HeadFit)):
        return {}
    places = result.similarity.compose(scan.placement).apply(case.truth.vertices[case.template.landmarks])
    model = method.model
    conditioned = model.condition({name: table.to(model.device) for name, table in result.codes.items()})
    landed = on_template(conditioned, places, device=model.device)
    return {} if landed is None else {LANDMARKS: _landmark_figures(landed)}


def _landmark_figures(places: Float[np.ndarray, "68 3"]) -> dict[str, float]:
    """Distances of landmarks to the template's, mm of the average adult, and the share of those that are near."""
    away = np.linalg.norm(places - template_landmarks(), axis=1) * UNIT_MM
    return {name: float(away[group].mean()) for name, group in GROUPS.items()} | {WITHIN: share_within(away, NEAR_MM)}


def _landmark_means(rows: Sequence[Row]) -> dict[str, Estimate]:
    known_rows = [row[LANDMARKS] for row in rows if LANDMARKS in row]
    return {name: estimate_mean(np.array([row[name] for row in known_rows])) for name in (*GROUPS, WITHIN)}


def _plain(means: dict[str, Estimate]) -> dict[str, Any]:
    return {name: value._asdict() for name, value in means.items()}


def _means(rows: Sequence[Row]) -> dict[str, Estimate]:
    return {name: estimate_mean(np.array([known(row[name]) for row in rows])) for name in (*PARTS, FLIPPED)}


def _to_markdown(means: dict[str, dict[str, Estimate]], landed: dict[str, dict[str, Estimate]], count: int) -> str:
    table = markdown_table(
        ["distance of the vertices, mm", *means],
        [[part.replace("_", " "), *(plus_minus(own[part]) for own in means.values())] for part in PARTS]
        + [["flipped area, %", *(f"{100 * own[FLIPPED].mean:.3f}" for own in means.values())]],
    )
    page = (
        f"Heads: {count}. Mean distance of the template's vertices on the fit to the same vertices of the true head,"
        " the subject's mm, ± half-widths of 95 % intervals over heads; and the share of the area in faces that look"
        f" against the true ones. The mean head is the template in the true pose and size.\n\n{table}"
    )
    if not landed.keys() - {MEAN_HEAD}:
        return page
    table = markdown_table(
        ["landmarks on the template, mm", *landed],
        [[group, *(plus_minus(own[group]) for own in landed.values())] for group in (*GROUPS, WITHIN)],
    )
    return (
        f"{page}\nMean distance to the template's 68 landmarks of where the fitted deformation takes the true ones, mm"
        f" of the average adult; under the mean head the distance without any deformation.\n\n{table}"
    )
