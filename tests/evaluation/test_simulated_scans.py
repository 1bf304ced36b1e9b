import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from implicit3dmm.evaluation.simulated_scans import SCANS, ScannedHead, generated_head, real_head
from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import Similarity

POINTS = 4000


@pytest.fixture(scope="module")
def head(tiny_corpus) -> ScannedHead:
    each = tiny_corpus.head(2)
    return generated_head(each.vertices, tiny_corpus.source.template, each.similarity, np.random.default_rng(0))


def scanned(head, kind):
    return SCANS[kind](head, POINTS, np.random.default_rng(3))


def away(head, points):
    return distance_to_surface(points, head.surface).distance


def outside(head, points):
    """Heights over the surface, mm, negative inside."""
    nearest = distance_to_surface(points, head.surface)
    return ((points - nearest.point) * head.surface.face_normals()[nearest.face]).sum(axis=1)


@pytest.mark.parametrize("kind", SCANS)
def test_equal_seeds_give_equal_scans(head, kind):
    np.testing.assert_array_equal(scanned(head, kind), scanned(head, kind))


@pytest.mark.parametrize("kind", ["whole", "front", "view"])
def test_clean_scans_lie_on_the_surface(head, kind):
    assert away(head, scanned(head, kind)).max() < 1e-6


def test_the_cut_of_the_neck_is_not_scanned(head, tiny_corpus):
    template = tiny_corpus.source.template
    assert len(head.surface.faces) == len(template.triangles) - template.cap.sum()


def test_a_front_half_ends_at_the_ears(head):
    points = head.to_canonical.apply(scanned(head, "front"))
    assert points[:, 2].min() > 0.05
    assert 0.3 < len(points) / POINTS < 0.7


def test_noise_has_a_millimetre_in_each_coordinate(head):
    moved = scanned(head, "noise") - scanned(head, "whole")
    np.testing.assert_allclose(moved.std(axis=0), 1.0, rtol=0.05)


def test_a_bust_is_the_head_and_something_below_it(head):
    points = scanned(head, "shoulders")
    face = head.to_canonical.apply(points)[:, 1] > -0.2
    assert np.quantile(away(head, points[face]), 0.95) < 1.0
    assert np.ptp(points[:, 0]) > 1.3 * np.ptp(head.surface.vertices[:, 0])


def test_a_camera_sees_no_back_of_the_head(head):
    points = head.to_canonical.apply(scanned(head, "view"))
    assert 0.2 < len(points) / POINTS < 0.6
    assert points[points[:, 1] > 0, 2].min() > -0.35


def test_hair_covers_the_skull_and_not_the_face(head):
    points = scanned(head, "hair")
    places = head.to_canonical.apply(points)
    assert outside(head, points[(places[:, 2] > 0.4) & (places[:, 1] < 0.2)]).max() < 1e-6
    top = outside(head, points[places[:, 1] > 0.5])
    assert 3 < np.median(top) < 45
    assert top.min() > -1e-6


def test_a_real_scan_is_its_own_bust_and_the_head_alone_is_cut_out_of_it(head, tiny_corpus):
    turn = Rotation.from_rotvec([0.3, 2.0, -0.4]).as_matrix()
    given = head.bust.transformed(Similarity(0.02, turn, np.array([5.0, 6.0, 7.0])))
    to_canonical = head.to_canonical.compose(Similarity(0.02, turn, np.array([5.0, 6.0, 7.0])).inverse())
    real = real_head(given, to_canonical, tiny_corpus.source.template.mesh)
    assert real.to_canonical.scale == pytest.approx(1 / 200)
    assert len(real.bust.vertices) == len(head.bust.vertices)
    cut = real.to_canonical.apply(real.surface.vertices)
    everything = real.to_canonical.apply(real.bust.vertices)
    np.testing.assert_allclose(everything, head.to_canonical.apply(head.bust.vertices), atol=1e-9)
    assert cut[:, 1].max() == pytest.approx(everything[:, 1].max())
    assert np.ptp(cut[:, 0]) < np.ptp(everything[:, 0])


def test_a_bust_is_made_only_when_it_is_asked_for():
    made = []
    head = ScannedHead(Mesh(np.zeros((3, 3))), lambda: made.append(1) or Mesh(np.ones((3, 3))), Similarity.identity())
    assert made == []
    assert head.bust is head.bust
    assert made == [1]
