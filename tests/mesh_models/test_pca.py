import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.errors import InputError
from implicit3dmm.mesh_models.pca import ARRAYS, PCAModel, is_pca_file, load_pca, save_pca
from implicit3dmm.mesh_models.weights import write_weights
from implicit3dmm.resources import asset


@pytest.fixture(scope="module")
def vertices(people) -> np.ndarray:
    """Vertices of the training heads."""
    return np.stack([people.head(record).vertices for record in range(48)])


class TestComponents:
    def test_they_are_those_of_the_singular_value_decomposition(self, model, vertices):
        rows = vertices.reshape(48, -1)
        centred = rows - rows.mean(0)
        _, spread, axes = np.linalg.svd(centred, full_matrices=False)
        np.testing.assert_allclose(model.mean.ravel(), rows.mean(0), atol=1e-6)
        np.testing.assert_allclose(model.deviations, spread[:30] / np.sqrt(47), rtol=1e-3)
        cosines = np.abs(np.einsum("kc,kc->k", model.components.reshape(30, -1), axes[:30]))
        np.testing.assert_allclose(cosines[:10], 1, atol=1e-4)
        np.testing.assert_allclose(model.info["variance_share"], np.square(spread[:30]).sum() / np.square(spread).sum())

    def test_they_are_orthonormal(self, model):
        flat = model.components.reshape(30, -1).astype(np.float64)
        np.testing.assert_allclose(flat @ flat.T, np.eye(30), atol=2e-5)

    def test_all_of_them_give_every_training_head_back(self, people, vertices):
        whole = PCAModel.of(people, components=47)
        for head in vertices[:3]:
            assert np.abs(whole.vertices(whole.project(head)) - head).max() < 2e-5

    def test_coefficients_of_the_training_heads_are_standard(self, model, vertices):
        coefficients = np.stack([model.project(head) for head in vertices])
        np.testing.assert_allclose(coefficients.mean(0), 0, atol=1e-2)
        np.testing.assert_allclose(coefficients.std(0, ddof=1), 1, atol=1e-2)

    def test_they_do_not_depend_on_the_expressions_of_the_corpus(self, people, model):
        recipe = replace(people.recipe, expressions=("smile", "neutral"))
        again = PCAModel.of(Heads(recipe, name="smiling"), components=30)
        np.testing.assert_array_equal(again.components, model.components)

    @pytest.mark.parametrize("count", [0, 48])
    def test_too_many_or_none_are_refused(self, people, count):
        with pytest.raises(InputError, match=f"{count} components asked of 48 train heads"):
            PCAModel.of(people, components=count)


class TestModel:
    def test_projection_is_least_squares(self, model, people):
        """No change of a coefficient lowers the squared error, and the error is orthogonal to all components."""
        head = people.head(48).vertices
        left = head - model.vertices(model.project(head))
        assert np.abs(model.components.reshape(30, -1) @ left.ravel()).max() < 1e-3 * np.linalg.norm(left)

    def test_coefficients_survive_the_way_there_and_back(self, model):
        drawn = model.sample(3, rng=np.random.default_rng(0))
        for coefficients in drawn:
            np.testing.assert_allclose(model.project(model.vertices(coefficients)), coefficients, atol=1e-3)

    def test_fewer_coefficients_are_the_first(self, model):
        coefficients = np.zeros(30)
        coefficients[:4] = 1, -2, 0.5, 3
        np.testing.assert_allclose(model.vertices(coefficients[:4]), model.vertices(coefficients), atol=1e-6)
        np.testing.assert_allclose(model.first(4).vertices(coefficients[:4]), model.vertices(coefficients), atol=1e-6)

    @pytest.mark.parametrize("count", [0, 31])
    def test_components_that_it_has_not_are_refused(self, model, count):
        with pytest.raises(InputError, match=f"{count} components asked for; pca has 30"):
            model.first(count)

    def test_a_head_of_another_topology_is_refused(self, model):
        with pytest.raises(InputError, match=r"vertices of shape \(5, 3\) given; pca has \(14642, 3\)"):
            model.project(np.zeros((5, 3)))

    def test_its_heads_are_closed(self, model):
        mesh = model.mesh(model.sample(1, rng=np.random.default_rng(1))[0])
        assert mesh.is_watertight()
        assert mesh.volume() > 0

    def test_samples_follow_seed_and_temperature(self, model):
        one, same = (model.sample(400, rng=np.random.default_rng(2)) for _ in range(2))
        np.testing.assert_array_equal(one, same)
        half = model.sample(400, temperature=0.5, rng=np.random.default_rng(2))
        np.testing.assert_allclose(half, one / 2)
        assert abs(one.std() - 1) < 0.05


class TestFiles:
    def test_a_model_comes_back_as_it_was(self, model, tmp_path):
        path = tmp_path / "pca.safetensors"
        save_pca(path, model)
        again = load_pca(path)
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
        assert again.info == dict(model.info)
        assert again.info["recipe"]["source"] == "makehuman"
        assert "CC0" in again.info["licence"]
        assert is_pca_file(path)

    def test_other_files_are_none(self, tmp_path):
        (tmp_path / "text").write_text("no weights")
        assert not is_pca_file(tmp_path / "text")
        assert not is_pca_file(tmp_path / "missing")
        save_file({"a": np.zeros(2)}, tmp_path / "foreign")
        assert not is_pca_file(tmp_path / "foreign")
        with pytest.raises(InputError, match="foreign holds no PCA model; give a file that 'implicit3dmm pca' wrote"):
            load_pca(tmp_path / "foreign")

    def test_a_field_is_none(self):
        path = next(asset("models").glob("*.safetensors"))
        assert not is_pca_file(path)
        with pytest.raises(InputError, match="holds no PCA model"):
            load_pca(path)

    @pytest.mark.parametrize("keep", [0, 5, 1000])
    def test_a_truncated_file_is_refused(self, model, tmp_path, keep):
        path = tmp_path / "pca.safetensors"
        save_pca(path, model)
        path.write_bytes(path.read_bytes()[:keep])
        assert not is_pca_file(path)
        with pytest.raises(InputError, match="no whole safetensors file"):
            load_pca(path)

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ({"format": "implicit3dmm-pca", "version": 2, "info": {}}, "format version 2; this program reads 1"),
            ({"format": "implicit3dmm-pca", "version": 1}, "lacks a part of its header"),
            ({"format": "implicit3dmm-pca", "version": 1, "info": {}}, "lacks cap, components, deviations"),
        ],
    )
    def test_a_file_that_lacks_something_is_refused(self, tmp_path, header, message):
        write_weights(tmp_path / "pca", {"mean": np.zeros((4, 3), np.float32)}, header)
        with pytest.raises(InputError, match=message):
            load_pca(tmp_path / "pca")

    def test_arrays_that_do_not_fit_together_are_refused(self, model, tmp_path):
        save_pca(tmp_path / "pca", replace(model, components=model.components[:2]))
        with pytest.raises(InputError, match=r"components has shape \(2, 14642, 3\)"):
            load_pca(tmp_path / "pca")

    def test_a_header_that_is_no_mapping_is_foreign(self, tmp_path):
        save_file({"a": np.zeros(2)}, tmp_path / "list", {"implicit3dmm": json.dumps([1])})
        assert not is_pca_file(tmp_path / "list")


@pytest.fixture(scope="module")
def faces() -> Heads:
    """Heads under three expressions."""
    recipe = Recipe(seed=8, train=8, validation=1, expressions=("neutral", "smile", "mouth_open"))
    return Heads(recipe, name="faces")


class TestExpressions:
    def test_a_model_of_all_records_gives_each_of_them_back(self, faces):
        model = PCAModel.of(faces, components=23, shows="all")
        for record in (1, 5):
            vertices = faces.head(record).vertices
            assert np.abs(model.vertices(model.project(vertices)) - vertices).max() < 2e-5
        assert model.info["heads"] == 24

    def test_an_additive_model_moves_people_and_expressions_by_components_of_their_own(self, faces):
        model = PCAModel.of(faces, components=7, shows="additive", expression_components=16)
        assert model.components.shape == (23, 14642, 3)
        head = faces.head(4)
        found = model.project(head.vertices)
        assert np.abs(model.vertices(found) - head.vertices).max() < 2e-5
        at_rest = model.project(head.neutral)
        assert np.abs(model.vertices(at_rest[:7]) - head.neutral).max() < 2e-5
        only = model.components[7:].reshape(16, -1).T
        moved = (head.vertices - head.neutral).ravel()
        assert np.abs(only @ (only.T @ moved) - moved).max() < 2e-5

    def test_numbers_that_do_not_go_together_are_refused(self, faces):
        with pytest.raises(InputError, match="0 expression components of a model that shows additive heads; give some"):
            PCAModel.of(faces, components=3, shows="additive")
        with pytest.raises(
            InputError, match="17 expression components asked of 16 train heads that move; ask for fewer"
        ):
            PCAModel.of(faces, components=3, shows="additive", expression_components=17)
