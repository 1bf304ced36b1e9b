import numpy as np
import pytest
import trimesh

from implicit3dmm.fitting.evidence import COLORED_MM, EXPLAINED_MM, carried_colors, find_evidence
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.textures import Texture

CM = 10.0
RED, BLUE = (200, 20, 10), (0, 10, 220)


@pytest.fixture(scope="module")
def ball():
    """The fit: a ball of 10 cm, in centimetres."""
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=10.0)
    return Mesh(mesh.vertices, mesh.faces)


@pytest.fixture(scope="module")
def half():
    """The scan: the front half of the ball by another triangulation, red to the left and blue to the right."""
    mesh = trimesh.creation.uv_sphere(radius=10.0, count=(120, 120))
    colors = np.where(mesh.vertices[:, :1] < 0, RED, BLUE).astype(np.uint8)
    whole = Mesh(mesh.vertices, mesh.faces, colors=colors)
    return whole.with_faces((whole.vertices[whole.faces][..., 2] > 0).all(1))


def to_half(ball):
    """Distance of the ball's vertices to the hemisphere, mm: 0 in front, and to its rim behind."""
    z = ball.vertices[:, 2]
    flat = np.linalg.norm(ball.vertices[:, :2], axis=1)
    return np.where(z >= 0, 0, np.hypot(z, 10 - flat)) * CM


@pytest.mark.parametrize("kind", ["mesh", "points"])
def test_the_evidence_is_the_nearest_place_of_the_scan_in_millimetres(ball, half, kind):
    scan = half if kind == "mesh" else Mesh(half.vertices)
    evidence = find_evidence(ball, scan, np.zeros(len(scan.vertices)), mm_per_unit=CM)
    np.testing.assert_allclose(evidence.distance_mm, to_half(ball), atol=1.5 if kind == "mesh" else 4.5)
    places = np.einsum("vk,vkx->vx", evidence.weights, scan.vertices[evidence.corners])
    np.testing.assert_allclose(np.linalg.norm(places - ball.vertices, axis=1) * CM, evidence.distance_mm, atol=3)


def test_the_confidence_is_one_at_the_evidence_and_falls_with_the_distance(ball, half):
    evidence = find_evidence(ball, half, np.zeros(len(half.vertices)), mm_per_unit=CM)
    order = np.argsort(evidence.distance_mm)
    assert (np.diff(evidence.confidence[order]) <= 0).all()
    assert evidence.confidence[ball.vertices[:, 2] > 1].min() > 0.99
    assert evidence.confidence.min() < 0.02
    at_ten = np.abs(evidence.distance_mm - 10).argmin()
    assert evidence.confidence[at_ten] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("kind", ["mesh", "points"])
def test_what_the_fit_did_not_explain_is_no_evidence(ball, half, kind):
    scan = half if kind == "mesh" else Mesh(half.vertices)
    off = np.where(scan.vertices[:, 0] > 0, 2 * EXPLAINED_MM, 0)
    evidence = find_evidence(ball, scan, off, mm_per_unit=CM)
    assert evidence.distance_mm[ball.vertices[:, 0] > 5].min() > 40
    nothing = find_evidence(ball, scan, np.full(len(scan.vertices), 99.0), mm_per_unit=CM)
    assert np.isinf(nothing.distance_mm).all()
    assert (nothing.confidence == 0).all()
    assert carried_colors(nothing, half) == (None, None)


@pytest.mark.parametrize("kind", ["mesh", "points"])
def test_colours_are_carried_to_what_has_evidence_and_the_rest_is_plain(ball, half, kind):
    scan = half if kind == "mesh" else Mesh(half.vertices, colors=half.colors)
    evidence = find_evidence(ball, scan, np.zeros(len(scan.vertices)), mm_per_unit=CM)
    colors, about = carried_colors(evidence, scan)
    x, far = ball.vertices[:, 0], evidence.distance_mm > COLORED_MM
    assert (colors[~far & (x < -1)] == RED).all()
    assert (colors[~far & (x > 1)] == BLUE).all()
    assert far.any()
    assert (colors[far] == about["elsewhere"]).all()
    assert about["source"] == "vertices"
    assert about["share"] == pytest.approx(1 - far.mean())


def test_a_texture_is_read_between_the_vertices(ball):
    """Two triangles with a picture of 64 columns before a ball: no vertex colour could show them."""
    stripes = np.zeros((4, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    corners = np.array([[-9.0, -9, 10], [9, -9, 10], [9, 9, 10], [-9, 9, 10]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    uv = (corners[:, :2] + 9) / 18
    sheet = Mesh(corners, faces, colors=np.zeros((4, 3)), texture=Texture((stripes,), np.zeros(2, int), uv[faces]))
    evidence = find_evidence(ball, sheet, np.zeros(4), mm_per_unit=CM)
    colors, about = carried_colors(evidence, sheet)
    assert about["source"] == "texture"
    near = evidence.distance_mm <= COLORED_MM
    column = (ball.vertices[near, 0] + 9) / 18 * 64 - 0.5
    nearest = np.round(column).astype(int)
    sure = np.abs(column - nearest) < 0.1
    expected = np.where(nearest[sure] % 2 == 0, 255, 0)
    assert sure.sum() > 10
    assert np.abs(colors[near][sure, 0].astype(int) - expected).max() < 30


def test_a_scan_without_colours_gives_none(ball, half):
    bare = Mesh(half.vertices, half.faces)
    evidence = find_evidence(ball, bare, np.zeros(len(bare.vertices)), mm_per_unit=CM)
    assert carried_colors(evidence, bare) == (None, None)


def test_faces_without_area_and_single_points_do_no_harm(ball):
    flat = Mesh(np.array([[0, 0, 10.0], [0, 0, 10.0], [0, 0, 10.0]]), np.array([[0, 1, 2]]), colors=np.full((3, 3), 7))
    for scan in (flat, Mesh(flat.vertices[:1], colors=flat.colors[:1])):
        evidence = find_evidence(ball, scan, np.zeros(len(scan.vertices)), mm_per_unit=CM)
        assert np.isfinite(evidence.weights).all()
        np.testing.assert_allclose(evidence.weights.sum(1), 1)
        assert evidence.distance_mm.min() < 5
        colors, _ = carried_colors(evidence, scan)
        assert (colors == 7).all()
