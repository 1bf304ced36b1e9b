"""Expressions: how well methods find held-out heads under expressions again, and the neutral heads behind them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from implicit3dmm.data.heads import Heads
from implicit3dmm.evaluation.cases import Case, HeldOut, Scan
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.estimates import estimate, known, over_subjects
from implicit3dmm.evaluation.methods import FieldMethod, FittedHead, Method
from implicit3dmm.evaluation.regions import head_parts, moving_parts
from implicit3dmm.evaluation.results import Row, write_json
from implicit3dmm.evaluation.statistics import Estimate
from implicit3dmm.evaluation.summary import ERROR, counted, describe, footnotes, summarise, write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.evaluation.trials import Trials, judged, run_trials
from implicit3dmm.extraction import at_rest
from implicit3dmm.fitting.head_fit import HeadFit
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.render import camera_for_points, grid, paint, visible_surface, write_png
from implicit3dmm.render.pictures import Picture

MOVING = "moving"
"""Vertices that the expression moves by more than `MOVING_MM`."""
MOVING_MM = 2.0

CORRESPONDENCE_PARTS = (MOVING, "face", "mouth", "lips", "eyelids")
"""Where correspondence is measured."""

CELL_MM = 12.0
"""Side of the cells of the pattern that correspondence carries."""

PANEL = (230, 280)


def evaluate_expressions(
    heads: Heads,
    methods: Sequence[Method],
    *,
    folder: str | Path,
    held_out: HeldOut,
    points: int = 10000,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Trials]:
    """Fits held-out heads under expressions; measures the surfaces, and the correspondence to the neutral heads.

    Surfaces are measured as `evaluate_reconstruction` does. For correspondence the exact vertices of the expressive
    head are taken to the neutral one by the fitted field's warp, and their distance to the same vertices of the exact
    neutral head is taken. A field without a warp leaves them in place: its row is what doing nothing scores.

    The folder gets what `run_trials` writes, summary.json, summary.md (by expression, and by place) and pictures: for
    each expression of the first subject a pattern of the neutral head, carried along by the first method that is a
    field, above the truth.

    Args:
        heads: whose held-out heads; a recipe with expressions.
        methods: under test.
        folder: where the results go.
        held_out: which heads, and how they are measured; a subject has a head for each expression.
        points: given of each head.
        progress: wraps the trials to do, such as `tqdm`.

    Returns:
        Trials of each method, then those of the mean head; rows of fields have "correspondence" beside "figures".

    Raises:
        InputError: a setting is out of range, the split is empty, or the folder belongs to another run or cannot
            be written to.
    """
    held_out.validate()
    condition = Condition(points=points)
    condition.validate()
    folder = Path(folder)
    first = int(heads.record_subject[held_out.records(heads)[0]])
    pictured = next((method for method in methods if isinstance(method, FieldMethod)), None)

    def measure(method: Method, case: Case, scan: Scan, result: FittedHead) -> Row:
        row = judged(method, case, scan, result)
        if isinstance(method, FieldMethod) and isinstance(result, HeadFit):
            row["correspondence"] = correspondence(method, case, scan, result)
            if method is pictured and case.head.subject == first:
                panel = _panel(method, case, scan, result)
                tiles = folder / "pictures"
                tiles.mkdir(exist_ok=True)
                write_png(tiles / f"{case.head.expression}.png", panel)
        return row

    trials = run_trials(
        heads,
        methods,
        [condition],
        protocol="expressions",
        folder=folder,
        held_out=held_out,
        measure=measure,
        progress=progress,
    )
    moving = {row["record"]: _moving_vertices(heads, row["record"]) for row in trials[-1].rows}
    write_json(folder / "summary.json", _to_json(trials, moving))
    write_text(folder / "summary.md", _to_markdown(trials, moving))
    return trials


def correspondence(method: FieldMethod, case: Case, scan: Scan, result: HeadFit) -> dict[str, dict[str, float]]:
    """Distances in the subject's mm between where the warp takes the exact vertices and where they belong.

    Returns:
        For each of `CORRESPONDENCE_PARTS` the mean, and the mean movement that doing nothing would leave; NaN where
        no vertex is in the part.
    """
    moved, rest = (_in_canonical(case, scan, result, mesh) for mesh in (case.truth, case.truth_at_rest))
    conditioned = method.model.condition({n: table.to(method.model.device) for n, table in result.codes.items()})
    found = at_rest(conditioned, moved, device=method.model.device)
    mm = 1 / (result.similarity.scale * scan.placement.scale)
    error = np.linalg.norm(found - rest, axis=1) * mm
    movement = np.linalg.norm(moved - rest, axis=1) * mm
    masks: dict[str, Bool[np.ndarray, " v"]] = head_parts(case.template) | moving_parts(case.template)
    masks[MOVING] = movement > MOVING_MM
    return {
        name: {"error_mm": _mean(error[masks[name]]), "movement_mm": _mean(movement[masks[name]])}
        for name in CORRESPONDENCE_PARTS
    }


def pattern(places: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Colours, sRGB in [0, 1], of places on neutral heads: hues by position, light and dark in cells of `CELL_MM`."""
    hue = 0.5 + 0.45 * np.sin(places * np.array([6.0, 5.0, 7.0]) + np.array([0.0, 1.0, 2.0]))
    cells = np.floor(places[:, :2] * UNIT_MM / CELL_MM).astype(int).sum(axis=1) % 2
    return hue * np.where(cells, 1.0, 0.55)[:, None]


def _in_canonical(case: Case, scan: Scan, result: HeadFit, mesh: Mesh) -> Float[np.ndarray, "v 3"]:
    """A mesh in the subject's mm, in the canonical frame as the fit found it."""
    return result.similarity.compose(scan.placement).apply(mesh.vertices)


def _panel(method: FieldMethod, case: Case, scan: Scan, result: HeadFit) -> Picture:
    """The pattern of the neutral head on the fitted one, above the true head with the true correspondence."""
    mesh = result.mesh.transformed(result.similarity)
    conditioned = method.model.condition({n: table.to(method.model.device) for n, table in result.codes.items()})
    truth = Mesh(_in_canonical(case, scan, result, case.truth), case.truth.faces)
    rest = _in_canonical(case, scan, result, case.truth_at_rest)
    camera = camera_for_points("front", rest[case.template.in_regions("nose", "mouth", "chin", "forehead")])
    colored = (
        (mesh, pattern(at_rest(conditioned, mesh.vertices, device=method.model.device))),
        (truth, pattern(rest)),
    )
    shown = [
        [paint(visible_surface(each, camera=camera, size=PANEL), vertex_colors=colors)] for each, colors in colored
    ]
    return grid(shown)


def _mean(values: Float[np.ndarray, " n"]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _by_expression(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["expression"], []).append(row)
    return groups


def _correspondence(rows: Sequence[Row], part: str, key: str) -> Estimate:
    return over_subjects(
        [row for row in rows if row.get("correspondence")], lambda row: known(row["correspondence"][part][key])
    )


def _moving_vertices(heads: Heads, record: int) -> int:
    """How many vertices the expression of a record moves by more than `MOVING_MM`."""
    head = heads.head(record)
    movement = np.linalg.norm(head.vertices - head.neutral, axis=1) / head.similarity.scale
    return int((movement > MOVING_MM).sum())


def _alike(rows: Sequence[Row], moving: Mapping[int, int], key: str) -> float:
    """Mean over the moving vertices of all heads, each vertex counting alike; NaN where none moves."""
    shown = [row for row in rows if row.get("correspondence") and row["correspondence"][MOVING][key] is not None]
    weights = [moving[row["record"]] for row in shown]
    if not any(weights):
        return float("nan")
    return float(np.average([row["correspondence"][MOVING][key] for row in shown], weights=weights))


def _to_json(trials: Sequence[Trials], moving: Mapping[int, int]) -> dict[str, object]:
    return {
        each.name: describe(each)
        | {
            "moving_vertices_alike": {key: _alike(each.rows, moving, key) for key in ("error_mm", "movement_mm")},
            "figures": {
                part: {metric: value._asdict() for metric, value in metrics.items()}
                for part, metrics in summarise(each.rows).items()
            },
            "expressions": {
                name: {"face_mm": estimate(rows, "face", ERROR)._asdict()}
                | {
                    f"{part}_{key}": _correspondence(rows, part, key)._asdict()
                    for part in CORRESPONDENCE_PARTS
                    for key in ("error_mm", "movement_mm")
                }
                for name, rows in _by_expression(each.rows).items()
            },
        }
        for each in trials
    }


def _to_markdown(trials: Sequence[Trials], moving: Mapping[int, int]) -> str:
    groups = {each.name: _by_expression(each.rows) for each in trials}
    names = list(groups[trials[-1].name])
    faces = markdown_table(
        ["surface error in the face, mm", *groups],
        [
            *([name, *(plus_minus(estimate(own[name], "face", ERROR)) for own in groups.values())] for name in names),
            ["all", *(plus_minus(estimate(each.rows, "face", ERROR)) for each in trials)],
            ["all, above the neck", *(plus_minus(estimate(each.rows, "neck_masked", ERROR)) for each in trials)],
        ],
    )
    pages = [f"{counted(trials)}\n{faces}"]
    for each in trials[:-1]:
        if any(row.get("correspondence") for row in each.rows):
            own = [*groups[each.name].items(), ("all", each.rows)]
            table = markdown_table(
                ["distance to the neutral place, mm", *CORRESPONDENCE_PARTS],
                [
                    [
                        name,
                        *(
                            f"{_correspondence(rows, part, 'error_mm').mean:.2f} of "
                            f"{_correspondence(rows, part, 'movement_mm').mean:.2f}"
                            for part in CORRESPONDENCE_PARTS
                        ),
                    ]
                    for name, rows in own
                ],
            )
            pages.append(
                f"\nCorrespondence of {each.name}: what its warp leaves of the movement (of the movement itself, which "
                f"doing nothing leaves); {MOVING}: vertices that move more than {MOVING_MM:g} mm.\n\n{table}\n"
                "Over all moving vertices alike, whatever the expression: "
                f"{_alike(each.rows, moving, 'error_mm'):.2f} of {_alike(each.rows, moving, 'movement_mm'):.2f} mm.\n"
            )
    return "".join(pages) + f"\n{footnotes(trials)}"
