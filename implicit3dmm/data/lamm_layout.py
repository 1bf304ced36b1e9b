"""Registered meshes of one's own in the files that LAMM's public code trains on.

    template.obj            one mesh; its polygons are those of all (template.ply will do too)
    paths_train.csv         the training meshes, one a line in the first column, relative to the folder; no header
    mean_std.pickle         {"mm_mult": millimetres in a unit of the meshes, "mean": (v, 3), "std": (v, 3)}
    region_ids.pickle       the vertices of each region: {name: numbers}, or a list of them
    manipulation.yaml       LAMM's config, of which MODEL.control_vertices is read: {region: numbers}; may be missing

Positions are those that the files list, in their order: a reader that joins coincident ones counts otherwise. They are
brought to canonical units by `mm_mult` alone and keep the frame that they have. Mean and deviation are not read, since
networks learn their own, nor are LAMM's files of boundaries, displacements and codes.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.data.plain_pickle import read_plain_pickle
from implicit3dmm.data.registered import UNKNOWN, RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import read_mesh
from implicit3dmm.geometry.mesh_files import read_arrays
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.yaml_files import read_yaml

REGIONS = "region_ids.pickle"
SCALE = "mean_std.pickle"
PATHS = "paths_train.csv"
CONFIG = "manipulation.yaml"
TEMPLATES = ("template.obj", "template.ply")


def is_lamm_folder(path: str | Path) -> bool:
    """Whether a folder has LAMM's layout."""
    return (Path(path) / REGIONS).is_file()


class LAMMFolder:
    """Meshes of one topology with regions and perhaps control points; nothing is known of who they are."""

    def __init__(self, folder: str | Path):
        """Reads all but the meshes.

        Raises:
            InputError: a file is missing, damaged, or does not say what it should.
        """
        self.folder = Path(folder)
        self.name = self.folder.resolve().name
        template = next((self.folder / name for name in TEMPLATES if (self.folder / name).exists()), None)
        if template is None:
            raise InputError(f"{folder} has no {TEMPLATES[0]}; add one of its meshes by that name")
        mesh = read_mesh(template)
        if mesh.faces is None:
            raise InputError(f"{template} has no faces; a mesh is expected")
        self.template: Float[np.ndarray, "v 3"] = mesh.vertices
        """In the files' unit."""
        self.triangles: Int[np.ndarray, "t 3"] = mesh.faces
        self.mm_per_unit = _mm_per_unit(self.folder / SCALE)
        self.regions: dict[str, Int[np.ndarray, " n"]] = _lists(self.folder / REGIONS)
        """Vertices of each region, in the order of the file."""
        self.controls: dict[str, Int[np.ndarray, " c"]] | None = _controls(self.folder / CONFIG)
        """Control points of regions; None where the folder has no such file."""
        self.paths = _paths(self.folder / PATHS)
        """The training meshes."""

    def registered(self, subjects: int | None = None) -> RegisteredHeads:
        """Reads the meshes, each a person of its own at rest whose labels are `UNKNOWN`; canonical units.

        Args:
            subjects: only the first so many.

        Raises:
            InputError: a mesh cannot be read, or has another number of vertices than the template.
        """
        paths = self.paths[:subjects]
        vertices = np.empty((len(paths), *self.template.shape), np.float32)
        for number, path in enumerate(paths):
            found = read_arrays(path).vertices
            if found.shape != self.template.shape:
                raise InputError(
                    f"{path} has {len(found)} vertices; the template has {len(self.template)}; register it first"
                )
            vertices[number] = found * (self.mm_per_unit / UNIT_MM)
            if not np.isfinite(vertices[number]).all():
                raise InputError(f"{path} has vertices that are not finite numbers; export it again")
        rows = np.arange(len(paths))
        labels = {name: np.full(len(paths), UNKNOWN) for name in ("identity", "expression")}
        return RegisteredHeads(vertices, rows, rows, labels)


def _mm_per_unit(path: Path) -> float:
    known = read_plain_pickle(path)
    value = known.get("mm_mult") if isinstance(known, Mapping) else None
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise InputError(
            f"{path} has no 'mm_mult' above 0, the millimetres in a unit of the meshes; add it: 1 for mm, 1000 for m"
        )
    return float(value)


def _lists(path: Path) -> dict[str, Int[np.ndarray, " n"]]:
    known = read_plain_pickle(path)
    if isinstance(known, list | tuple):
        known = dict(enumerate(known))
    if not isinstance(known, Mapping) or not known:
        raise InputError(f"{path} holds no regions; a mapping from their names to numbers of vertices is expected")
    return {str(name): _numbers(members, f"{path}, region {name}") for name, members in known.items()}


def _controls(path: Path) -> dict[str, Int[np.ndarray, " c"]] | None:
    if not path.exists():
        return None
    section = read_yaml(path).get("MODEL")
    known = section.get("control_vertices") if isinstance(section, Mapping) else None
    if not isinstance(known, Mapping) or not known:
        raise InputError(f"{path} has no MODEL.control_vertices, the control points of regions; add it, or remove it")
    return {str(name): _numbers(members, f"{path}, region {name}") for name, members in known.items()}


def _numbers(members: Any, where: str) -> Int[np.ndarray, " n"]:
    table = np.asarray(members) if isinstance(members, np.ndarray | list | tuple) else np.zeros(0)
    if table.ndim != 1 or not table.size or not np.issubdtype(table.dtype, np.integer):
        raise InputError(f"{where} is no list of vertices; whole numbers from 0 are expected")
    return table.astype(np.int64)


def _paths(path: Path) -> list[Path]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            names = [row[0].strip() for row in csv.reader(file) if row and row[0].strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path} ({error}); a list of the training meshes is expected") from None
    return [path.parent / name for name in names]
