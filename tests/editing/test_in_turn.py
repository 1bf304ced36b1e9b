"""Parts that go one after the other, of a cascade and of imHead."""

import json

import numpy as np
import pytest
import torch

from implicit3dmm.config import load_config
from implicit3dmm.editing import interpolate_in_turn, sample_part, swap_parts
from implicit3dmm.editing.files import save_edits
from implicit3dmm.editing.heads import EditableHead
from implicit3dmm.errors import InputError
from implicit3dmm.fields import build_field
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.latents import Gaussian, LatentPrior
from implicit3dmm.models import HeadModel, load_head, save_head
from implicit3dmm.resources import config_folder
from implicit3dmm.training import RunConfig

PARTS = ("eyes", "rem", "nose")


@pytest.fixture(scope="module")
def model() -> HeadModel:
    torch.manual_seed(0)
    field = build_field(load_config(RunConfig, config_folder() / "parts_cascade/tiny.yaml").field)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    parts = {s.name: Gaussian(torch.zeros(s.dim), torch.eye(s.dim), torch.ones(s.dim)) for s in field.latent_specs}
    return HeadModel(field.requires_grad_(False), LatentPrior(parts), {"name": "cascade"})


@pytest.fixture(scope="module")
def heads(model):
    return [model.condition(model.prior.sample(1, generator=torch.Generator().manual_seed(k))) for k in (1, 2)]


def test_each_part_goes_all_the_way_before_the_next(heads):
    head, donor = heads
    steps = list(interpolate_in_turn(head, donor, PARTS, (0.5, 1.0)))
    assert [(step.part, step.share) for step in steps] == [(part, share) for part in PARTS for share in (0.5, 1.0)]
    assert [step.since for step in steps] == [-1, -1, 1, 1, 3, 3]
    half = torch.lerp(head.codes["rem"], donor.codes["rem"], 0.5)
    torch.testing.assert_close(steps[2].field.codes["rem"], half)
    for number, done in ((1, PARTS[:1]), (3, PARTS[:2]), (5, PARTS)):
        whole = swap_parts(head, donor, done)
        for name, code in steps[number].field.codes.items():
            torch.testing.assert_close(code, whole.codes[name])


def test_a_part_has_its_turn_once(heads):
    with pytest.raises(InputError, match="parts nose, eyes, nose given; each has its turn once; name each once"):
        list(interpolate_in_turn(*heads, ("nose", "eyes", "nose"), (1.0,)))


def test_displacements_count_from_where_the_part_began(model, heads, tmp_path):
    head, donor = heads
    before = EditableHead(head, Similarity.identity(), 200.0)
    fields = [step.field for step in interpolate_in_turn(head, donor, ("nose", "mouth"), (0.0, 1.0))]
    report = save_edits(tmp_path / "out", model, before, fields, since=[-1, -1, 1, 1], about={}, resolution=40)
    moved = [entry["most_mm"] for entry in report["edits"]]
    assert max(moved[0], moved[2]) < 1e-2 < min(moved[1], moved[3])
    assert json.loads((tmp_path / "out/report.json").read_text())["edits"] == report["edits"]


def test_an_edited_cascade_is_kept_as_its_codes(model, heads, tmp_path):
    edited = heads[0].with_part("mouth", heads[1])
    save_head(tmp_path / "edited.safetensors", edited, model=model.name)
    again = load_head(tmp_path / "edited.safetensors", model)
    points = torch.rand(1, 9, 3) - 0.5
    torch.testing.assert_close(again.sdf(points), edited.sdf(points))


@pytest.mark.parametrize("given", ["neighbours", "nothing"])
def test_a_part_of_a_cascade_is_drawn_from_its_prior(model, heads, given):
    generator = torch.Generator().manual_seed(0)
    drawn = list(sample_part(model, heads[0], "nose", 200, given=given, generator=generator))
    noses = torch.cat([field.codes["nose"] for field in drawn])
    np.testing.assert_allclose(noses.std(0), 1, atol=0.2)
    assert all(torch.equal(field.codes["rem"], heads[0].codes["rem"]) for field in drawn)
