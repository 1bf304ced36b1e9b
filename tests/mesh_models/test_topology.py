"""Regions part the vertices, control points lie in them, and what does not fit is named."""

import numpy as np
import pytest

from implicit3dmm.data.sources import open_source
from implicit3dmm.errors import InputError
from implicit3dmm.heads.template import REGIONS
from implicit3dmm.mesh_models.topology import Topology, spread_points

TRIANGLES = np.array([[0, 1, 2], [1, 3, 2], [2, 3, 4], [3, 5, 4]])
"""A strip of six vertices."""
CAP = np.zeros(4, bool)
HALVES = {"right": [0, 1, 2], "left": [5, 4, 3]}


def strip(regions=HALVES, controls=None) -> Topology:
    return Topology.of_regions(TRIANGLES, CAP, 6, regions, controls or {"left": [4], "right": [0, 2]})


def test_control_points_are_listed_region_by_region():
    topology = strip()
    assert topology.names == ("right", "left")
    assert [region.tolist() for region in topology.regions] == [[0, 1, 2], [3, 4, 5]]
    assert topology.controls.tolist() == [0, 2, 4]
    assert topology.control_regions.tolist() == [0, 0, 1]


def test_a_rim_is_what_an_edge_joins_to_another_region():
    assert [rim.tolist() for rim in strip().rims] == [[1, 2], [3, 4]]
    assert len(strip().edges) == 9


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({"right": [0, 1, 2], "left": [2, 3, 4, 5]}, "vertices 2 lie in more than one region"),
        ({"right": [0, 1], "left": [4, 5]}, "vertices 2, 3 lie in no region; every vertex has to lie in exactly one"),
        ({"right": [0, 1, 2], "left": [3, 4, 6]}, "region left has vertices 6; the mesh has vertices 0 to 5"),
    ],
)
def test_regions_that_do_not_part_the_vertices_are_refused(regions, message):
    with pytest.raises(InputError, match=message):
        strip(regions, {"left": [4]})


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ({"left": [0, 4]}, "control points vertices 0 lie outside their region left"),
        ({"left": [-1]}, "control points vertices -1 lie outside their region left"),
        ({"top": [1]}, "control points of 'top', which is no region; there are right, left"),
        ({"left": [4, 4]}, "region left names a control point twice"),
    ],
)
def test_control_points_outside_their_region_are_refused(controls, message):
    with pytest.raises(InputError, match=message):
        strip(controls=controls)


def test_a_head_of_another_topology_is_refused():
    strip().check(np.zeros((2, 6, 3)), what="the head")
    with pytest.raises(InputError, match=r"the head has vertices of shape \(7, 3\); the model has \(6, 3\); register"):
        strip().check(np.zeros((7, 3)), what="the head")
    with pytest.raises(InputError, match="no region 'top'; there are right, left"):
        strip().region("top")


def test_a_head_has_its_regions_and_control_points_spread_over_each():
    template = open_source("makehuman").template
    topology = Topology.of(template, controls=4)
    assert topology.names == REGIONS
    np.testing.assert_array_equal(topology.labels, template.regions)
    assert np.bincount(topology.control_regions).tolist() == [4] * 12
    nose = template.vertices[topology.controls[topology.control_regions == 0]]
    apart = np.linalg.norm(nose[:, None] - nose, axis=-1)[~np.eye(4, dtype=bool)]
    assert apart.min() > 0.05  # 10 mm


def test_points_are_spread_and_no_more_than_there_are():
    places = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [10, 0, 0], [4, 0, 0]])
    assert spread_points(places, np.arange(5), 3).tolist() == [0, 3, 4]
    with pytest.raises(InputError, match="6 control points asked of a region of 5 vertices; ask for fewer"):
        spread_points(places, np.arange(5), 6)
