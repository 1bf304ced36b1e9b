"""Distances painted on a head: a line a view, a column a set of distances, one scale for all."""

import numpy as np
import trimesh

from implicit3dmm.evaluation.painted import PANEL, painted_vertices
from implicit3dmm.geometry.mesh import Mesh

SPHERE = trimesh.creation.icosphere(subdivisions=2)
BALL = Mesh(np.asarray(SPHERE.vertices), np.asarray(SPHERE.faces))
HALF = np.where(BALL.vertices[:, 1] > 0, 4.0, 0.0)


def test_every_column_is_painted_in_the_scale_of_all():
    alone = painted_vertices(BALL, {"": [HALF]}, columns=["one"], share=100.0)
    beside = painted_vertices(BALL, {"": [HALF, HALF / 4]}, columns=["one", "two"], share=100.0)
    size = slice(16, 16 + PANEL[0])
    assert beside.shape[1] == alone.shape[1] + PANEL[0] + 8
    np.testing.assert_array_equal(alone[40:600, size], beside[40:600, size])
    faint = slice(16 + PANEL[0] + 8, 16 + 2 * PANEL[0] + 8)
    assert beside[40:300, faint].mean() > alone[40:300, size].mean()


def test_rows_have_titles_where_there_are_several():
    rows = {"first": [HALF], "second": [HALF]}
    several = painted_vertices(BALL, rows, columns=["one"], share=100.0)
    alone = painted_vertices(BALL, {"first": [HALF]}, columns=["one"], share=100.0)
    assert several.shape[0] == alone.shape[0] + 2 * (PANEL[1] + 8)
    assert several.shape[1] > alone.shape[1]
