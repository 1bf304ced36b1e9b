"""From codes to a mesh."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from implicit3dmm.fields import ConditionedField
from implicit3dmm.geometry.isosurface import Extraction
from implicit3dmm.geometry.isosurface import extract as extract_level_set
from implicit3dmm.latents import Codes
from implicit3dmm.models import HeadModel, evaluate_in_chunks

LIPSCHITZ = 2.0
"""Slope that a trained field is trusted not to exceed between a block's centre and the surface; a true distance has 1.
`Extraction.steepest` says what was seen, and `band="dense"` needs no such trust."""

CHUNK = 4096
"""Points in one evaluation: their activations fit in a core's cache."""


def extract(
    model: HeadModel,
    codes: Codes,
    *,
    resolution: int = 256,
    band: Literal["narrow", "dense"] = "narrow",
    lipschitz: float = LIPSCHITZ,
) -> Extraction:
    """The mesh of one shape, in the canonical frame.

    Args:
        model: whose codes.
        codes: one shape's codes; of several the first is taken.
        resolution: cells along the longest side of the field's box.
        band: evaluate only blocks that can hold the surface, or the whole grid.
        lipschitz: bound on the field's slope that decides which blocks can hold it.

    Raises:
        InputError: the codes are another model's, or the field has no surface.
    """
    with torch.no_grad():
        conditioned = model.condition({name: table[:1].to(model.device) for name, table in codes.items()})
    return extract_field(
        conditioned, model.field.bounds, resolution=resolution, band=band, lipschitz=lipschitz, device=model.device
    )


def cautions(extraction: Extraction) -> list[str]:
    """What may be wrong with an extracted mesh, one sentence each; none for nearly all."""
    said = []
    if extraction.lipschitz is not None and extraction.steepest > extraction.lipschitz:
        said.append(
            f"the field's slope reached {extraction.steepest:.2f}, above the bound {extraction.lipschitz:g} that the "
            "mesh relies on; pieces may be missing, which a dense extraction would show"
        )
    if extraction.touches_bounds:
        said.append("the surface reaches the model's box and was closed there; look at the result")
    return said


def at_rest(
    conditioned: ConditionedField, points: Float[np.ndarray, "n 3"], *, device: torch.device | str = "cpu"
) -> Float[np.ndarray, "n 3"]:
    """Where points of one head lie on the same head without its expression, canonical units."""
    return evaluate_in_chunks(conditioned.to_canonical, points, chunk=CHUNK, device=torch.device(device))


def on_template(
    conditioned: ConditionedField, points: Float[np.ndarray, "n 3"], *, device: torch.device | str = "cpu"
) -> Float[np.ndarray, "n 3"] | None:
    """Where points of one head lie on the model's own template, canonical units; None where it has none."""
    if conditioned.to_template(torch.zeros(1, 0, 3, device=device)) is None:
        return None
    return evaluate_in_chunks(conditioned.to_template, points, chunk=CHUNK, device=torch.device(device))


def extract_field(
    conditioned: ConditionedField,
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]],
    *,
    resolution: int = 256,
    band: Literal["narrow", "dense"] = "narrow",
    lipschitz: float = LIPSCHITZ,
    device: torch.device | str = "cpu",
) -> Extraction:
    """`extract` for a field whose codes are given already, such as an edited one."""

    def sdf(points: np.ndarray) -> np.ndarray:
        return evaluate_in_chunks(conditioned.sdf, points, chunk=CHUNK, device=torch.device(device))

    return extract_level_set(sdf, np.array(bounds), resolution, band=band, lipschitz=lipschitz)
