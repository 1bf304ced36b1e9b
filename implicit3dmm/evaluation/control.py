"""How networks of registered heads follow control points, and how local their edits are (LAMM, Table 2 and Fig. 9)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.estimates import over_heads
from implicit3dmm.evaluation.results import write_json
from implicit3dmm.evaluation.statistics import Estimate, estimate_mean
from implicit3dmm.evaluation.summary import write_text
from implicit3dmm.evaluation.tables import markdown_table, plus_minus
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.mesh_models.base import MeshModel
from implicit3dmm.mesh_models.control import confinement, moves_towards
from implicit3dmm.mesh_models.lamm import LAMM

REGIONS = ("nose", "mouth", "eye_L", "ear_L", "chin")
"""Regions that are edited."""


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


def evaluate_control(
    heads: Heads,
    models: Sequence[MeshModel],
    *,
    folder: str | Path,
    split: str = "test",
    pairs: int | None = None,
    regions: Sequence[str] = REGIONS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[dict[str, dict[str, Followed]], dict[str, dict[str, Local]]]:
    """Moves control points to where other heads have them, and takes regions of other heads.

    Pairs of identity are each neutral head and the next subject's; pairs of expression each neutral head and the same
    subject's others. Intervals are over the source heads' subjects.

    Args:
        heads: whose held-out heads.
        models: networks with editable regions; the first table has those that follow control points.
        folder: where summary.md and summary.json go.
        split: whose heads.
        pairs: only so many subjects, the first; all by default.
        regions: that are edited, one at a time.
        progress: wraps the models, such as `tqdm`.

    Returns:
        For each model by name, errors by kind of pairs, and motions by region.

    Raises:
        InputError: a model cannot be edited so, there are fewer than two subjects, or the folder cannot be written to.
    """
    data = RegisteredHeads.of(heads, split, subjects=pairs)
    resting = np.unique(data.rest)
    if len(resting) < 2:
        raise InputError(f"{heads.name} has {len(resting)} {split} subjects; at least 2 were expected")
    people = np.stack([resting, np.roll(resting, -1)], axis=1)
    moving = np.flatnonzero(data.rest != np.arange(len(data)))
    kinds = {"identity": people, "expression": np.stack([data.rest[moving], moving], axis=1)}
    followed, local = {}, {}
    for model in progress(models):
        for name in regions:
            model.topology.region(name)
        if isinstance(model.network, LAMM):
            followed[model.name] = {
                kind: _followed(model.network, data, rows) for kind, rows in kinds.items() if len(rows)
            }
        local[model.name] = {name: _local(model, data, people, name) for name in regions}
    tables = _to_markdown(followed, local, len(people))
    write_json(Path(folder) / "summary.json", {"followed": _plain(followed), "local": _plain(local)})
    write_text(Path(folder) / "summary.md", tables)
    return followed, local


@torch.no_grad()
def _followed(network: LAMM, data: RegisteredHeads, rows: np.ndarray) -> Followed:
    controls = torch.from_numpy(np.asarray(network.topology.controls, np.int64))
    others = np.setdiff1d(np.arange(network.topology.size), network.topology.controls)
    columns = []
    for source, target in rows:
        given, wanted = (torch.from_numpy(data.vertices[[row]]) for row in (source, target))
        code = network.encode(given)
        back = _distance(network.decode(code), given)
        away = _distance(network.decode(code, (wanted - given)[:, controls]), wanted)
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
        moved = _distance(model.network.with_region(given, other, name), still)
        rows.append((moved[own].mean(), moved[~own].mean()))
        if steered:
            moves = moves_towards(model.topology, data.vertices[source], data.vertices[donor], [name])
            kept = moved * confinement(model.topology, data.vertices[source], moves)
            confined.append(kept[~own].mean() / kept[own].mean())
    inside, outside = np.array(rows).T
    ratios = estimate_mean(np.array(confined)) if steered else None
    return Local(estimate_mean(inside), estimate_mean(outside), estimate_mean(outside / inside), ratios)


def _distance(found: torch.Tensor, wanted: torch.Tensor) -> Float[np.ndarray, " v"]:
    return UNIT_MM * (found - wanted)[0].norm(dim=-1).double().numpy()


def _plain(tables: Mapping[str, Mapping[str, NamedTuple]]) -> dict:
    return {
        name: {
            key: {column: value and value._asdict() for column, value in row._asdict().items()}
            for key, row in rows.items()
        }
        for name, rows in tables.items()
    }


def _to_markdown(
    followed: Mapping[str, Mapping[str, Followed]], local: Mapping[str, Mapping[str, Local]], count: int
) -> str:
    text = f"Subjects: {count}. mm of the average adult; ± half-widths of 95 % intervals over subjects.\n\n"
    if followed:
        rows = [
            [name, kind, *(plus_minus(value, digits=3) for value in row)]
            for name, kinds in followed.items()
            for kind, row in kinds.items()
        ]
        text += (
            markdown_table(["", "pairs", "heads given back", "control points", "other vertices"], rows, left=2) + "\n"
        )
    rows = [
        [name, region, *("–" if value is None else plus_minus(value, digits=3) for value in row)]
        for name, regions in local.items()
        for region, row in regions.items()
    ]
    return text + markdown_table(
        ["", "edited", "moved inside, mm", "outside, mm", "outside / inside", "confined"], rows, left=2
    )
