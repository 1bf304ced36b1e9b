"""Trainings of warps: where codes start, what is held, which losses there are, and corpora that do not fit."""

import dataclasses
import json

import pytest
import torch

from implicit3dmm.config import load_config
from implicit3dmm.data.building import build_corpus
from implicit3dmm.data.corpora import Corpora
from implicit3dmm.data.corpus import Corpus
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.errors import InputError
from implicit3dmm.fields import DeepSDFConfig, ExpressionWarpConfig
from implicit3dmm.latents import EXPRESSION
from implicit3dmm.models import load_model
from implicit3dmm.resources import config_folder
from implicit3dmm.training import LossWeights, RunConfig, Trainer, TrainingConfig

SMALL = TrainingConfig(
    steps=4,
    shapes=4,
    surface_points=16,
    distance_points=32,
    gradient_points=8,
    warmup=2,
    checkpoint_every=2,
    log_every=2,
)
RECIPE = Recipe(
    seed=9, train=2, expressions=("neutral", "mouth_open", "smile"), moving_share=0.5, surface_points=4096,
    distance_points=256,
)  # fmt: skip
TINY = load_config(RunConfig, config_folder() / "expression_warp" / "tiny.yaml").field


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return build_corpus(RECIPE, tmp_path_factory.mktemp("expressive") / "corpus")


@pytest.fixture(scope="module")
def neutral_model(corpus, tmp_path_factory):
    """A model of neutral heads of a few steps, as a weights file."""
    folder = tmp_path_factory.mktemp("neutral")
    field = dataclasses.replace(TINY.identity, ambient=0)
    Trainer(RunConfig(field, SMALL), corpus, folder).train()
    return folder / "model.safetensors"


def run(corpus, folder, field=TINY, start=None, **changes):
    settings = dataclasses.replace(SMALL, **changes)
    trainer = Trainer(RunConfig(field, settings, None if start is None else str(start)), corpus, folder)
    trainer.train()
    return trainer


def test_samples_carry_their_place_on_the_neutral_head(corpus):
    generator = torch.Generator().manual_seed(0)
    samples = corpus.samples(torch.tensor([0, 1]), (4000, 8), generator)
    assert torch.equal(samples.neutral[0], samples.surface[0])
    moved = (samples.neutral[1] - samples.surface[1]).norm(dim=-1)
    assert moved.max() > 0.05
    head = corpus.head(1)
    nearest = torch.cdist(samples.neutral[1, :50], torch.from_numpy(head.neutral).float()).min(dim=1).values
    assert nearest.max() < 0.03
    assert corpus.neutral.tolist() == [True, False, False] * 2


def test_anchors_are_those_of_the_neutral_head(corpus):
    assert torch.equal(corpus.anchors[0], corpus.anchors[1])
    assert not torch.equal(corpus.landmarks[0], corpus.landmarks[1])


def test_units_are_read_by_name_and_ones_that_the_field_lacks_are_refused(corpus, tmp_path):
    weights = corpus.units(("mouthSmileLeft", "nothing", "jawOpen", "mouthSmileRight"))
    assert weights[0].eq(0).all()
    assert weights[1, 2] > 0.5
    assert weights[1, [0, 1, 3]].eq(0).all()
    assert weights[2, 0] > 0.5
    assert torch.equal(Corpora([corpus]).units(("jawOpen", "mouthSmileLeft", "mouthSmileRight"))[:, 0], weights[:, 2])
    with pytest.raises(InputError, match="moves the units mouthSmileLeft, mouthSmileRight, which the field's config"):
        run(corpus, tmp_path, dataclasses.replace(TINY, units=("jawOpen",)))


def test_a_trained_warp_says_what_its_units_are_and_its_prior_lies_about_neutral(corpus, tmp_path):
    run(corpus, tmp_path)
    model = load_model(tmp_path / "model.safetensors")
    assert model.field.config.units == TINY.units
    assert not model.prior.mean()[EXPRESSION].any()
    drawn = model.prior.sample(2, generator=torch.Generator().manual_seed(0))
    assert not drawn[EXPRESSION].any()
    assert model.prior.sample(2, expressions=1.0, generator=torch.Generator().manual_seed(0))[EXPRESSION].any()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"correspondence", "surface", "landmark"} <= rows[-1].keys()


def test_a_free_code_is_learnt_and_zero_for_neutral_records(corpus, tmp_path):
    trainer = run(corpus, tmp_path, dataclasses.replace(TINY, units=(), free_dim=3))
    bank = trainer.objective.bank
    assert EXPRESSION in bank.tables
    codes = bank.codes(torch.tensor([0, 1]))[EXPRESSION]
    assert not codes[0].any()
    assert codes[1].any()
    load_model(tmp_path / "model.safetensors")


def test_identity_first_leaves_the_neutral_field_and_its_codes_alone(corpus, neutral_model, tmp_path):
    no_shape = LossWeights(distance=0, surface=0, normal=0, eikonal=0)
    trainer = run(corpus, tmp_path, start=neutral_model, identity="held", code_start="fit", losses=no_shape, workers=2)
    before = load_model(neutral_model)
    after = load_model(tmp_path / "model.safetensors")
    bare = after.field.identity.state_dict()
    for name, weight in before.field.state_dict().items():
        if name not in ("local.weights.0", "fusion.point.weight"):
            assert torch.equal(weight, bare[name]), name
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert "surface" not in rows[-1]
    assert "gate" not in after.info
    codes = trainer.objective.bank.tables["identity"].detach()
    assert not torch.equal(codes[0], codes[1])
    assert trainer.objective.field.warp.out.weight.grad is not None


def test_fits_of_neutral_heads_are_better_starts_than_the_mean_code(corpus, neutral_model, tmp_path):
    def first_loss(name, **changes):
        run(corpus, tmp_path / name, start=neutral_model, steps=1, log_every=1, **changes)
        row = json.loads((tmp_path / name / "metrics.jsonl").read_text())
        return row["surface"]

    assert first_loss("fit", code_start="fit") < first_loss("mean")


@pytest.mark.parametrize(
    ("field", "changes", "message"),
    [
        (TINY, {"identity": "held"}, "training.identity is 'held' without a model to start from"),
        (TINY, {"code_start": "fit"}, "training.code_start is 'fit' without a model to start from"),
    ],
)
def test_starts_that_need_a_model_say_so(corpus, tmp_path, field, changes, message):
    with pytest.raises(InputError, match=message):
        run(corpus, tmp_path, field, **changes)


def test_only_a_warp_has_an_identity_to_hold(corpus, tmp_path):
    plain = DeepSDFConfig(8, 24, 3)
    run(corpus, tmp_path / "plain", plain)
    with pytest.raises(InputError, match="DeepSDF has no neutral field inside"):
        run(corpus, tmp_path / "held", plain, tmp_path / "plain" / "model.safetensors", identity="held")


def test_a_subject_without_a_neutral_record_cannot_be_fitted_first(neutral_model, tmp_path):
    moved = build_corpus(dataclasses.replace(RECIPE, expressions=("smile",)), tmp_path / "corpus")
    with pytest.raises(InputError, match="subject 0 of corpus has no neutral record to fit"):
        run(moved, tmp_path / "run", start=neutral_model, code_start="fit")


def test_a_warp_cannot_warp_a_warp():
    with pytest.raises(InputError, match="expression_warp"):
        load_config(
            RunConfig, config_folder() / "expression_warp" / "tiny.yaml", ["field.identity.name=expression_warp"]
        )
    assert isinstance(TINY, ExpressionWarpConfig)
