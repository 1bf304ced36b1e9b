import numpy as np

from implicit3dmm.data.average_head import alignment_target, near_neck, on_head
from implicit3dmm.heads.template import FACE_REGIONS


def test_the_target_is_the_same_at_every_call():
    assert alignment_target() is alignment_target()


def test_the_target_knows_its_face_neck_and_hair(template):
    target = alignment_target()
    assert not (target.face & target.neck).any()
    assert not (target.hair & target.neck).any()
    assert 0.2 < target.hair.mean() < 0.7
    assert target.points[target.hair & target.face, 1].min() > 0.3
    np.testing.assert_array_equal(target.bare_weights == 0, target.hair)


def test_points_far_from_the_head_are_not_explained(template):
    points = template.vertices
    assert not on_head(points + np.array([0, 0, 3])).any()
    above = ~near_neck(points)
    assert on_head(points)[above].all()


def test_of_the_neck_a_third_is_explained(template):
    neck = near_neck(template.vertices)
    share = on_head(template.vertices)[neck].mean()
    assert 0.3 < share < 0.37


def test_under_hair_the_skull_is_not_explained_and_the_face_is(template):
    kept = on_head(template.vertices, hair=True)
    assert not kept[template.in_regions("cranium")].any()
    low = template.in_regions(*FACE_REGIONS) & (template.vertices[:, 1] < 0.3)
    assert kept[low].all()
    assert kept[template.in_regions("ear_L", "ear_R")].all()
