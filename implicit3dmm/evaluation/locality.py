"""Locality: what taking a part from another head does inside the part, around it, and far away (imHead, Fig. 6)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

import implicit3dmm
from implicit3dmm.data.average_head import template
from implicit3dmm.data.heads import Heads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import Case, HeldOut
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.estimates import known
from implicit3dmm.evaluation.methods import FieldMethod, Method
from implicit3dmm.evaluation.nearest import vertex_areas
from implicit3dmm.evaluation.results import ResultsFolder, Row, write_json
from implicit3dmm.evaluation.statistics import Estimate, estimate_mean
from implicit3dmm.evaluation.summary import write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.extraction import extract_field
from implicit3dmm.fields import ConditionedField
from implicit3dmm.fields.base import Frames
from implicit3dmm.fitting.registration import register_template
from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.template import REGIONS, group_regions

BEYOND_MM = 20.0
"""From this distance to a part on, nothing should move."""

COLUMNS = {
    "inside_mm": "moved inside, mm",
    "beyond_mm": "beyond 2 cm, mm",
    "leak": "beyond / inside",
    "donor_before_mm": "to the donor, before, mm",
    "donor_after_mm": "after, mm",
    "border_before_degrees": "bend at the border, before, °",
    "border_after_degrees": "after, °",
}
"""The figures and their titles."""


@dataclass(frozen=True)
class LocalityConfig:
    """Which parts are swapped between which heads."""

    parts: tuple[str, ...] = ("nose", "mouth", "eyes", "ears")
    pairs: int = 20
    """Pairs of heads, each with the next one of its split; at most as many as there are heads."""
    frames: Frames = "part"
    """Whether a part's local frames alone move, or all are placed anew."""
    split: str = "test"
    """Split that the heads are from."""
    seed: int = 0
    """Seed of the points that are fitted."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if not self.parts or self.pairs < 1 or self.seed < 0:
            raise InputError(
                f"parts {self.parts}, {self.pairs} pairs, seed {self.seed}: give at least one part and one pair, and "
                "a seed of 0 or more"
            )


class _Fitted(NamedTuple):
    """A held-out head as a model sees it."""

    field: ConditionedField
    mesh: Mesh
    """Canonical frame."""
    labels: UInt8[np.ndarray, " v"]
    """Region of each vertex of the mesh, an index into `REGIONS`."""


def evaluate_locality(
    heads: Heads,
    methods: Sequence[Method],
    *,
    folder: str | Path,
    config: LocalityConfig,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, list[Row]]:
    """Fits held-out heads, swaps parts between them, and measures where the surface moved; nothing is masked.

    Each method has a folder of its own, with protocol.json and results.jsonl, one line a swap, written when it is done;
    a stopped run goes on where it was. The folder gets summary.json and summary.md.

    Args:
        heads: whose held-out heads.
        methods: fields with parts.
        folder: where the results go.
        config: what is swapped.
        progress: wraps the swaps to do, such as `tqdm`.

    Returns:
        Rows of each method by its name: base and donor (records), part, and the figures of `COLUMNS`.

    Raises:
        InputError: a method has no such parts, the split has fewer than two heads, or a folder belongs to another run
            or cannot be written to.
    """
    config.validate()
    held_out = HeldOut(split=config.split, seed=config.seed)
    records = held_out.records(heads)
    if len(records) < 2 or config.pairs > len(records):
        raise InputError(
            f"{heads.name} has {len(records)} {config.split} heads, and {config.pairs} pairs are asked for; a swap"
            " takes two heads, and each has one next to it; ask for fewer pairs, or choose another split or corpus"
        )
    for method in methods:
        _check_parts(method, config.parts)
    settings = {key: value for key, value in asdict(config).items() if key not in ("parts", "pairs")}
    about = {"protocol": "locality", **settings, "recipe": asdict(heads.recipe)}
    about["implicit3dmm"] = implicit3dmm.__version__
    pairs = list(zip(records, records[1:] + records[:1], strict=True))[: config.pairs]
    asked = [(base, donor, part) for base, donor in pairs for part in config.parts]
    rows = {}
    for method in methods:
        kept = ResultsFolder.of_method(folder, method.name, about | {"method": method.settings})
        done = {_key(row) for row in kept.rows}
        fitted = lru_cache(maxsize=2)(partial(_fit, method, heads, held_out))
        for base, donor, part in progress([swap for swap in asked if swap not in done]):
            figures = _figures(method, fitted(base), fitted(donor), part, config.frames)
            kept.append({"base": base, "donor": donor, "part": part} | figures)
        rows[method.name] = [row for row in kept.rows if _key(row) in set(asked)]
    _write_summary(Path(folder), rows, config)
    return rows


def _check_parts(method: Method, parts: Sequence[str]) -> None:
    if not isinstance(method, FieldMethod) or not method.model.field.parts:
        raise InputError(f"{method.name} has no parts to swap; give a field with parts, such as imhead")
    field = method.model.condition(method.model.prior.mean())
    for part in parts:
        field.with_part(part, field)  # refuses what is no part


def _key(row: Row) -> tuple[int, int, str]:
    return row["base"], row["donor"], row["part"]


def _fit(method: FieldMethod, heads: Heads, held_out: HeldOut, record: int) -> _Fitted:
    result = method.fit(Case.of(heads, record, held_out).scan(Condition()).points)
    codes = {name: table.to(method.model.device) for name, table in result.codes.items()}
    field = method.model.condition(codes)
    mesh = result.mesh.transformed(result.similarity)
    registered = NearestNeighbours(register_template(mesh).vertices)
    return _Fitted(field, mesh, template().regions[registered.query(mesh.vertices)[1]])


def _figures(method: FieldMethod, base: _Fitted, donor: _Fitted, part: str, frames: Frames) -> dict[str, float]:
    """Means over the area of the base's surface, of the part where nothing else is said."""
    edited = extract_field(
        base.field.with_part(part, donor.field, frames=frames),
        method.model.field.bounds,
        resolution=method.resolution,
        device=method.model.device,
    ).mesh
    inside = np.isin(base.labels, [REGIONS.index(name) for name in group_regions(part)])
    beyond = NearestNeighbours(base.mesh.vertices[inside]).query(base.mesh.vertices)[0] * UNIT_MM > BEYOND_MM
    inside_edited = inside[NearestNeighbours(base.mesh.vertices).query(edited.vertices)[1]]
    moved, away = _distance_mm(base.mesh, edited), _distance_mm(base.mesh, donor.mesh)
    areas = vertex_areas(base.mesh)
    inside_mm, beyond_mm = (float(np.average(moved[where], weights=areas[where])) for where in (inside, beyond))
    return {
        "inside_mm": inside_mm,
        "beyond_mm": beyond_mm,
        "leak": beyond_mm / inside_mm,
        "donor_before_mm": float(np.average(away[inside], weights=areas[inside])),
        "donor_after_mm": float(
            np.average(_distance_mm(edited, donor.mesh)[inside_edited], weights=vertex_areas(edited)[inside_edited])
        ),
        "border_before_degrees": _bend(base.mesh, inside),
        "border_after_degrees": _bend(edited, inside_edited),
    }


def _distance_mm(mesh: Mesh, surface: Mesh) -> Float[np.ndarray, " v"]:
    """Distance of each vertex to a surface, mm of an average adult."""
    return distance_to_surface(mesh.vertices, surface).distance * UNIT_MM


def _bend(mesh: Mesh, inside: Bool[np.ndarray, " v"]) -> float:
    """Mean angle between the normals at both ends of the edges that leave a part, degrees."""
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    across = edges[inside[edges[:, 0]] & ~inside[edges[:, 1]]]
    normals = mesh.vertex_normals()
    cosine = np.einsum("ex,ex->e", normals[across[:, 0]], normals[across[:, 1]])
    return float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())


def _write_summary(folder: Path, rows: dict[str, list[Row]], config: LocalityConfig) -> None:
    means = {
        name: {
            part: {
                figure: estimate_mean(np.array([known(row[figure]) for row in own if row["part"] == part]))
                for figure in COLUMNS
            }
            for part in config.parts
        }
        for name, own in rows.items()
    }
    write_json(folder / "summary.json", _to_json(means, config))
    write_text(folder / "summary.md", _to_markdown(means, config))


def _to_json(means: dict[str, dict[str, dict[str, Estimate]]], config: LocalityConfig) -> dict:
    return {
        "config": asdict(config),
        "methods": {
            name: {
                part: {figure: estimate._asdict() for figure, estimate in figures.items()}
                for part, figures in parts.items()
            }
            for name, parts in means.items()
        },
    }


def _to_markdown(means: dict[str, dict[str, dict[str, Estimate]]], config: LocalityConfig) -> str:
    table = markdown_table(
        ["method", "part", *COLUMNS.values()],
        [
            [
                name,
                part,
                *(
                    plus_minus(
                        figures[figure], digits=1 if figure.endswith("degrees") else 3 if figure == "leak" else 2
                    )
                    for figure in COLUMNS
                ),
            ]
            for name, parts in means.items()
            for part, figures in parts.items()
        ],
        left=2,
    )
    moved = "the swapped part's local frames alone moved" if config.frames == "part" else "all local frames moved"
    return (
        f"Parts of {config.pairs} fitted {config.split} heads, taken from the next head; {moved}. Means over the area"
        " of the head before the swap, ± half-widths of 95 % intervals over pairs, mm of an average adult; nothing is"
        " masked.\n\n"
        f"{table}"
    )
