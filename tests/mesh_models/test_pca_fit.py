import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.cases import Case, HeldOut
from implicit3dmm.evaluation.conditions import Condition
from implicit3dmm.evaluation.gate import registered_projection
from implicit3dmm.evaluation.regions import HEADLINE
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.mesh_models.pca_fit import PCAFit, PCAFitConfig, fit_pca

HELD_OUT = HeldOut(split="validation", samples=5000)
POSE = Similarity(180.0, Rotation.from_euler("xyz", [2.0, -1.0, 0.5]).as_matrix(), np.array([300.0, -20.0, 1000.0]))
"""From the canonical frame to a scan's."""


@pytest.fixture(scope="module")
def case(people) -> Case:
    """A head that the model has not seen."""
    return Case.of(people, 48, HELD_OUT)


@pytest.fixture(scope="module")
def own(model) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of a head of the model, and 3000 points of its skin in the canonical frame."""
    coefficients = model.sample(1, temperature=0.8, rng=np.random.default_rng(4))[0]
    skin = Mesh(model.vertices(coefficients), model.skin)
    return coefficients, sample_surface(skin, 3000, rng=np.random.default_rng(5)).points


@pytest.fixture(scope="module")
def nearby() -> Similarity:
    """From the scan's frame to some degrees and per cent beside the canonical one."""
    move = Similarity(1.04, Rotation.from_euler("y", 0.1).as_matrix(), np.array([0.02, -0.02, 0.01]))
    return move.compose(POSE.inverse())


@pytest.fixture(scope="module")
def result(model, own, nearby) -> PCAFit:
    """The fit to the points of that head."""
    return fit_pca(POSE.apply(own[1]), model, transform=nearby)


def headline(case: Case, mesh: Mesh, placement: Similarity) -> float:
    return case.judge(mesh.transformed(placement.inverse()))[HEADLINE]["surface_mean_mm"]


class TestRegisteredProjection:
    def test_the_fit_to_loose_points_comes_near_it(self, model, people, case):
        scan = case.scan(Condition(points=4000))
        (gate,) = registered_projection(model, people, [48], held_out=HELD_OUT)
        assert headline(case, fit_pca(scan.points, model).mesh, scan.placement) < 1.3 * gate

    def test_more_components_lower_it(self, model, people):
        means = [registered_projection(model.first(k), people, [48, 49], held_out=HELD_OUT).mean() for k in (5, 15, 30)]
        assert means[0] > means[1] > means[2]


class TestKnownHead:
    def test_its_coefficients_and_pose_are_found(self, own, result):
        np.testing.assert_allclose(result.coefficients, own[0], atol=0.02)
        np.testing.assert_allclose(result.similarity.matrix(), POSE.inverse().matrix(), atol=2e-3)

    def test_the_mesh_is_in_the_frame_of_the_scan(self, model, own, result):
        truth = POSE.apply(model.vertices(own[0]))
        assert np.linalg.norm(result.mesh.vertices - truth, axis=1).max() < 0.1
        assert result.mesh.is_watertight()

    def test_the_report_is_plain_values(self, result):
        report = json.loads(json.dumps(result.report))
        assert report["model"] == "pca"
        assert report["residual_mm"] < 0.01
        assert report["parameters"] == pytest.approx(37, abs=0.1)

    def test_equal_seeds_give_equal_results(self, model, own, nearby, result):
        again = fit_pca(POSE.apply(own[1]), model, transform=nearby)
        np.testing.assert_array_equal(again.coefficients, result.coefficients)
        np.testing.assert_array_equal(again.similarity.matrix(), result.similarity.matrix())

    def test_another_unit_and_pose_of_the_scan_change_nothing(self, model, own, nearby, result):
        move = Similarity(0.01, Rotation.from_euler("z", 2.5).as_matrix(), np.array([1.0, 2.0, 3.0]))
        moved = fit_pca(move.apply(POSE.apply(own[1])), model, transform=nearby.compose(move.inverse()))
        np.testing.assert_allclose(moved.coefficients, result.coefficients, atol=1e-3)

    def test_strays_and_shoulders_change_little(self, model, own, nearby):
        rng = np.random.default_rng(6)
        strays = rng.uniform(-1, 1, (300, 3))
        shoulders = rng.uniform((-1.0, -0.95, -0.3), (1.0, -0.85, 0.3), (1000, 3))
        dirty = POSE.apply(np.concatenate([own[1], strays, shoulders]))
        np.testing.assert_allclose(fit_pca(dirty, model, transform=nearby).coefficients, own[0], atol=0.1)


class TestNoise:
    def test_the_prior_decides_the_more_the_less_the_points_tell(self, model, own):
        """The number of unknowns that the points determine falls, and so does the length of the coefficients."""
        rng = np.random.default_rng(7)
        fits = []
        for count, noise_mm in ((3000, 1.0), (3000, 4.0), (250, 4.0)):
            noisy = own[1][:: 3000 // count] + rng.normal(size=(count, 3)) * noise_mm / 200
            fits.append(fit_pca(noisy, model, transform=Similarity.identity()))
        assert (np.diff([fit.report["parameters"] for fit in fits]) < 0).all()
        assert fits[2].report["coefficient_norm"] < fits[0].report["coefficient_norm"]
        assert fits[1].report["residual_mm"] == pytest.approx(4, rel=0.35)

    def test_few_noisy_points_are_better_than_none(self, model, case):
        scan = case.scan(Condition(points=250, noise_mm=4))
        known = case.head.similarity.compose(scan.placement.inverse())
        mean = model.mesh(np.zeros(30)).transformed(known.inverse())
        fitted = fit_pca(scan.points, model, transform=known).mesh
        assert headline(case, fitted, scan.placement) < 0.75 * headline(case, mean, scan.placement)

    def test_noise_does_not_shrink_the_scan(self, model, case):
        """In canonical units it would: residuals fall with the scale."""
        scan = case.scan(Condition(view="frontal", points=3000, noise_mm=2))
        known = case.head.similarity.compose(scan.placement.inverse())
        assert fit_pca(scan.points, model, transform=known).similarity.scale == pytest.approx(known.scale, rel=0.03)


class TestRefusals:
    @pytest.mark.parametrize(
        ("points", "message"),
        [
            (np.zeros((0, 3)), "has no points"),
            (np.random.default_rng(0).normal(size=(99, 3)), "99 points; at least 100"),
            (np.full((200, 3), np.nan), "NaN"),
            (np.ones((200, 3)), "in one place"),
        ],
    )
    def test_points_that_are_no_scan(self, model, points, message):
        with pytest.raises(InputError, match=message):
            fit_pca(points, model)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"seed": -1}, "seed is -1"),
            ({"points": 99}, "points is 99; give at least 100"),
            ({"robust_end": 0.1}, "robust_start and robust_end"),
        ],
    )
    def test_settings_out_of_range(self, model, own, setting, message):
        with pytest.raises(InputError, match=message):
            fit_pca(own[1], model, config=PCAFitConfig(**setting))
