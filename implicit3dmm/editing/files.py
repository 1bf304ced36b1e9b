"""What an edit leaves: meshes, heads to go on from, a picture and a report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import implicit3dmm
from implicit3dmm.editing.effect import displacement_mm
from implicit3dmm.editing.heads import EditableHead
from implicit3dmm.evaluation.results import write_json
from implicit3dmm.fields import ConditionedField
from implicit3dmm.files import staged_folder
from implicit3dmm.geometry.mesh import Mesh, write_mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.models import HeadModel, save_head
from implicit3dmm.render import (
    Picture,
    camera_for_points,
    color_bar,
    grid,
    paint,
    signed_scale,
    visible_surface,
    with_margin,
    write_png,
)
from implicit3dmm.render.drawing import PAPER
from implicit3dmm.render.ticks import round_limit

MOVED_MM = 0.1
"""A vertex that an edit moved by less has stayed where it was."""
_PANEL = (250, 300)
_MOST_COLUMNS = 8


class _Shown(NamedTuple):
    mesh: Mesh
    displacement_mm: np.ndarray


def save_edits(
    folder: str | Path,
    model: HeadModel,
    before: EditableHead,
    edited: Sequence[ConditionedField],
    *,
    labels: Sequence[str] = (),
    since: Sequence[int] = (),
    about: Mapping[str, Any],
    resolution: int,
) -> dict[str, Any]:
    """Writes the head before, and each edited one with its displacements: all files or none.

    What `save_meshes` writes, and where the model can be edited edit_000.safetensors and so on, which later edits and
    `extract` read.

    Args:
        folder: where; made if missing.
        model: of the heads.
        before: the head that was edited.
        edited: what came of it.
        labels: as in `save_meshes`.
        since: as in `save_meshes`.
        about: what was done, for the report.
        resolution: cells along the longest side of the meshes' box.

    Returns:
        The report.

    Raises:
        InputError: the folder cannot be written to, or a field has no surface.
    """
    (own, warnings), *made = (before.mesh(model, field, resolution=resolution) for field in (before.field, *edited))

    def keep(staged: Path) -> None:
        for number, field in enumerate(edited):
            if field.state is not None:
                save_head(staged / f"{_name(number)}.safetensors", field, model=model.name)

    return save_meshes(
        folder,
        own,
        [mesh for mesh, _ in made],
        upright=before.placement.inverse(),
        mm_per_unit=before.mm_per_unit,
        labels=labels,
        since=since,
        about={"model": model.name, **about, "warnings": warnings},
        warnings=[said for _, said in made],
        keep=keep,
    )


def save_meshes(
    folder: str | Path,
    before: Mesh,
    edited: Sequence[Mesh],
    *,
    upright: Similarity,
    mm_per_unit: float,
    labels: Sequence[str] = (),
    since: Sequence[int] = (),
    about: Mapping[str, Any],
    warnings: Sequence[Sequence[str]] = (),
    keep: Callable[[Path], None] = lambda staged: None,
) -> dict[str, Any]:
    """Writes a head before, and each edited one with its displacements: all files or none.

    before.ply; edit_000.ply and so on, whose vertices carry displacement_mm; picture.png of the first eight;
    report.json.

    Args:
        folder: where; made if missing.
        before: the head, closed, in its own frame.
        edited: what came of it.
        upright: from that frame to the canonical one, for the picture.
        mm_per_unit: millimetres in a unit of the head's frame.
        labels: what to call each in the picture.
        since: for each edited head the number of the one that its displacements count from, -1 for the head before;
            by default all count from that.
        about: what was done, for the report.
        warnings: what may be wrong with each.
        keep: writes more files into the folder.

    Returns:
        The report.

    Raises:
        InputError: the folder cannot be written to.
    """
    shown, entries = [], []
    with staged_folder(folder) as staged:
        write_mesh(staged / "before.ply", before)
        for number, mesh in enumerate(edited):
            start = [before, *edited][since[number] + 1] if since else before
            moved = displacement_mm(mesh, start, mm_per_unit=mm_per_unit)
            name = _name(number)
            write_mesh(staged / f"{name}.ply", mesh, scalars={"displacement_mm": moved})
            said = list(warnings[number]) if warnings else []
            entries.append({"mesh": f"{name}.ply", "warnings": said} | _describe(moved))
            shown.append(_Shown(mesh, moved))
        keep(staged)
        report = {
            "implicit3dmm": implicit3dmm.__version__,
            **about,
            "mm_per_unit": mm_per_unit,
            "edits": entries,
        }
        labels = labels or [_name(number) for number in range(len(shown))]
        write_png(staged / "picture.png", _picture(before, shown, labels, upright))
        write_json(staged / "report.json", report)
    return report


def _name(number: int) -> str:
    return f"edit_{number:03d}"


def _describe(moved: np.ndarray) -> dict[str, float]:
    size = np.abs(moved)
    return {
        "moved_share": round(float((size > MOVED_MM).mean()), 4),
        "mean_of_moved_mm": round(float(size[size > MOVED_MM].mean()) if (size > MOVED_MM).any() else 0.0, 3),
        "most_mm": round(float(size.max()), 3),
    }


def _picture(own: Mesh, shown: Sequence[_Shown], labels: Sequence[str], upright: Similarity) -> Picture:
    """The head before and after, and where it changed; a column each."""
    largest = max(float(np.percentile(np.abs(each.displacement_mm), 99.5)) for each in shown)
    scale = signed_scale(round_limit(max(largest, MOVED_MM)))
    own = own.transformed(upright)
    blank = np.full((_PANEL[1], _PANEL[0], 3), PAPER, np.uint8)
    cameras = [camera_for_points(view, own.vertices) for view in ("front", "three_quarter")]
    columns = [[*(paint(visible_surface(own, camera=camera, size=_PANEL)) for camera in cameras), blank]]
    for mesh, moved in shown[:_MOST_COLUMNS]:
        seen = [visible_surface(mesh.transformed(upright), camera=camera, size=_PANEL) for camera in cameras]
        columns.append([*(paint(each) for each in seen), paint(seen[1], vertex_colors=scale(moved))])
    panels = grid(list(zip(*columns, strict=True)), column_labels=["before", *labels[: len(columns) - 1]])
    return with_margin(grid([[panels, color_bar(scale, height=420)]], gap=4), 16)
