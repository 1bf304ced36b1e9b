"""Trainings on composite heads: who takes them, and what a cascade learns of its stages."""

import json

import pytest
import torch

from implicit3dmm.config import load_config
from implicit3dmm.data.building import build_corpus
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.errors import InputError
from implicit3dmm.models import load_model
from implicit3dmm.resources import config_folder
from implicit3dmm.training import RunConfig, Trainer

QUICK = ["training.steps=30", "training.log_every=10", "training.warmup=5", "training.shapes=4"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    recipe = Recipe(seed=9, train=4, validation=2, swaps=2, surface_points=512, distance_points=512)
    return build_corpus(recipe, tmp_path_factory.mktemp("composites") / "small")


def trainer(name: str, corpus, folder, *changes: str) -> Trainer:
    return Trainer(load_config(RunConfig, config_folder() / f"{name}.yaml", [*QUICK, *changes]), corpus, folder)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return trainer("parts_cascade/tiny", corpus, folder), folder


def test_a_cascade_learns_from_composites_what_each_stage_should_do(trained):
    run, folder = trained
    before = {name: table.clone() for name, table in run.objective.bank.tables.items()}
    run.train()
    first, *_, last = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert {"landmark", "consistency", "correction"} <= first.keys()
    assert last["total"] < first["total"]
    assert all((run.objective.bank.tables[name] != table).any() for name, table in before.items())
    model = load_model(folder / "model.safetensors")
    assert [spec.name for spec in model.field.latent_specs] == ["nose", "eyes", "mouth", "rem"]
    codes = model.prior.sample(1, generator=torch.Generator().manual_seed(0))
    assert model.condition(codes).sdf(torch.zeros(1, 3, 3)).isfinite().all()


def test_it_trains_on_all_records_and_fields_of_whole_subjects_on_their_own(trained, corpus, tmp_path):
    assert torch.equal(trained[0].records, corpus.records("train"))
    for name, changes in (("deepsdf/tiny", ()), ("parts_cascade/tiny", ("field.parts={identity: 8}",))):
        records = trainer(name, corpus, tmp_path / name, *changes).records
        assert torch.equal(records, corpus.records("train")[corpus.whole[corpus.records("train")]])


def test_of_fewer_subjects_only_composites_among_themselves_count(corpus, tmp_path):
    records = trainer("parts_cascade/tiny", corpus, tmp_path, "training.subjects=3").records
    assert set(torch.cat([rows[records] for rows in corpus.donors.values()]).tolist()) == {0, 1, 2}
    left = set(corpus.records("train").tolist()) - set(records.tolist())
    assert all(max(int(rows[record]) for rows in corpus.donors.values()) == 3 for record in left)


def test_a_plain_corpus_is_refused_where_landmarks_are_asked_for_and_else_will_do(tiny_corpus, tmp_path):
    with pytest.raises(
        InputError, match=r"has no landmarks on the way to the template, which training\.losses\.landmark"
    ):
        trainer("parts_cascade/tiny", tiny_corpus, tmp_path)
    quick = ("training.steps=2", "training.log_every=1")
    without = ("training.losses.landmark=0", "training.losses.consistency=0")
    trainer("parts_cascade/tiny", tiny_corpus, tmp_path, *quick, *without).train()
    assert "consistency" not in json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
