"""Figures of single vertices, painted on a head (LAMM, Figs. 5, 6 and 9)."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.render import (
    Picture,
    View,
    camera_for_points,
    color_bar,
    error_limit,
    error_scale,
    grid,
    paint,
    visible_surface,
    with_margin,
)

VIEWS: tuple[View, ...] = ("front", "three_quarter")
PANEL = (250, 300)
"""Width and height of a head, pixels."""
BAR = 420
"""Most height of the colour bar, pixels."""


def painted_vertices(
    mesh: Mesh, rows: Mapping[str, Sequence[Float[np.ndarray, " v"]]], *, columns: Sequence[str], share: float
) -> Picture:
    """Distances on a head, all in one colour scale that starts at 0; each row has two lines, one a view of `VIEWS`.

    Args:
        mesh: the head, canonical frame.
        rows: distances of its vertices by the title of the row, mm, one array a column; where there is one row, it
            needs no title.
        columns: their titles.
        share: per cent of all distances that lie within the scale.

    Returns:
        (h, w, 3) picture.
    """
    scale = error_scale(error_limit(np.concatenate([values for row in rows.values() for values in row]), share=share))
    seen = [visible_surface(mesh, camera=camera_for_points(view, mesh.vertices), size=PANEL) for view in VIEWS]
    lines = [[paint(view, vertex_colors=scale(values)) for values in row] for row in rows.values() for view in seen]
    titles = [title for title in rows for _ in VIEWS] if len(rows) > 1 else []
    panels = grid(lines, column_labels=columns, row_labels=titles)
    return with_margin(grid([[panels, color_bar(scale, height=min(panels.shape[0], BAR))]], gap=4), 16)
