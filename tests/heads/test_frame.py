import numpy as np
import pytest

from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.frame import UNIT_MM, canonical_similarity, canonical_to_mm


def test_a_known_similarity_is_recovered(template):
    """A head of another size in another pose comes back, whatever its mouth and neck do."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    away = Similarity(173.0, turn * np.sign(np.linalg.det(turn)), np.array([40.0, -900.0, 12.0]))
    subject = away.apply(template.vertices)
    moving = np.setdiff1d(np.arange(len(subject)), template.rigid)
    subject[moving] += rng.normal(0, 20, (len(moving), 3))
    found = canonical_similarity(subject, template.rigid, template.reference)
    assert found.scale == pytest.approx(1 / 173, rel=1e-5)
    np.testing.assert_allclose(found.compose(away).matrix(), np.eye(4), atol=1e-5)


def test_the_average_adult_is_in_the_frame_already(template):
    mm = template.vertices * UNIT_MM
    found = canonical_similarity(mm, template.rigid, template.reference)
    np.testing.assert_allclose(found.matrix(), np.diag([1 / UNIT_MM] * 3 + [1]), atol=1e-5)


def test_distances_lead_back_to_the_subjects_own_millimetres():
    child = Similarity(1 / 160, np.eye(3), np.zeros(3))
    assert canonical_to_mm(0.5, child) == pytest.approx(80)
    points = np.random.default_rng(1).normal(0, 50, (2, 4, 3))
    distance = np.linalg.norm(points[0] - points[1], axis=1)
    canonical = np.linalg.norm(child.apply(points[0]) - child.apply(points[1]), axis=1)
    np.testing.assert_allclose(canonical_to_mm(canonical, child), distance)
