from dataclasses import replace

import numpy as np
import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.methods import MethodInfo, PCAMethod, describe_training, open_method, open_methods
from implicit3dmm.fitting import FitConfig
from implicit3dmm.mesh_models.pca import PCAModel, save_pca

TRAINING = {"shapes": 16, "surface_points": 128, "distance_points": 384}


@pytest.fixture(scope="module")
def field():
    return open_method("imhead", resolution=32, config=FitConfig(seed=3))


def test_a_field_says_what_it_is(field):
    assert (field.name, field.latent_size) == ("imhead", 256 + 53)
    assert field.info.training_set == "256 makehuman under 26 expressions"
    assert field.settings["fit"]["seed"] == 3
    assert (field.settings["resolution"], len(field.settings["weights"])) == (32, 32)
    assert field.mean_head.is_watertight()


def test_draws_of_equal_seeds_differ_in_scale_alone(field):
    def draw(temperature, seed=0, count=1):
        return [m.vertices for m in field.sample(count, temperature=temperature, rng=np.random.default_rng(seed))]

    np.testing.assert_array_equal(draw(1.0)[0], draw(1.0)[0])
    assert len(draw(1.0, count=2)) == 2
    np.testing.assert_array_equal(draw(0.0)[0], field.mean_head.vertices)
    assert len(draw(1.0, seed=1)[0]) != len(draw(1.0)[0])


def test_principal_components_are_a_method_too(tiny_corpus, tmp_path):
    path = tmp_path / "pca3.safetensors"
    save_pca(path, PCAModel.of(tiny_corpus, components=3, name="PCA 3"))
    opened = open_method(path)
    assert isinstance(opened, PCAMethod)
    assert (opened.name, opened.latent_size, opened.info.training_set) == ("PCA 3", 3, "6 makehuman")
    low, high = (
        next(opened.sample(1, temperature=t, rng=np.random.default_rng(0))).vertices - opened.mean_head.vertices
        for t in (0.5, 1.0)
    )
    np.testing.assert_allclose(2 * low, high, atol=1e-6)


def test_training_points_are_counted_over_all_steps():
    recipe = {"train": 1000, "source": "makehuman"}
    info = {
        "recipe": recipe,
        "training": TRAINING,
        "steps": 100,
        "seconds": 5,
        "cpu_seconds": 9,
        "gate": "0.31 mm, known 0.3",
    }
    assert describe_training(info) == MethodInfo("1000 makehuman", 100 * 16 * 512, 5, 9, "0.31 mm, known 0.3")
    recipes = [recipe, recipe | {"source": "ict"}]
    several = {"recipes": recipes, "training": TRAINING | {"subjects": 64}, "steps": 1}
    assert describe_training(several).training_set == "64 makehuman + 64 ict"
    assert describe_training({}) == MethodInfo()


def test_models_of_one_name_and_no_model_are_refused():
    with pytest.raises(InputError, match="both called 'imhead'"):
        open_methods(["imhead", "imhead"])
    with pytest.raises(InputError, match="no model is given"):
        open_methods([])
    with pytest.raises(InputError, match="no model 'none'"):
        open_methods(["none"])


def test_settings_of_the_fit_are_checked_before_any_work():
    with pytest.raises(InputError, match="seed is -1"):
        open_method("imhead", config=replace(FitConfig(), seed=-1))
