from dataclasses import replace

import numpy as np
import pytest

from implicit3dmm.heads.template import ANCHORS, REGIONS
from implicit3dmm.heads.transfer import mirrored_regions, rigid_vertices, transfer_anchors, transfer_regions


def shuffled(template, seed: int):
    """The same head with its vertices in another order: positions, mirror map, and the new order."""
    order = np.random.default_rng(seed).permutation(len(template.vertices))
    number = np.argsort(order)
    return template.vertices[order], number[template.mirror[order]], order


def test_regions_swap_sides():
    swapped = mirrored_regions()
    np.testing.assert_array_equal(swapped[swapped], np.arange(len(REGIONS)))
    assert [REGIONS[i] for i in swapped[:4]] == ["nose", "mouth", "eye_R", "eye_L"]


def test_a_head_laid_over_itself_keeps_its_annotations(template):
    vertices, mirror, order = shuffled(template, 0)
    np.testing.assert_array_equal(transfer_regions(template, vertices, mirror), template.regions[order])
    np.testing.assert_array_equal(order[transfer_anchors(template, vertices, mirror)], template.anchors)


def test_what_is_transferred_is_symmetric_on_an_uneven_head(template):
    vertices, mirror, _ = shuffled(template, 1)
    uneven = vertices + 0.004 * np.random.default_rng(2).normal(size=vertices.shape)
    regions = transfer_regions(template, uneven, mirror)
    paired = mirror != np.arange(len(mirror))
    np.testing.assert_array_equal(mirrored_regions()[regions[mirror]][paired], regions[paired])
    anchors = transfer_anchors(template, uneven, mirror)
    np.testing.assert_array_equal(mirror[anchors[:32:2]], anchors[1:32:2])
    np.testing.assert_array_equal(mirror[anchors[32:]], anchors[32:])
    assert len(set(anchors.tolist())) == len(ANCHORS)


def test_the_rule_for_rigid_vertices_is_that_of_the_shipped_head(template):
    rigid = rigid_vertices(template.vertices, template.regions, template.landmarks)
    np.testing.assert_array_equal(rigid, np.sort(template.rigid))


@pytest.mark.parametrize("region", ["mouth", "chin", "neck", "ear_L"])
def test_no_vertex_that_moves_is_rigid(template, region):
    regions = np.full_like(template.regions, REGIONS.index(region))
    assert rigid_vertices(template.vertices, replace(template, regions=regions).regions, template.landmarks).size == 0
