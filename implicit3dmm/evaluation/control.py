"""How networks of registered heads follow control points, and how local their edits are (LAMM, Table 2 and Fig. 9).

An edit takes a region of another head, or draws a new one; for LAMM there is also what its decoder's tokens do.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.estimates import over_heads
from implicit3dmm.evaluation.painted import painted_vertices
from implicit3dmm.evaluation.references import check_names
from implicit3dmm.evaluation.region_edits import DRAWS, Corrupted, Drawn, corrupted_tokens, moved_mm, new_regions
from implicit3dmm.evaluation.results import write_json
from implicit3dmm.evaluation.statistics import Estimate, estimate_mean
from implicit3dmm.evaluation.summary import write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.mesh_models.control import confinement, moves_towards
from implicit3dmm.mesh_models.lamm import LAMM
from implicit3dmm.mesh_models.model import MeshModel
from implicit3dmm.render import write_png

REGIONS = ("nose", "mouth", "eye_L", "ear_L", "chin")
"""Regions that are edited."""
SHOWN_SHARE = 99.0
"""Per cent of the painted vertices, all pictures together, that lie within the colour scale."""


class Followed(NamedTuple):
    """Errors of one kind of pairs, mm of the average adult."""

    given_back: Estimate
    """Of the source, where no control point moves; all vertices."""
    controls: Estimate
    """Of the control points, where they were told to go."""
    others: Estimate
    """Of all other vertices, against the target head's."""


class Local(NamedTuple):
    """What an edit of one region moves, mm of the average adult."""

    inside: Estimate
    outside: Estimate
    ratio: Estimate
    """Outside over inside."""
    confined: Estimate | None
    """The same where `edit drag` confines the change; None for what follows no control points."""


class Control(NamedTuple):
    """Figures of each model by name."""

    followed: dict[str, dict[str, Followed]]
    """By kind of pairs; of the models that follow control points."""
    local: dict[str, dict[str, Local]]
    """By the region that is taken from another head."""
    drawn: dict[str, dict[str, Drawn]]
    """By the region that is drawn anew."""
    corrupted: dict[str, dict[str, Corrupted]]
    """By the region whose decoder token is corrupted; of LAMMs."""


def evaluate_control(
    heads: Heads,
    models: Sequence[MeshModel],
    *,
    folder: str | Path,
    split: str = "test",
    pairs: int | None = None,
    regions: Sequence[str] = REGIONS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Control:
    """Moves control points to where other heads have them, takes regions of other heads, and draws new ones.

    Pairs of identity are each neutral head and the next subject's; pairs of expression each neutral head and the same
    subject's others. Neutral heads get new regions, and lose decoder tokens. Intervals are over the source heads'
    subjects. locality.png shows the mean head: where the network does not give heads back, and what new regions change
    of what it gives back.

    Args:
        heads: whose held-out heads.
        models: networks with editable regions; the first table has those that follow control points.
        folder: where summary.md, summary.json and locality.png go.
        split: whose heads.
        pairs: only so many subjects, the first; all by default.
        regions: that are edited, one at a time.
        progress: wraps the models, such as `tqdm`.

    Raises:
        InputError: a model cannot be edited so or is of another topology, two have one name, there are fewer than two
            subjects, or the folder cannot be written to.
    """
    check_names([model.name for model in models])
    data = RegisteredHeads.of(heads, split, subjects=pairs)
    resting = np.unique(data.rest)
    if len(resting) < 2:
        raise InputError(f"{heads.name} has {len(resting)} {split} subjects; at least 2 were expected")
    people = np.stack([resting, np.roll(resting, -1)], axis=1)
    moving = np.flatnonzero(data.rest != np.arange(len(data)))
    kinds = {"identity": people, "expression": np.stack([data.rest[moving], moving], axis=1)}
    neutral = torch.from_numpy(data.vertices[resting])
    figures, pictures = Control({}, {}, {}, {}), {}
    for model in progress(models):
        model.topology.check(data.vertices, what=f"a head of {heads.name}")
        for name in regions:
            model.topology.region(name)
        if isinstance(model.network, LAMM):
            figures.followed[model.name] = {
                kind: _followed(model.network, data, rows) for kind, rows in kinds.items() if len(rows)
            }
            figures.corrupted[model.name] = corrupted_tokens(model.network, neutral)
        figures.local[model.name] = {name: _local(model, data, people, name) for name in regions}
        changed = new_regions(model, neutral, regions)
        figures.drawn[model.name] = changed.drawn
        pictures[model.name] = [changed.given_back, *changed.changes.values()]
    tables = _to_markdown(figures, len(people))
    write_json(Path(folder) / "summary.json", {name: _plain(part) for name, part in figures._asdict().items()})
    mesh = Mesh(data.vertices[resting].mean(0, dtype=np.float64), heads.source.template.triangles)
    columns = ["head given back", *(f"{name} anew" for name in regions)]
    picture = painted_vertices(mesh, pictures, columns=columns, share=SHOWN_SHARE)
    write_png(Path(folder) / "locality.png", picture)
    write_text(Path(folder) / "summary.md", tables)
    return figures


@torch.no_grad()
def _followed(network: LAMM, data: RegisteredHeads, rows: np.ndarray) -> Followed:
    controls = torch.from_numpy(np.asarray(network.topology.controls, np.int64))
    others = np.setdiff1d(np.arange(network.topology.size), network.topology.controls)
    columns = []
    for source, target in rows:
        given, wanted = (torch.from_numpy(data.vertices[[row]]) for row in (source, target))
        code = network.encode(given)
        back = moved_mm(network.decode(code), given)[0]
        away = moved_mm(network.decode(code, (wanted - given)[:, controls]), wanted)[0]
        columns.append((back.mean(), away[network.topology.controls].mean(), away[others].mean()))
    subjects = data.subjects[rows[:, 0]]
    values = np.array(columns)
    return Followed(*(over_heads(column, subjects) for column in values.T))


@torch.no_grad()
def _local(model: MeshModel, data: RegisteredHeads, people: np.ndarray, name: str) -> Local:
    own: Bool[np.ndarray, " v"] = model.topology.labels == model.topology.region(name)
    steered = isinstance(model.network, LAMM)
    rows, confined = [], []
    for source, donor in people:
        given, other = (torch.from_numpy(data.vertices[[row]]) for row in (source, donor))
        still = model.network.decode(model.network.encode(given))
        moved = moved_mm(model.network.with_region(given, other, name), still)[0]
        rows.append((moved[own].mean(), moved[~own].mean()))
        if steered:
            moves = moves_towards(model.topology, data.vertices[source], data.vertices[donor], [name])
            kept = moved * confinement(model.topology, data.vertices[source], moves)
            confined.append(kept[~own].mean() / kept[own].mean())
    inside, outside = np.array(rows).T
    ratios = estimate_mean(np.array(confined)) if steered else None
    return Local(estimate_mean(inside), estimate_mean(outside), estimate_mean(outside / inside), ratios)


def _plain(tables: Mapping[str, Mapping[str, NamedTuple]]) -> dict:
    return {
        name: {
            key: {
                column: value._asdict() if isinstance(value, Estimate) else value
                for column, value in row._asdict().items()
            }
            for key, row in rows.items()
        }
        for name, rows in tables.items()
    }


def _to_markdown(figures: Control, count: int) -> str:
    text = f"Subjects: {count}. mm of the average adult; ± half-widths of 95 % intervals over subjects.\n\n"
    if figures.followed:
        rows = [
            [name, kind, *(plus_minus(value, digits=3) for value in row)]
            for name, kinds in figures.followed.items()
            for kind, row in kinds.items()
        ]
        text += (
            markdown_table(["", "pairs", "heads given back", "control points", "other vertices"], rows, left=2) + "\n"
        )
    rows = [
        [name, region, *("–" if value is None else plus_minus(value, digits=3) for value in row)]
        for name, regions in figures.local.items()
        for region, row in regions.items()
    ]
    text += markdown_table(
        ["", "edited", "moved inside, mm", "outside, mm", "outside / inside", "confined"], rows, left=2
    )
    rows = [
        [name, region, *(plus_minus(value, digits=3) for value in row)]
        for name, regions in figures.drawn.items()
        for region, row in regions.items()
    ]
    text += f"\nRegions drawn anew, {DRAWS} times each:\n\n" + markdown_table(
        ["", "drawn", "changed inside, mm", "outside, mm", "outside / inside", "outside, from the head given, mm"],
        rows,
        left=2,
    )
    return text + "".join(_corruption_table(name, rows) for name, rows in figures.corrupted.items())


def _corruption_table(name: str, rows: Mapping[str, Corrupted]) -> str:
    lines = [
        [token, *(f"{moved:.2f}" for moved in row.regions.values()), *(f"{value.mean:.2f}" for value in row[1:])]
        for token, row in rows.items()
    ]
    return (
        f"\nThe decoder's tokens of {name}, corrupted one at a time: by how much the vertices of each region then move,"
        f" mm.\n\n{markdown_table(['token', *rows, 'own', 'all others', 'others / own'], lines)}"
    )
