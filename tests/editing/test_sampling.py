"""New parts: what they leave alone, and what they are drawn under."""

import pytest
import torch

from implicit3dmm.editing import sample_part
from implicit3dmm.editing.sampling import _around
from implicit3dmm.errors import InputError
from implicit3dmm.fields import DeepSDFConfig, ImHeadConfig, build_field
from implicit3dmm.heads.template import ANCHORS, anchor_group
from implicit3dmm.latents import Gaussian, LatentPrior
from implicit3dmm.models import HeadModel


def draw(model, head, part, count, *, seed=0, **options):
    drawn = list(sample_part(model, head, part, count, generator=torch.Generator().manual_seed(seed), **options))
    return torch.cat([each.embeddings for each in drawn]), torch.cat([each.anchors for each in drawn])


def untrained(config) -> HeadModel:
    """A fresh field whose codes are standard normal."""
    torch.manual_seed(0)
    field = build_field(config)
    normal = {spec.name: Gaussian(torch.zeros(spec.dim), torch.eye(spec.dim), torch.ones(spec.dim))
              for spec in field.latent_specs}  # fmt: skip
    return HeadModel(field.requires_grad_(False), LatentPrior(normal), {"name": "untrained"})


@pytest.mark.parametrize("given", ["neighbours", "nothing"])
@pytest.mark.parametrize("part", ["nose", "ears_L"])
def test_only_the_part_changes_and_equal_seeds_give_equal_parts(model, people, part, given):
    own = list(anchor_group(part))
    others = [k for k in range(len(ANCHORS)) if k not in own]
    embeddings, anchors = draw(model, people[0], part, 3, given=given)
    assert torch.equal(embeddings[:, others], people[0].embeddings[:, others].expand(3, -1, -1))
    assert torch.equal(anchors[:, others], people[0].anchors[:, others].expand(3, -1, -1))
    assert (embeddings[:, own] != people[0].embeddings[:, own]).all()
    assert torch.equal(embeddings, draw(model, people[0], part, 3, given=given)[0])
    assert not torch.equal(embeddings, draw(model, people[0], part, 3, given=given, seed=1)[0])


def test_drawn_without_more_a_part_has_the_statistics_of_its_kind(model, people):
    own = list(anchor_group("nose"))
    embeddings, _ = draw(model, people[0], "nose", 600, given="nothing")
    codes = model.prior.sample(600, generator=torch.Generator().manual_seed(9))
    expected = model.condition(codes).embeddings[:, own]
    spread = expected.std(0)
    assert ((embeddings[:, own].mean(0) - expected.mean(0)).abs() < 0.3 * spread).all()
    ratio = embeddings[:, own].std(0) / spread
    assert ((ratio > 0.8) & (ratio < 1.25)).all()


def test_a_part_that_goes_with_its_neighbours_is_nearer_to_the_one_that_did(model, people):
    own = list(anchor_group("nose"))

    def away(given):
        embeddings, _ = draw(model, people[0], "nose", 60, given=given)
        return (embeddings[:, own] - people[0].embeddings[:, own]).norm(dim=(1, 2)).mean()

    assert away("neighbours") < 0.8 * away("nothing")


def test_without_a_temperature_every_draw_is_the_likeliest_part(model, people):
    embeddings, _ = draw(model, people[0], "mouth", 2, temperature=0.0)
    assert torch.equal(embeddings[0], embeddings[1])
    mean = model.condition(model.prior.mean()).embeddings
    own = list(anchor_group("mouth"))
    assert torch.allclose(draw(model, people[0], "mouth", 1, temperature=0.0, given="nothing")[0][:, own], mean[:, own])


def test_the_conditional_mean_and_spread_are_those_of_the_joint_normal_distribution():
    """By the other route: regression on the neighbours with the noise that the tolerance stands for."""
    model = untrained(ImHeadConfig(latent_dim=6, local_dim=3, octaves=2, local_width=8, local_layers=1,
                                   feature_dim=4, fusion_width=8, fusion_layers=1, landmark_width=8))  # fmt: skip
    head = model.condition({"identity": torch.randn(1, 6, generator=torch.Generator().manual_seed(1))})
    own, around = list(anchor_group("nose")), _around(head, "nose")
    embeddings, _ = draw(model, head, "nose", 4000)
    weight, bias = (t.double() for t in (model.field.decompose.weight, model.field.decompose.bias))
    maps, offsets = weight.unflatten(0, (39, 3)), bias.unflatten(0, (39, 3))
    seen, wanted = maps[around].flatten(0, 1), maps[own].flatten(0, 1)
    covariance = seen @ seen.T + torch.diag(seen.square().sum(1))
    gain = wanted @ seen.T @ torch.linalg.inv(covariance)
    known = (head.embeddings[0, around].double() - offsets[around]).flatten()
    mean = gain @ known + offsets[own].flatten()
    spread = (wanted @ wanted.T - gain @ seen @ wanted.T).diagonal().sqrt()
    found = embeddings[:, own].flatten(1).double()
    assert ((found.mean(0) - mean).abs() < 5 * spread / 4000**0.5).all()
    assert torch.allclose(found.std(0), spread, rtol=0.08)


def test_what_cannot_be_drawn_is_refused(model, people):
    with pytest.raises(InputError, match="no part 'hair'; its parts are nose, mouth"):
        draw(model, people[0], "hair", 1)
    plain = untrained(DeepSDFConfig(4, 16, 3))
    with pytest.raises(InputError, match="has no part"):
        draw(plain, plain.condition(plain.prior.mean()), "nose", 1)
