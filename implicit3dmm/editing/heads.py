"""Heads that can be edited, from files of codes or from scans."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from implicit3dmm.errors import InputError
from implicit3dmm.extraction import cautions, extract_field
from implicit3dmm.fields import ConditionedField
from implicit3dmm.fitting import FitConfig, fit
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.models import HeadModel, load_head

FIT_RESOLUTION = 64
"""Cells of the mesh that a scan's fit is judged by; the edited head is meshed anew."""


@dataclass(frozen=True, eq=False)
class EditableHead:
    """A head of a model and where it stands."""

    field: ConditionedField
    """Of one shape."""
    placement: Similarity
    """From the canonical frame to that of the scan that the head was fitted to; the identity for codes."""
    mm_per_unit: float
    """Millimetres in a unit of that frame; of codes, those of an average adult."""

    def mesh(self, model: HeadModel, field: ConditionedField, *, resolution: int) -> tuple[Mesh, list[str]]:
        """As `canonical_mesh`, in this head's frame."""
        mesh, said = self.canonical_mesh(model, field, resolution=resolution)
        return mesh.transformed(self.placement), said

    def canonical_mesh(self, model: HeadModel, field: ConditionedField, *, resolution: int) -> tuple[Mesh, list[str]]:
        """The surface of `field`, this head's or an edited one, and what may be wrong with it.

        Raises:
            InputError: the field has no surface.
        """
        extraction = extract_field(field, model.field.bounds, resolution=resolution, device=model.device)
        return extraction.mesh, cautions(extraction)


def open_fit(folder: str | Path, model: HeadModel) -> EditableHead:
    """The head that a fit left in its folder, in the frame of its scan.

    Raises:
        InputError: the folder holds no fit, or one of another model.
    """
    report, codes = Path(folder) / "report.json", Path(folder) / "codes.safetensors"
    if not (report.is_file() and codes.is_file()):
        raise InputError(f"{folder} holds no fit; report.json and codes.safetensors are expected; give a folder of one")
    alignment = json.loads(report.read_text())["alignment"]
    placement = Similarity.from_matrix(np.array(alignment["to_canonical"])).inverse()
    return EditableHead(load_head(codes, model), placement, alignment["mm_per_unit"])


def open_head(path: str | Path, model: HeadModel, *, config: FitConfig | None = None) -> EditableHead:
    """A head from its codes, from a file that an edit left, or from a scan, to which the model is fitted.

    Args:
        path: the folder of a fit, codes.safetensors of a fit or a sample, edit_000.safetensors of an edit, or a scan in
            any format that `fit` reads.
        model: that the codes belong to, or that is fitted.
        config: of the fit.

    Raises:
        InputError: the file cannot be used, its codes belong to another model, or the scan shows no head.
    """
    if Path(path).is_dir():
        return open_fit(path, model)
    if Path(path).suffix == ".safetensors":
        return EditableHead(load_head(path, model), Similarity.identity(), UNIT_MM)
    result = fit(path, model, config=config, resolution=FIT_RESOLUTION)
    if not result.is_head:
        raise InputError(f"{path}: no head was found; {result.report['head']['reason']}; give another scan")
    codes = {name: table[:1].to(model.device) for name, table in result.codes.items()}
    return EditableHead(model.condition(codes), result.similarity.inverse(), result.report["alignment"]["mm_per_unit"])
