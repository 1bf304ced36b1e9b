import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from implicit3dmm.data.average_head import near_neck, template_landmarks
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.results import plain_json
from implicit3dmm.fitting import FitConfig, fit
from implicit3dmm.fitting.job import MOST_POINTS
from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import Mesh, read_mesh
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.models import load_model
from implicit3dmm.resources import asset

QUICK = FitConfig(points=2000)
RESOLUTION = 64
ROUGH = 32
"""Resolution of meshes that nothing is measured on."""
CM = 10.0


@pytest.fixture(scope="module")
def model():
    return load_model("imhead-neutral")


@pytest.fixture(scope="module")
def quick_fit(model):
    """`fit` with few points and a coarse mesh."""
    return lambda scan, config=QUICK, **options: fit(
        scan, model, config=config, **({"resolution": RESOLUTION} | options)
    )


@pytest.fixture(scope="module")
def scan():
    """The shipped scan, in centimetres, in a pose of its own."""
    return read_mesh(asset("example_scan.ply"))


@pytest.fixture(scope="module")
def fitted(quick_fit):
    return quick_fit(asset("example_scan.ply"))


@pytest.fixture(scope="module")
def cloud(scan):
    """Points of the scan with normals that point anywhere, as bad scanners give them."""
    rng = np.random.default_rng(3)
    points = sample_surface(scan, 3000, rng=rng).points
    return Mesh(points, None, rng.normal(size=points.shape))


def between_mm(one: Mesh, other: Mesh, mm_per_unit: float) -> float:
    """Mean distance of one mesh's vertices to the other mesh, in millimetres."""
    return float(distance_to_surface(one.vertices, other).distance.mean() * mm_per_unit)


def test_pose_and_unit_of_a_raw_scan_are_found(fitted):
    alignment = fitted.report["alignment"]
    assert (alignment["unit"], alignment["mm_per_unit"]) == ("cm", CM)
    assert alignment["plausible"]
    assert alignment["runner_up"] < 0.9 * alignment["score"]
    assert 0.7 < alignment["size"] < 1.3
    assert fitted.report["warnings"] == []
    assert any("10 mm (cm)" in text for text in fitted.report["assumptions"])


def test_the_mesh_is_watertight_and_lies_on_the_scan_in_its_frame(fitted, scan):
    assert fitted.mesh.is_watertight()
    assert fitted.mesh.volume() > 0
    assert fitted.report["mesh"]["watertight"]
    head = ~near_neck(fitted.similarity.apply(scan.vertices))
    distance_mm = distance_to_surface(scan.vertices[head], fitted.mesh).distance * CM
    assert np.median(distance_mm) < 1.5
    assert fitted.report["error"]["scan_mean_mm"] < 2.0
    assert fitted.report["error"]["left_out"] < 0.1


def test_the_similarity_leads_from_the_scan_to_the_models_frame(fitted, model):
    placed = fitted.mesh.transformed(fitted.similarity)
    low, high = np.array(model.field.bounds)
    assert (placed.vertices >= low).all()
    assert (placed.vertices <= high).all()
    step = (high - low).max() / RESOLUTION
    off = np.abs(model.sdf(placed.vertices, fitted.codes))
    assert np.median(off) < 0.01 * step
    assert np.quantile(off, 0.99) < 0.2 * step
    alignment = fitted.report["alignment"]
    np.testing.assert_array_equal(alignment["to_canonical"], fitted.similarity.matrix())
    assert alignment["size"] == pytest.approx(CM / (200 * fitted.similarity.scale), rel=1e-3)


def test_distances_belong_to_the_vertices_of_the_scan_that_was_used(fitted, scan):
    np.testing.assert_array_equal(fitted.scan.vertices, scan.vertices)
    some = slice(0, None, 97)
    expected = distance_to_surface(scan.vertices[some], fitted.mesh).distance * CM
    np.testing.assert_allclose(fitted.distance_mm[some], expected, atol=1e-9)


def test_the_report_can_be_written_as_it_stands(fitted):
    assert json.loads(json.dumps(fitted.report, allow_nan=False)) == plain_json(fitted.report)
    assert fitted.report["scan"]["points"] == len(fitted.scan.vertices)
    assert fitted.report["fit"]["steps"] == QUICK.steps
    assert 100 <= fitted.report["fit"]["points"] <= QUICK.points  # shoulders are left out
    stages = {"read", "align", "fit", "extract", "measure", "landmarks", "judge"}
    assert set(fitted.report["seconds"]) == stages | {"total", "processor"}


def test_a_head_is_one_and_its_landmarks_lie_on_the_mesh_where_a_face_has_them(fitted):
    assert fitted.is_head
    assert fitted.report["is_head"] is True
    assert distance_to_surface(fitted.landmarks, fitted.mesh).distance.max() < 1e-6
    np.testing.assert_allclose(fitted.report["landmarks"]["points"], fitted.landmarks)
    assert max(fitted.report["landmarks"]["evidence_mm"]) < 6
    placed = fitted.similarity.apply(fitted.landmarks)
    off = np.linalg.norm(placed - template_landmarks(), axis=1)
    assert off.max() < 0.1
    assert placed[:, 2].argmax() == 30  # the tip of the nose
    assert (np.diff(placed[[36, 39, 42, 45], 0]) > 0).all()  # from the subject's right to the left


def test_the_head_is_measured_in_millimetres_with_the_evidence_for_it(fitted):
    measured = fitted.report["measurements"]
    assert 120 < measured["head_breadth"]["mm"] < 165
    assert 160 < measured["head_length"]["mm"] < 215
    assert measured["head_breadth"]["evidence_mm"] < 4
    lips = np.linalg.norm(fitted.landmarks[48] - fitted.landmarks[54]) * CM
    assert measured["mouth_breadth"]["mm"] == pytest.approx(lips, rel=1e-3)


def test_confidence_is_high_where_the_scan_is_and_low_in_its_holes(fitted, scan):
    to_scan = distance_to_surface(fitted.mesh.vertices, scan).distance * CM
    above = ~near_neck(fitted.similarity.apply(fitted.mesh.vertices))
    np.testing.assert_allclose(fitted.evidence_mm[above], to_scan[above], atol=3)
    assert fitted.confidence[above & (to_scan < 1)].min() > 0.85
    assert fitted.confidence[above & (to_scan > 15)].max() < 0.31
    assert (above & (to_scan > 15)).sum() > 5  # the hole at the crown
    evidence = fitted.report["evidence"]
    assert 0.85 < evidence["within@5mm"] < 1
    assert 0.85 < evidence["confidence"] < 1


def test_colours_of_the_scan_are_carried_to_the_mesh(quick_fit, fitted, scan):
    def by_height(points):
        return np.repeat(np.clip(128 + 100 * fitted.similarity.apply(points)[:, 1:2], 0, 255), 3, axis=1)

    colored = replace(scan, colors=by_height(scan.vertices))
    result = quick_fit(colored, replace(QUICK, steps=3), transform=fitted.similarity)
    near = result.evidence_mm < 5
    off = np.abs(result.mesh.colors - by_height(result.mesh.vertices))[near]
    assert off.mean() < 2
    assert result.report["colors"]["source"] == "vertices"
    assert 0.8 < result.report["colors"]["share"] <= 1
    assert (fitted.report["colors"], fitted.mesh.colors) == (None, None)


def test_a_turned_and_rescaled_scan_gives_the_same_head_in_its_own_frame(quick_fit, fitted, scan):
    turn = Rotation.from_rotvec([2.0, -0.7, 1.1]).as_matrix()
    motion = Similarity(0.01, turn, np.array([0.4, 3.0, -1.0]))  # centimetres to metres
    moved = quick_fit(scan.transformed(motion))
    assert moved.report["alignment"]["unit"] == "m"
    back = moved.mesh.transformed(motion.inverse())
    assert between_mm(back, fitted.mesh, CM) < 1.0
    assert back.volume() == pytest.approx(fitted.mesh.volume(), rel=0.03)
    assert moved.similarity.compose(motion).angle_to(fitted.similarity) < 2.0


def test_points_alone_are_enough_and_their_normals_do_not_matter(quick_fit, fitted, cloud):
    config = replace(QUICK, steps=6)
    bare = quick_fit(cloud.vertices, config)
    assert bare.report["scan"]["faces"] == 0
    assert bare.report["scan"]["file"] is None
    assert between_mm(bare.mesh, fitted.mesh, CM) < 2.0
    with_normals = quick_fit(cloud, config)
    assert torch.equal(with_normals.codes["identity"], bare.codes["identity"])
    np.testing.assert_array_equal(with_normals.mesh.vertices, bare.mesh.vertices)


def test_a_known_transform_is_refined_and_not_searched(quick_fit, fitted, scan):
    nudge = Similarity(1.03, Rotation.from_rotvec([0.06, -0.04, 0.05]).as_matrix(), np.array([0.02, -0.01, 0.02]))
    result = quick_fit(scan, transform=nudge.compose(fitted.similarity))
    assert result.report["alignment"]["score"] is None
    assert "pose started from the given transform" in result.report["assumptions"]
    assert between_mm(result.mesh, fitted.mesh, CM) < 1.5


def test_a_few_landmarks_are_enough_for_the_pose(quick_fit, fitted, scan):
    landmarks = np.full((68, 3), np.nan)
    known = [8, 30, 36, 45, 48, 54]  # chin, nose, outer corners of eyes and mouth
    landmarks[known] = fitted.similarity.inverse().apply(template_landmarks()[known])
    result = quick_fit(scan, landmarks=landmarks)
    assert "pose started from the given landmarks" in result.report["assumptions"]
    assert between_mm(result.mesh, fitted.mesh, CM) < 1.5


def test_a_given_unit_is_used(quick_fit, fitted, cloud):
    result = quick_fit(cloud, replace(QUICK, steps=1), transform=fitted.similarity, unit=9.5, resolution=ROUGH)
    assert (result.report["alignment"]["unit"], result.report["alignment"]["mm_per_unit"]) == ("given", 9.5)
    assert result.report["alignment"]["size"] == pytest.approx(0.95 * fitted.report["alignment"]["size"], rel=0.05)


def test_a_scan_without_a_credible_unit_gets_the_size_of_an_average_adult(quick_fit, fitted, scan):
    to_inches = Similarity(1 / 2.54, np.eye(3), np.zeros(3))
    start = fitted.similarity.compose(to_inches.inverse())
    result = quick_fit(scan.transformed(to_inches), replace(QUICK, steps=1), transform=start, resolution=ROUGH)
    assert result.report["alignment"]["unit"] == "none"
    assert any("average adult was assumed" in text for text in result.report["assumptions"])
    assert result.report["alignment"]["size"] == 1
    assert result.report["alignment"]["mm_per_unit"] == pytest.approx(200 * result.similarity.scale, rel=1e-3)
    extent = np.ptp(scan.vertices, axis=0) / 2.54 * 200 * result.similarity.scale
    np.testing.assert_allclose(result.report["scan"]["extent_mm"], extent, rtol=1e-3)


def test_equal_seeds_give_equal_bits(quick_fit, fitted, scan):
    options = {"transform": fitted.similarity, "resolution": ROUGH}
    one, same, other = (quick_fit(scan, replace(QUICK, steps=2, seed=seed), **options) for seed in (1, 1, 2))
    assert torch.equal(one.codes["identity"], same.codes["identity"])
    assert np.array_equal(one.mesh.vertices, same.mesh.vertices)
    assert not torch.equal(one.codes["identity"], other.codes["identity"])


def test_a_scan_with_too_many_points_is_thinned_and_the_report_says_so(quick_fit, fitted, scan):
    count = MOST_POINTS + 100_000
    points = sample_surface(scan, count, rng=np.random.default_rng(0)).points
    result = quick_fit(points, replace(QUICK, steps=1), transform=fitted.similarity, resolution=ROUGH)
    assert result.report["scan"]["points"] == count
    assert result.report["scan"]["used_points"] == len(result.scan.vertices) == MOST_POINTS
    assert f"the scan's {count} points were thinned to {MOST_POINTS}" in result.report["assumptions"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": Similarity.identity(), "landmarks": template_landmarks()}, "give one of them"),
        ({"unit": "furlong"}, "the unit is 'furlong'"),
        ({"unit": -1.0}, "the unit is -1"),
        ({"config": replace(QUICK, steps=0)}, "steps"),
        ({"landmarks": np.full((68, 3), np.nan)}, "at least 3"),
        ({"landmarks": template_landmarks()[:67]}, "67 landmarks"),
    ],
)
def test_wrong_options_are_refused(quick_fit, cloud, options, message):
    with pytest.raises(InputError, match=message):
        quick_fit(cloud, **options)


def test_a_resolution_that_cannot_be_is_refused_before_any_work(model, cloud):
    def never(steps):
        raise AssertionError("the solver was reached")

    with pytest.raises(InputError, match="resolution is 0"):
        fit(cloud, model, resolution=0, progress=never)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((500, 3)), "in one place"),
        (np.outer(np.arange(500.0), [1, 2, 3]), "on one line"),
        (np.random.default_rng(0).normal(size=(500, 3)) * [1, 1, 0], "in one plane"),
        (np.random.default_rng(0).normal(size=(99, 3)), "99 points"),
        (np.random.default_rng(0).normal(size=(500, 2)), "shape"),
        (np.full((500, 3), np.nan), "NaN"),
        (np.full((500, 3), "a"), "type"),
    ],
)
def test_arrays_that_are_no_scan_are_refused(quick_fit, points, message):
    with pytest.raises(InputError, match=message):
        quick_fit(points)


def test_a_mesh_that_was_made_by_hand_is_checked_like_a_file(quick_fit, scan):
    broken = scan.vertices.copy()
    broken[7] = np.inf
    with pytest.raises(InputError, match="NaN or infinite"):
        quick_fit(Mesh(broken, scan.faces))
