from collections import Counter

import numpy as np
import pytest

from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.subdivision import triangulate
from implicit3dmm.heads.template import (
    ANCHOR_GROUPS,
    ANCHOR_PAIRS,
    ANCHORS,
    REGIONS,
    anchor_group,
    anchor_mirror,
    average_anchors,
)

LANDMARK_MIRROR = np.array(
    [
        *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
        45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
        *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
    ]
)  # fmt: skip
"""The iBUG landmark across the midline."""


def test_it_is_one_closed_surface(template):
    assert template.vertices.shape == (14642, 3)
    assert template.triangles.shape == (29280, 3)
    assert template.mesh.is_watertight()
    assert template.mesh.euler_number() == 2
    assert len(np.unique(template.mesh.face_components())) == 1
    assert template.mesh.volume() > 0
    np.testing.assert_array_equal(template.triangles, triangulate(template.quads))


def test_it_lies_in_the_unit_ball_around_the_origin(template):
    radius = np.linalg.norm(template.vertices, axis=1)
    assert radius.max() < 0.93
    low, high = template.mesh.bounds()
    assert (low < -0.3).all()
    assert (high > 0.3).all()


def test_the_frame_has_x_to_the_left_y_up_z_forward(template):
    left_eye, right_eye = (template.vertices[template.in_regions(f"eye_{side}")].mean(0) for side in "LR")
    assert left_eye[0] > 0.1 > -0.1 > right_eye[0]
    named = dict(zip(ANCHORS, template.vertices[template.anchors], strict=True))
    assert named["crown_L"][1] > named["nose_tip"][1] > named["chin"][1] > named["neck_front"][1]
    assert named["nose_tip"][2] == pytest.approx(template.vertices[:, 2].max(), abs=0.01)


def test_the_mirror_map_is_an_exact_involution(template):
    mirror = template.mirror
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    assert (mirror == np.arange(len(mirror))).sum() > 100
    np.testing.assert_allclose(template.vertices[mirror], template.vertices * (-1, 1, 1), atol=1e-6)


def test_the_mirror_map_turns_faces_and_regions_over(template):
    mirrored = {frozenset(quad) for quad in template.mirror[template.quads].tolist()}
    assert mirrored == {frozenset(quad) for quad in template.quads.tolist()}
    across = [name.replace("_L", "_?").replace("_R", "_L").replace("_?", "_R") for name in REGIONS]
    swapped = np.array([REGIONS.index(name) for name in across])
    np.testing.assert_array_equal(swapped[template.regions][template.mirror], template.regions)


def test_every_region_is_there(template):
    assert (np.bincount(template.regions, minlength=len(REGIONS)) > 300).all()
    for name in REGIONS:
        assert template.in_regions(name).sum() == (template.regions == REGIONS.index(name)).sum()
    assert template.in_regions(*REGIONS).all()


def test_even_anchors_are_on_the_right_and_odd_ones_across(template):
    places = template.vertices[template.anchors]
    pairs, midline = places[:32], places[32:]
    assert (pairs[::2, 0] < 0).all()
    assert (pairs[1::2, 0] > 0).all()
    np.testing.assert_allclose(midline[:, 0], 0, atol=1e-6)
    np.testing.assert_array_equal(template.mirror[template.anchors], template.anchors[anchor_mirror()])
    assert [name[-2:] for name in ANCHORS[:32]] == ["_R", "_L"] * 16


def test_the_written_anchors_are_the_templates(template):
    np.testing.assert_allclose(average_anchors(), template.vertices[template.anchors], atol=6e-4)
    np.testing.assert_array_equal(average_anchors()[anchor_mirror()] * (-1, 1, 1), average_anchors())


def test_the_groups_partition_the_anchors():
    members = Counter(i for name in ANCHOR_GROUPS for i in anchor_group(name))
    assert members == Counter(range(39))
    for name in ANCHOR_GROUPS:
        sides = [set(anchor_group(name + side)) for side in ("_L", "_R")]
        assert {anchor_mirror()[i] for i in sides[0]} == sides[1]
        assert sides[0] | sides[1] <= set(anchor_group(name))
        assert all(ANCHORS[i].endswith("_L") for i in sides[0])
    assert anchor_group("ears") == (2 * ANCHOR_PAIRS.index("ear"), 2 * ANCHOR_PAIRS.index("ear") + 1)
    for name in ANCHOR_GROUPS:
        group = anchor_group(name)
        assert set(anchor_mirror()[list(group)]) == set(group), "a group is symmetric"


def test_landmarks_pair_up_across_the_midline(template):
    np.testing.assert_array_equal(LANDMARK_MIRROR[LANDMARK_MIRROR], np.arange(68))
    np.testing.assert_array_equal(template.mirror[template.landmarks], template.landmarks[LANDMARK_MIRROR])
    assert template.vertices[template.landmarks[:8], 0].max() < 0, "iBUG starts on the subject's right"
    assert len(set(template.landmarks.tolist())) == 68


def test_landmarks_and_anchors_lie_in_their_regions(template):
    names = np.array(REGIONS)[template.regions]
    assert set(names[template.landmarks[36:42]]) == {"eye_R"}
    assert set(names[template.landmarks[42:48]]) == {"eye_L"}
    assert set(names[template.landmarks[48:]]) == {"mouth"}
    assert set(names[template.landmarks[27:36]]) == {"nose"}
    anchor_regions = dict(zip(ANCHORS, names[template.anchors], strict=True))
    assert anchor_regions["nose_tip"] == "nose"
    assert anchor_regions["ear_L"] == "ear_L"
    assert anchor_regions["chin"] == "chin"
    assert anchor_regions["neck_front"] == "neck"


def test_the_rigid_vertices_lie_on_the_reference(template):
    np.testing.assert_allclose(template.vertices[template.rigid], template.reference, atol=1e-5)
    assert len(np.unique(template.rigid)) == len(template.rigid)
    assert not template.in_regions("mouth", "chin", "neck", "ear_L", "ear_R")[template.rigid].any()


def test_the_skin_is_the_head_without_its_cap(template):
    assert isinstance(template.skin, Mesh)
    assert len(template.skin.faces) == len(template.triangles) - template.cap.sum()
    assert not template.skin.is_watertight()
    assert np.unique(template.regions[template.triangles[template.cap]]).tolist() == [REGIONS.index("neck")]
    closed = Mesh(template.vertices, template.triangles[template.cap])
    assert closed.euler_number() == 1, "a disc"
