from functools import cache

import numpy as np
import pytest
import trimesh
from scipy.spatial.distance import cdist

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.metrics import (
    METRICS,
    compare_surfaces,
    distance_metrics,
    nearest_corners,
    scan_metrics,
    surface_metrics,
)
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.geometry.similarity import Similarity

POLYHEDRON = 5e-4
"""How far a facetted unit sphere of `sphere` lies inside the true one, at most."""


@cache
def unit_sphere():
    ball = trimesh.creation.icosphere(subdivisions=5)
    return Mesh(ball.vertices, ball.faces)


def sphere(radius=1.0, centre=(0.0, 0.0, 0.0)):
    return Mesh(unit_sphere().vertices * radius + np.array(centre), unit_sphere().faces)


def merged(*meshes):
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


def square(height, *, cells=8):
    """The unit square at z = height."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, cells + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()[:, None]
    halves = np.array([[0, cells + 1, cells + 2], [0, cells + 2, 1]])
    faces = np.concatenate([corner + half for half in halves])
    return Mesh(np.column_stack([grid, np.full(len(grid), height)]), faces)


def rng(seed=0):
    return np.random.default_rng(seed)


def measure(prediction, truth, *, seed=0, samples=5_000, mm_per_unit=1.0, **more):
    return surface_metrics(prediction, truth, mm_per_unit=mm_per_unit, rng=rng(seed), samples=samples, **more)


def test_concentric_spheres_are_their_gap_apart_in_every_figure():
    figures = measure(sphere(80.0), sphere(78.5))
    for name in (
        "surface_mean",
        *(f"{d}_{k}" for d in ("accuracy", "completeness") for k in ("mean", "median", "p95")),
    ):
        assert figures[f"{name}_mm"] == pytest.approx(1.5, abs=80 * POLYHEDRON), name
    assert figures["f_score@1mm"] == 0.0
    assert figures["f_score@2mm"] == figures["f_score@5mm"] == 1.0
    assert figures["normal_consistency"] == pytest.approx(1.0, abs=2e-3)
    assert figures["normal_consistency_signed"] == figures["normal_consistency"]


def test_shifted_spheres_give_the_integrals_over_the_sphere():
    radius, shift = 50.0, 3.0
    figures = measure(sphere(radius), sphere(radius, (0, 0, shift)), samples=20_000)
    # By Archimedes the height is uniform on a sphere.
    cosine = np.linspace(-1, 1, 200_001)
    reach = np.sqrt(radius**2 + shift**2 - 2 * radius * shift * cosine)
    distance = np.abs(reach - radius)
    for direction in ("accuracy", "completeness"):
        assert figures[f"{direction}_mean_mm"] == pytest.approx(distance.mean(), rel=0.01)
        assert figures[f"{direction}_median_mm"] == pytest.approx(np.median(distance), rel=0.02)
        assert figures[f"{direction}_p95_mm"] == pytest.approx(np.percentile(distance, 95), rel=0.01)
    for threshold in (1, 2, 5):
        assert figures[f"f_score@{threshold}mm"] == pytest.approx((distance <= threshold).mean(), abs=0.01)
    turned = ((radius - shift * cosine) / reach).mean()
    assert figures["normal_consistency"] == pytest.approx(turned, abs=2e-3)


def test_a_mesh_against_itself_has_no_error_but_the_floor_in_chamfer():
    figures = measure(sphere(), sphere())
    for name in METRICS:
        if name.startswith(("f_score", "normal")):
            assert figures[name] == pytest.approx(1.0, abs=1e-6)
        elif not name.startswith("chamfer"):
            assert figures[name] == pytest.approx(0.0, abs=1e-7)
    assert figures["chamfer_l1_mm"] == pytest.approx(figures["chamfer_l1_floor_mm"], rel=0.02)


def test_chamfer_is_what_brute_force_finds_on_the_same_samples():
    prediction, truth = sphere(1.1), sphere(1.0, (0.2, 0, 0))
    figures = measure(prediction, truth, samples=400, mm_per_unit=10.0)
    generator = rng()
    first, second, predicted = (
        10.0 * sample_surface(mesh, 400, rng=generator).points for mesh in (truth, truth, prediction)
    )
    across = cdist(predicted, first)
    accuracy, completeness = across.min(axis=1), across.min(axis=0)
    assert figures["chamfer_l1_mm"] == pytest.approx(0.5 * (accuracy.mean() + completeness.mean()))
    assert figures["chamfer_sq_sum_mm2"] == pytest.approx((accuracy**2).mean() + (completeness**2).mean())
    twice = cdist(first, second)
    floor = 0.5 * (twice.min(axis=0).mean() + twice.min(axis=1).mean())
    assert figures["chamfer_l1_floor_mm"] == pytest.approx(floor)


def test_the_floor_falls_with_the_square_root_of_the_samples():
    floors = {n: measure(sphere(), sphere(), samples=n)["chamfer_l1_floor_mm"] for n in (1_000, 4_000, 16_000)}
    for count, floor in floors.items():
        # Independent draws would lie half the square root of the area of a sample apart; stratified ones
        # spread more evenly.
        assert 0.88 < floor / (0.5 * np.sqrt(4 * np.pi / count)) < 1.02
    assert floors[1_000] > 1.8 * floors[4_000] > 1.8 * 1.8 * floors[16_000]


def test_swapping_the_meshes_swaps_accuracy_and_completeness():
    small, large = sphere(70.0), merged(sphere(72.0), sphere(10.0, (100, 0, 0)))
    one, other = measure(small, large), measure(large, small)
    assert one["completeness_mean_mm"] > 1.2 * one["accuracy_mean_mm"]
    for a, b in (("accuracy", "completeness"), ("completeness", "accuracy")):
        assert one[f"{a}_mean_mm"] == pytest.approx(other[f"{b}_mean_mm"], rel=0.01)
    for name in ("surface_mean_mm", "chamfer_l1_mm", "f_score@2mm", "f_score@5mm", "normal_consistency"):
        assert one[name] == pytest.approx(other[name], rel=0.02), name


def test_only_millimetres_matter():
    prediction, truth = sphere(1.03, (0.01, 0, 0)), sphere()
    here = measure(prediction, truth, mm_per_unit=90.0)
    shrunk = Similarity(0.01, np.eye(3), np.array([5.0, -3.0, 1.0]))
    there = measure(prediction.transformed(shrunk), truth.transformed(shrunk), mm_per_unit=9000.0)
    assert here == pytest.approx(there, rel=1e-6)


def test_distances_grow_with_the_unit_and_squares_with_its_square():
    one, ten = (measure(sphere(1.03), sphere(), mm_per_unit=unit) for unit in (1.0, 10.0))
    for name in METRICS:
        if not name.startswith("f_score"):
            factor = 10.0 if name.endswith("_mm") else 100.0 if name.endswith("_mm2") else 1.0
            assert ten[name] == pytest.approx(factor * one[name], rel=1e-6), name


def test_equal_seeds_give_equal_figures_and_other_seeds_others():
    meshes = sphere(1.1), sphere()
    assert measure(*meshes, seed=1) == measure(*meshes, seed=1)
    assert measure(*meshes, seed=1) != measure(*meshes, seed=2)


def test_every_prediction_meets_the_same_floor():
    floors = {measure(sphere(radius), sphere())["chamfer_l1_floor_mm"] for radius in (0.9, 1.0, 1.4)}
    assert len(floors) == 1


def test_f_score_is_the_harmonic_mean_of_both_shares():
    near, far = square(0.0), square(1.0)
    figures = measure(merged(near, far), near, mm_per_unit=10.0)
    assert figures["f_score@2mm"] == pytest.approx(2 * 0.5 * 1.0 / 1.5, abs=1e-3)
    assert measure(square(0.1), near, mm_per_unit=100.0)["f_score@5mm"] == 0.0


def test_inside_out_is_seen_by_the_signed_consistency_alone():
    ball = sphere()
    reversed_ball = Mesh(ball.vertices, ball.faces[:, ::-1])
    upright, inverted = measure(ball, ball), measure(reversed_ball, ball)
    assert inverted["normal_consistency"] == pytest.approx(1.0, abs=1e-6)
    assert inverted["normal_consistency_signed"] == pytest.approx(-1.0, abs=1e-6)
    assert upright["normal_consistency_signed"] == pytest.approx(1.0, abs=1e-6)


def test_regions_are_measured_one_by_one():
    places = ((0, 0, 0), (500, 0, 0))
    truth = merged(*(sphere(50.0, place) for place in places))
    prediction = merged(sphere(51.0, places[0]), sphere(53.0, places[1]))
    first = np.arange(len(truth.vertices)) < len(truth.vertices) // 2
    comparison = compare_surfaces(prediction, truth, mm_per_unit=1.0, rng=rng(), samples=5_000)
    whole, one, other = (comparison.metrics(mask) for mask in (None, first, ~first))
    for name in ("surface_mean_mm", "accuracy_p95_mm", "completeness_median_mm"):
        assert one[name] == pytest.approx(1.0, abs=50 * POLYHEDRON)
        assert other[name] == pytest.approx(3.0, abs=50 * POLYHEDRON)
    assert whole["completeness_mean_mm"] == pytest.approx(2.0, abs=0.03)
    assert (one["f_score@2mm"], other["f_score@2mm"]) == (1.0, 0.0)
    for name in ("prediction_samples", "truth_samples"):
        assert one[name] + other[name] == whole[name] == 5_000


def test_a_region_of_all_vertices_is_the_whole_surface():
    prediction, truth = sphere(1.1), sphere()
    everything = np.ones(len(truth.vertices), dtype=bool)
    assert measure(prediction, truth, region=everything) == measure(prediction, truth)


def test_a_region_that_the_prediction_lacks_has_completeness_alone():
    truth = merged(sphere(50.0), sphere(50.0, (500, 0, 0)))
    second = np.arange(len(truth.vertices)) >= len(truth.vertices) // 2
    figures = measure(sphere(50.0), truth, region=second)
    assert figures["completeness_mean_mm"] == pytest.approx(452.5, rel=0.02)
    assert np.isnan([figures[name] for name in ("accuracy_mean_mm", "accuracy_p95_mm", "surface_mean_mm")]).all()
    assert figures["f_score@5mm"] == 0.0
    assert figures["prediction_samples"] == 0


def test_nearest_corner_is_the_nearest_of_the_face():
    mesh = sphere()
    samples = sample_surface(mesh, 1000, rng=rng())
    corners = nearest_corners(mesh, samples.faces, samples.points)
    for corner, face, point in zip(corners, samples.faces, samples.points, strict=True):
        options = np.linalg.norm(mesh.vertices[mesh.faces[face]] - point, axis=1)
        assert corner == mesh.faces[face][options.argmin()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mm_per_unit": 0.0}, "mm_per_unit is 0.0"),
        ({"mm_per_unit": float("nan")}, "mm_per_unit is nan"),
        ({"samples": 0}, "0 samples asked for"),
        ({"region": np.ones(7, dtype=bool)}, r"the region has shape \(7,\)"),
        ({"region": np.zeros(10242, dtype=bool)}, "no sample of the true surface lies in the region"),
        ({"prediction": Mesh(np.eye(3))}, "no faces"),
        ({"truth": Mesh(np.eye(3))}, "no faces"),
        ({"prediction": Mesh(np.full((3, 3), np.nan), np.array([[0, 1, 2]]))}, "the predicted mesh has NaN"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    arguments = {"prediction": sphere(1.1), "truth": sphere(), "samples": 100} | change
    with pytest.raises(InputError, match=message) as refused:
        measure(**arguments)
    assert "\n" not in str(refused.value)


def test_scan_points_at_a_known_height_are_that_far_from_the_fit():
    points = np.concatenate([sphere(1.0 + gap).vertices for gap in (0.005, 0.015, 0.045, 0.2)])
    figures = scan_metrics(points, sphere(), mm_per_unit=100.0)
    assert figures["scan_mean_mm"] == pytest.approx((0.5 + 1.5 + 4.5 + 20) / 4, abs=100 * POLYHEDRON)
    assert figures["scan_median_mm"] == pytest.approx(3.0, abs=100 * POLYHEDRON)
    assert figures["scan_p95_mm"] == pytest.approx(20.0, abs=100 * POLYHEDRON)
    assert [figures[f"scan_within@{t}mm"] for t in (1, 2, 5)] == [0.25, 0.5, 0.75]
    assert figures["scan_points"] == len(points)


def test_a_mask_leaves_points_of_a_scan_out():
    near, far = sphere(1.01).vertices, sphere(3.0).vertices
    mask = np.arange(len(near) + len(far)) < len(near)
    masked = scan_metrics(np.concatenate([near, far]), sphere(), mm_per_unit=1.0, mask=mask)
    assert masked == scan_metrics(near, sphere(), mm_per_unit=1.0)
    with pytest.raises(InputError, match="no point of the scan is left"):
        scan_metrics(near, sphere(), mm_per_unit=1.0, mask=np.zeros(len(near), dtype=bool))


def test_scan_figures_can_be_taken_from_distances():
    figures = distance_metrics(np.array([0.5, 1.0, 1.5, 9.0]))
    assert figures["scan_within@1mm"] == 0.5
    assert figures["scan_mean_mm"] == 3.0
