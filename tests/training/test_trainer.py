"""Trainings of a few steps: every field, equal bits from equal seeds, kill and resume, and what is refused."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from implicit3dmm.config import load_config
from implicit3dmm.data.building import build_corpus
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.errors import InputError
from implicit3dmm.fields import DeepSDFConfig
from implicit3dmm.mesh_models.base import network_configs
from implicit3dmm.mesh_models.model import load_network
from implicit3dmm.mesh_models.training import MeshRunConfig, MeshTrainer
from implicit3dmm.models import load_model
from implicit3dmm.resources import config_folder
from implicit3dmm.training import RunConfig, Trainer, TrainingConfig
from implicit3dmm.training.checkpoints import Spent
from implicit3dmm.training.trainer import _schedule
from implicit3dmm.yaml_files import read_yaml

SMALL = TrainingConfig(
    steps=6,
    shapes=4,
    surface_points=16,
    distance_points=32,
    gradient_points=8,
    learning_rate=5e-3,
    warmup=2,
    checkpoint_every=2,
    log_every=2,
)


def config(**changes) -> RunConfig:
    return RunConfig(DeepSDFConfig(8, 24, 3), dataclasses.replace(SMALL, **changes))


def killed_after(steps: int):
    """A progress wrapper that stops a run as Ctrl-C does."""

    def wrap(remaining):
        for number, step in enumerate(remaining):
            if number == steps:
                raise KeyboardInterrupt
            yield step

    return wrap


def metrics(folder) -> list[dict]:
    """The lines of metrics.jsonl without the time that they took."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def same_bits(path, other) -> bool:
    ours, theirs = load_file(path), load_file(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


NETWORKS = sorted(network_configs())
FIELDS = sorted({path.parent.name for path in config_folder().glob("*/tiny.yaml")} - set(NETWORKS))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tiny_network_trains_two_steps(name, tiny_corpus, tmp_path):
    overrides = ["training.steps=2", "training.log_every=1", "training.batch=2"]
    settings = load_config(MeshRunConfig, config_folder() / name / "tiny.yaml", overrides)
    model = MeshTrainer(settings, tiny_corpus, tmp_path / "run").train()
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2]
    loaded = load_network(tmp_path / "run/model.safetensors")
    codes = np.ones((1, model.network.latent_dim))
    assert np.array_equal(loaded.decode(codes), model.decode(codes))
    assert loaded.network.config == settings.network


@pytest.mark.parametrize(
    "path", sorted(config_folder().glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_shipped_config_can_be_read(path):
    kinds = {"field": RunConfig, "network": MeshRunConfig}
    mapping = read_yaml(path)
    load_config(next((kind for key, kind in kinds.items() if key in mapping), Recipe), path)


@pytest.mark.parametrize("name", FIELDS)
def test_every_tiny_field_trains_two_steps(name, tiny_corpus, tmp_path):
    overrides = ["training.steps=2", "training.log_every=1", "training.shapes=2", "training.surface_points=16"]
    if name == "parts_cascade":  # the corpus has no composites
        overrides += ["training.losses.landmark=0", "training.losses.consistency=0"]
    settings = load_config(RunConfig, config_folder() / name / "tiny.yaml", overrides)
    model = Trainer(settings, tiny_corpus, tmp_path / "run").train()
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2]
    assert all(np.isfinite(list(row.values())).all() for row in metrics(tmp_path / "run"))
    loaded = load_model(tmp_path / "run/model.safetensors")
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    assert np.array_equal(loaded.sdf(points, loaded.prior.mean()), model.sdf(points, model.prior.mean()))
    assert loaded.field.config == settings.field
    assert loaded.info["steps"] == 2
    assert loaded.info["recipes"][0]["seed"] == tiny_corpus.recipe.seed
    assert "MIT" in loaded.info["licence"]


def test_a_model_names_the_one_that_it_started_from_and_no_path(tiny_corpus, tmp_path):
    first = Trainer(config(), tiny_corpus, tmp_path / "first")
    first.train()
    start = replace(config(), start=str(tmp_path / "first/model.safetensors"))
    assert Trainer(start, tiny_corpus, tmp_path / "second").model().info["start"] == "first"
    assert first.model().info["start"] is None


def test_a_run_folder_holds_what_makes_it_again(tiny_corpus, tmp_path):
    Trainer(config(), tiny_corpus, tmp_path / "run").train()
    assert load_config(RunConfig, tmp_path / "run/config.yaml") == config()
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"config.yaml", "checkpoint.safetensors", "metrics.jsonl", "model.safetensors", "tensorboard"}
    assert any((tmp_path / "run/tensorboard").iterdir())


def test_training_makes_the_loss_smaller(tiny_corpus, tmp_path):
    Trainer(config(steps=60, log_every=10), tiny_corpus, tmp_path / "run").train()
    rows = metrics(tmp_path / "run")
    assert rows[-1]["total"] < 0.5 * rows[0]["total"]


@pytest.mark.parametrize("workers", [1, 2])
def test_equal_seeds_give_equal_bits_and_others_do_not(workers, tiny_corpus, tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        Trainer(config(steps=2, seed=seed, workers=workers), tiny_corpus, tmp_path / name).train()
    checkpoints = [tmp_path / name / "checkpoint.safetensors" for name in ("first", "again", "other")]
    assert same_bits(checkpoints[0], checkpoints[1])
    assert metrics(tmp_path / "first") == metrics(tmp_path / "again")
    assert not same_bits(checkpoints[0], checkpoints[2])


def test_a_batch_depends_on_the_seed_and_the_step_alone(tiny_corpus, tmp_path):
    def batches(seed: int, steps: tuple[int, ...]) -> list[torch.Tensor]:
        trainer, seen = Trainer(config(seed=seed), tiny_corpus, tmp_path / "run"), []
        gradients = trainer._gradients
        trainer._gradients = lambda *batch: seen.append(batch[1]) or gradients(*batch)
        for step in steps:
            trainer._step(step)
        return seen

    first, second = batches(3, (0, 1))
    assert torch.equal(batches(3, (1,))[0], second)
    assert not torch.equal(first, second)
    assert not torch.equal(batches(4, (1,))[0], second)


def test_building_a_trainer_leaves_the_callers_random_numbers_alone(tiny_corpus, tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    Trainer(config(), tiny_corpus, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_that_is_resumed_ends_as_an_unbroken_one(workers, tiny_corpus, tmp_path):
    settings = config(workers=workers)
    Trainer(settings, tiny_corpus, tmp_path / "whole").train()
    with pytest.raises(KeyboardInterrupt):
        Trainer(settings, tiny_corpus, tmp_path / "broken").train(progress=killed_after(5))
    assert [row["step"] for row in metrics(tmp_path / "broken")] == [2, 4]
    with (tmp_path / "broken/metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "seconds": 1.0, "total": 1.0}\n{"step": 6, "sec')  # logged after the checkpoint
    resumed = Trainer(settings, tiny_corpus, tmp_path / "broken")
    resumed.resume()
    assert resumed.run.step == 4
    resumed.train()
    for name in ("checkpoint.safetensors", "model.safetensors"):
        assert same_bits(tmp_path / "whole" / name, tmp_path / "broken" / name)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "broken")


def test_time_is_counted_over_all_runs_of_a_training(tiny_corpus, tmp_path):
    Trainer(config(steps=2), tiny_corpus, tmp_path / "run").train()
    resumed = Trainer(config(steps=6), tiny_corpus, tmp_path / "run")
    resumed.resume()
    resumed.run.spent = before = Spent(seconds=1000.0, cpu_seconds=2000.0)
    resumed.train()
    assert resumed.run.spent.seconds > before.seconds
    assert resumed.run.spent.cpu_seconds > before.cpu_seconds
    assert load_model(tmp_path / "run/model.safetensors").info["cpu_seconds"] >= 2000
    again = Trainer(config(steps=6), tiny_corpus, tmp_path / "run")
    again.resume()
    assert again.run.spent == resumed.run.spent


def test_a_run_killed_before_its_first_checkpoint_starts_afresh(tiny_corpus, tmp_path):
    settings = config(log_every=1, checkpoint_every=4)
    Trainer(settings, tiny_corpus, tmp_path / "whole").train()
    with pytest.raises(KeyboardInterrupt):
        Trainer(settings, tiny_corpus, tmp_path / "broken").train(progress=killed_after(3))
    resumed = Trainer(settings, tiny_corpus, tmp_path / "broken")
    resumed.resume()
    resumed.train()
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "broken")


def test_resuming_a_finished_run_writes_its_model_again(tiny_corpus, tmp_path):
    Trainer(config(), tiny_corpus, tmp_path / "run").train()
    before, rows = load_file(tmp_path / "run/model.safetensors"), metrics(tmp_path / "run")
    (tmp_path / "run/model.safetensors").unlink()
    again = Trainer(config(), tiny_corpus, tmp_path / "run")
    again.resume()
    again.train()
    after = load_file(tmp_path / "run/model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert metrics(tmp_path / "run") == rows


def test_log_lines_are_means_and_the_last_step_has_one(tiny_corpus, tmp_path):
    Trainer(config(steps=5, log_every=1), tiny_corpus, tmp_path / "each").train()
    Trainer(config(steps=5, log_every=3), tiny_corpus, tmp_path / "means").train()
    each, means = metrics(tmp_path / "each"), metrics(tmp_path / "means")
    assert [row["step"] for row in means] == [3, 5]
    for row, parts in zip(means, (each[:3], each[3:]), strict=True):
        assert row["total"] == pytest.approx(np.mean([part["total"] for part in parts]), rel=1e-4)


def stopped(trainer: Trainer, **arguments) -> str:
    with pytest.raises(InputError) as caught:
        trainer.train(**arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def spoiled_at(trainer: Trainer, step: int, spoil):
    """A progress wrapper that spoils the training before one of its steps."""

    def wrap(remaining):
        for number in remaining:
            if number == step:
                spoil(trainer)
            yield number

    return wrap


def weights_that_are_not_finite(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.objective.field.out.bias.fill_(torch.nan)


def gradients_that_are_not_finite(parameter):
    def spoil(trainer: Trainer) -> None:
        gradients = trainer._gradients

        def spoiled(*batch):
            losses = gradients(*batch)
            parameter(trainer).grad[0] = torch.inf
            return losses

        trainer._gradients = spoiled

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        weights_that_are_not_finite,
        gradients_that_are_not_finite(lambda trainer: trainer.objective.field.first_code.bias),
        gradients_that_are_not_finite(lambda trainer: trainer.objective.bank.tables["identity"]),
    ],
    ids=["loss", "gradient of the weights", "gradient of the codes"],
)
def test_what_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(spoil, tiny_corpus, tmp_path):
    trainer = Trainer(config(), tiny_corpus, tmp_path / "run")
    message = stopped(trainer, progress=spoiled_at(trainer, 3, spoil))
    generator = torch.Generator().manual_seed(3)
    records = trainer.records[torch.randint(len(trainer.records), (4,), generator=generator)]
    assert f"not finite at step 3 on records {records.tolist()}" in message
    kept = load_file(tmp_path / "run/checkpoint.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())
    assert not (tmp_path / "run/model.safetensors").exists()
    resumed = Trainer(config(), tiny_corpus, tmp_path / "run")
    resumed.resume()
    assert resumed.run.step == 2


@pytest.fixture
def run(tiny_corpus, tmp_path):
    """The folder of a run of two steps."""
    Trainer(config(steps=2), tiny_corpus, tmp_path / "run").train()
    return tmp_path / "run"


def not_resumed(trainer: Trainer) -> str:
    with pytest.raises(InputError) as caught:
        trainer.resume()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_cut_off_checkpoint_is_refused(run, tiny_corpus, share):
    path = run / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "no whole checkpoint" in not_resumed(Trainer(config(), tiny_corpus, run))


@pytest.mark.parametrize("metadata", [None, {"implicit3dmm-checkpoint": "{"}, {"implicit3dmm-checkpoint": "{}"}])
def test_a_file_that_is_no_checkpoint_is_refused(run, tiny_corpus, metadata):
    save_file({"weight": torch.zeros(2)}, run / "checkpoint.safetensors", metadata)
    assert "no whole checkpoint" in not_resumed(Trainer(config(), tiny_corpus, run))


def test_a_run_of_another_field_is_refused_before_anything_changes(run, tiny_corpus):
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(InputError, match="holds a run of another field"):
        Trainer(RunConfig(DeepSDFConfig(8, 32, 3), SMALL), tiny_corpus, run)
    assert (run / "config.yaml").read_bytes() == before


def test_a_checkpoint_of_another_corpus_is_refused(run, tmp_path):
    other = build_corpus(Recipe(train=2, surface_points=64, distance_points=64), tmp_path / "corpus")
    assert "another field or corpus" in not_resumed(Trainer(config(), other, run))


def test_a_corpus_of_one_training_subject_is_refused_and_leaves_nothing(tmp_path):
    one = build_corpus(Recipe(train=1, surface_points=64, distance_points=64), tmp_path / "corpus")
    with pytest.raises(InputError, match="has 1 training subjects; expected at least 2"):
        Trainer(config(), one, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_codes_start_from_the_principal_components_of_the_training_heads(tiny_corpus, tmp_path):
    trainer = Trainer(config(), tiny_corpus, tmp_path / "pca")
    table = trainer.objective.bank.tables["identity"].detach()[tiny_corpus.subjects("train")]
    assert table[:, 0].std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert (table.square().sum(0).diff() <= 1e-5).all()
    assert not table[:, 5:].any()  # six heads have five components


def test_only_the_first_subjects_train_where_asked(tiny_corpus, tmp_path):
    trainer = Trainer(config(subjects=3), tiny_corpus, tmp_path / "run")
    assert tiny_corpus.record_subject[trainer.records].unique().tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"training\.subjects asks for 7"):
        Trainer(config(subjects=7), tiny_corpus, tmp_path / "other")


@pytest.fixture(scope="module")
def known(tiny_corpus, tmp_path_factory):
    """The weights file of a model that has learnt a little."""
    folder = tmp_path_factory.mktemp("known")
    Trainer(config(steps=30), tiny_corpus, folder).train()
    return str(folder / "model.safetensors")


@pytest.fixture
def own(tmp_path):
    recipe = Recipe(seed=8, train=3, surface_points=512, distance_points=512)
    return build_corpus(recipe, tmp_path / "own")


def test_codes_move_first_and_then_the_weights_too(known, own, tmp_path):
    weights = load_model(known).field.state_dict()
    for steps, moved in ((4, False), (6, True)):
        settings = dataclasses.replace(config(steps=steps, code_steps=4), start=known)
        trainer = Trainer(settings, own, tmp_path / str(steps))
        start = trainer.objective.bank.tables["identity"].detach().clone()
        tuned = trainer.train()
        changed = any(not torch.equal(weights[key], value) for key, value in tuned.field.state_dict().items())
        assert changed == moved
        assert not torch.equal(trainer.objective.bank.tables["identity"].detach(), start)


def test_codes_start_at_the_mean_and_the_prior_keeps_the_known_heads(known, own, tmp_path):
    trainer = Trainer(dataclasses.replace(config(steps=2), start=known), own, tmp_path / "run")
    before = load_model(known).prior
    table = trainer.objective.bank.tables["identity"].detach()
    assert torch.equal(table, before.mean(len(table))["identity"])
    after = trainer.model().prior.parts["identity"]
    assert torch.allclose(after.mean, before.parts["identity"].mean, atol=1e-6)
    assert after.std[0] > 0.6 * before.parts["identity"].std[0]


def test_a_model_of_another_field_is_refused(known, own, tmp_path):
    other = load_config(RunConfig, config_folder() / "deepsdf/tiny.yaml", [f"start={known}"])
    with pytest.raises(InputError, match="the weights to start from are not those of this DeepSDF"):
        Trainer(other, own, tmp_path / "run")


def test_codes_start_from_noise_where_asked(tiny_corpus, tmp_path):
    table = Trainer(config(code_start="random"), tiny_corpus, tmp_path / "run").objective.bank.tables["identity"]
    assert table.std().item() == pytest.approx(8**-0.5, rel=0.3)


def test_the_prior_is_that_of_the_training_heads_alone(tiny_corpus, tmp_path):
    trainer = Trainer(config(steps=2), tiny_corpus, tmp_path / "run")
    model = trainer.train()
    table = trainer.objective.bank.tables["identity"].detach()
    trained = tiny_corpus.record_subject[trainer.records].unique()
    assert len(trained) == 6
    assert len(table) == 8
    assert torch.allclose(model.prior.parts["identity"].mean, table[trained].mean(0))


def test_heads_outside_the_training_split_are_never_shown(tiny_corpus, tmp_path):
    trainer = Trainer(config(code_start="random"), tiny_corpus, tmp_path / "run")
    before = trainer.objective.bank.tables["identity"].detach().clone()
    trainer.train()
    changed = (trainer.objective.bank.tables["identity"] != before).any(1)
    assert changed.tolist() == [split == 0 for split in tiny_corpus.split]


def test_rates_rise_stay_and_fall_to_zero():
    settings = TrainingConfig(steps=100, warmup=10, decay=0.4)
    factors = [_schedule(step, settings) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10:60] == [1.0] * 50
    assert factors[60:] == pytest.approx([(100 - step) / 40 for step in range(60, 100)])
    assert _schedule(0, TrainingConfig(steps=1, warmup=0, decay=0.0)) == 1
