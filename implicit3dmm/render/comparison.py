"""The picture of a fit: scan, fitted mesh and the distances between them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.render.camera import View, camera_for_points
from implicit3dmm.render.colormap import ColorScale, color_bar, error_scale
from implicit3dmm.render.pictures import Picture, grid, stack, text_block, with_margin
from implicit3dmm.render.renderer import paint, visible_surface
from implicit3dmm.render.ticks import round_limit

SHOWN_SHARE = 95.0
"""A colour scale of errors ends at the first round number above this percentile of them."""
_SMALLEST_LIMIT_MM = 0.1
_MARGIN = 16
_CAPTION_SIZE = 15


def fit_picture(
    scan: Mesh,
    fit: Mesh,
    *,
    error_mm: Float[np.ndarray, " n"],
    error_on: Literal["scan", "fit"] = "scan",
    caption: Sequence[str] = (),
    scale: ColorScale | None = None,
    views: Sequence[View] = ("front", "three_quarter"),
    panel: tuple[int, int] = (380, 460),
    antialias: int = 3,
) -> Picture:
    """A row for each view; in it the scan, the fit, and one of them painted with its errors.

    The views frame the fit: of a scan with shoulders the head is shown.

    Args:
        scan: mesh or point cloud, canonical frame.
        fit: the fitted mesh, canonical frame.
        error_mm: distance at each vertex of the mesh that `error_on` names, millimetres; not a number
            where there is none to show (painted grey). Negative values need a signed `scale`.
        error_on: which of the two is painted.
        caption: paragraphs below the pictures, with the fit's figures.
        scale: colours of the errors; by default from 0 to a round number above 95 % of them.
        views: names for `camera_for_points`.
        panel: width and height of each picture, pixels.
        antialias: samples along each side of a pixel.

    Returns:
        (h, w, 3) picture.

    Raises:
        InputError: the errors are not one for each vertex, or see `render` and `camera_for_points`.
    """
    painted = {"scan": scan, "fit": fit}[error_on]
    if error_mm.shape != (len(painted.vertices),):
        raise InputError(
            f"errors of shape {error_mm.shape} were given for the {len(painted.vertices)} vertices of the "
            f"{error_on}; expected one for each"
        )
    scale = error_scale(error_limit(error_mm)) if scale is None else scale
    rows = []
    for view in views:
        camera = camera_for_points(view, fit.vertices)
        seen = {
            name: visible_surface(mesh, camera=camera, size=panel, antialias=antialias)
            for name, mesh in (("scan", scan), ("fit", fit))
        }
        rows.append([paint(seen["scan"]), paint(seen["fit"]), paint(seen[error_on], vertex_colors=scale(error_mm))])
    titles = ["Scan", "Fit", f"Distance, on the {error_on}"]
    panels = grid(rows, column_labels=titles)
    bar = color_bar(scale, height=min(panels.shape[0], 420))
    sheet = grid([[panels, bar]], gap=4)
    if caption:
        text = text_block(caption, width=sheet.shape[1], font_size=_CAPTION_SIZE)
        sheet = stack([sheet, text], gap=12)
    return with_margin(sheet, _MARGIN)


def error_limit(error_mm: Float[np.ndarray, " n"], *, share: float = SHOWN_SHARE) -> float:
    """Where a colour scale ends that shows most of the errors, mm: a round number, at least 0.1.

    Args:
        error_mm: distances of either sign; those that are not numbers are passed over.
        share: per cent of the errors that lie within the scale.
    """
    known = np.abs(error_mm[np.isfinite(error_mm)])
    highest = float(np.percentile(known, share)) if len(known) else 0.0
    return round_limit(max(highest, _SMALLEST_LIMIT_MM))
