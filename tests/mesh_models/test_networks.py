"""Training and files of networks of registered heads, with the smallest LAMM."""

import json

import numpy as np
import pytest
import torch

from implicit3dmm.config import load_config
from implicit3dmm.data.heads import Heads
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.mesh_models.model import is_network_file, load_network, save_network
from implicit3dmm.mesh_models.training import (
    MeshRunConfig,
    MeshTrainer,
    MeshTrainingConfig,
    rate_factor,
)
from implicit3dmm.resources import config_file

pytestmark = pytest.mark.usefixtures("torch_as_it_was")


@pytest.fixture(scope="module")
def heads() -> Heads:
    return Heads(Recipe(seed=4, train=6, validation=2, expressions=("neutral", "smile")), name="people")


def config(*overrides: str) -> MeshRunConfig:
    return load_config(MeshRunConfig, config_file("", "lamm/tiny"), overrides)


@pytest.fixture(scope="module")
def trained(heads, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, MeshTrainer(config("network.learning.targets=last"), heads, folder).train()


def test_a_training_comes_nearer_to_its_heads_than_their_mean_is(heads, trained):
    folder, model = trained
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["total"] < 0.9 * rows[0]["total"]
    seen = RegisteredHeads.of(heads, "train")
    mean_head = np.linalg.norm(seen.vertices - seen.mean, axis=-1).mean() * 200
    missed = np.linalg.norm(model.decode(model.encode(seen.vertices)) - seen.vertices, axis=-1).mean() * 200
    assert missed < 0.9 * mean_head
    assert model.info["heads"] == 12
    assert model.info["steps"] == 60


def test_a_killed_run_that_is_resumed_ends_as_an_unbroken_one(heads, tmp_path):
    whole = MeshTrainer(config("training.steps=40"), heads, tmp_path / "whole").train()
    broken = MeshTrainer(config("training.steps=40"), heads, tmp_path / "broken")
    steps, step = iter(range(27)), broken._step
    broken._step = lambda number: step(number) if next(steps, None) is not None else pytest.fail("stopped")
    with pytest.raises(pytest.fail.Exception):
        broken.train()
    again = MeshTrainer(config("training.steps=40"), heads, tmp_path / "broken")
    again.resume()
    assert again.run.step == 20
    resumed = again.train()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value)


def test_a_file_gives_the_same_network_and_topology_back(trained):
    folder, model = trained
    path = folder / "model.safetensors"
    assert is_network_file(path)
    again = load_network(path)
    codes = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    np.testing.assert_array_equal(again.decode(codes), model.decode(codes))
    assert again.topology.names == model.topology.names
    np.testing.assert_array_equal(again.topology.controls, model.topology.controls)
    assert again.info == model.info


def test_half_precision_costs_half_the_space_and_hundredths_of_a_millimetre(heads, trained, tmp_path):
    folder, model = trained
    save_network(tmp_path / "half.safetensors", model, half=True)
    half = load_network(tmp_path / "half.safetensors")
    vertices = RegisteredHeads.of(heads, "validation").vertices
    apart = np.linalg.norm(half.decode(half.encode(vertices)) - model.decode(model.encode(vertices)), axis=-1) * 200
    assert 0 < apart.mean() < 0.02
    weights = sum(parameter.numel() for parameter in model.network.parameters())
    saved = (folder / "model.safetensors").stat().st_size - (tmp_path / "half.safetensors").stat().st_size
    assert saved == pytest.approx(2 * weights, rel=0.01)


def test_a_training_starts_from_a_trained_network_of_the_same_sizes(heads, trained, tmp_path):
    folder, model = trained
    start = f"start={folder / 'model.safetensors'}"
    second = MeshTrainer(config(start, "network.learning.task=control"), heads, tmp_path / "second")
    assert torch.equal(second.network.down.weight, model.network.down.weight)
    with pytest.raises(InputError, match="the weights to start from are not those of this LAMM"):
        MeshTrainer(config(start, "network.width=18"), heads, tmp_path / "other")


def test_wrong_input_is_one_clear_line(heads, trained, tmp_path):
    folder, model = trained
    with pytest.raises(InputError, match=r"the head has vertices of shape \(5, 3\); the model has \(14642, 3\)"):
        model.encode(np.zeros((1, 5, 3)))
    with pytest.raises(InputError, match=r"codes of shape \(1, 3\) given; run\d* has \(b, 8\)"):
        model.decode(np.zeros((1, 3)))
    with pytest.raises(InputError, match="people has 6 training subjects; expected 9"):
        MeshTrainer(config("training.subjects=9"), heads, tmp_path / "many")
    with pytest.raises(InputError, match="holds a run of another network; choose another folder"):
        MeshTrainer(config("network.width=18"), heads, folder)
    with pytest.raises(InputError, match=r"no model .*none\.safetensors.; give a \.safetensors file or one of"):
        load_network(tmp_path / "none.safetensors")
    for wrong, message in (("steps=0", "steps is 0"), ("subjects=1", "subjects is 1"), ("warmup=-1", "warmup is -1")):
        with pytest.raises(InputError, match=message):
            config(f"training.{wrong}")


def test_the_rate_rises_and_falls_along_a_cosine():
    settings = MeshTrainingConfig(steps=1000, warmup=100, learning_rate=1e-3, final_rate=1e-5)
    rates = [rate_factor(step, settings) for step in (0, 49, 99, 100, 550, 999)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.505, 0.01], abs=1e-3)
