"""Expressions put on heads: by name, from another head, and what is refused."""

import pytest
import torch

from implicit3dmm.data.sources import expression_weights
from implicit3dmm.editing import named_expression, transfer_expression
from implicit3dmm.errors import InputError
from implicit3dmm.latents import EXPRESSION
from implicit3dmm.models import load_head, load_model, save_head


def test_a_named_expression_is_that_of_the_source(model, makehuman):
    code = named_expression(model, {"smile_open": 1.0})
    known = dict(zip(makehuman.unit_names, expression_weights(makehuman, "smile_open", None), strict=True))
    assert code[0].tolist() == pytest.approx([known[unit] for unit in model.field.config.units])


def test_weights_of_units_and_expressions_add_up(model):
    units = model.field.config.units
    code = named_expression(model, {"mouth_open": 0.5, "jawOpen": 0.2})
    assert float(code[0, units.index("jawOpen")]) == pytest.approx(0.5 * 0.8 + 0.2)
    assert code.count_nonzero() == 1
    assert not named_expression(model, {}).any()


def test_an_unknown_name_lists_the_right_ones(model):
    with pytest.raises(InputError, match=r"imhead has no expression 'grin'; there are neutral, smile, .*jawOpen"):
        named_expression(model, {"grin": 1.0})


def test_an_expression_replaces_that_of_the_head_or_is_added(people, model):
    smile, surprise = (named_expression(model, {name: 1.0}) for name in ("smile", "surprise"))
    head, donor = people[0].with_expression(smile), people[1].with_expression(surprise)
    assert torch.equal(transfer_expression(head, donor).expression, surprise)
    assert torch.equal(transfer_expression(head, donor, how="add").expression, smile + surprise)
    assert torch.equal(transfer_expression(head, donor).embeddings, head.embeddings)


def test_models_without_expressions_say_so(people):
    neutral = load_model("imhead-neutral")
    with pytest.raises(InputError, match="imhead-neutral has no expressions; use a model with a warp"):
        named_expression(neutral, {"smile": 1.0})
    head = neutral.condition(neutral.prior.mean())
    with pytest.raises(InputError, match="has no expressions"):
        transfer_expression(head, people[0])


def test_an_edited_head_keeps_its_expression_on_disk(people, model, tmp_path):
    head = people[0].with_part("nose", people[1]).with_expression(named_expression(model, {"smile": 1.0}))
    save_head(tmp_path / "head.safetensors", head, model=model.name)
    again = load_head(tmp_path / "head.safetensors", model)
    points = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(0)) * 0.4
    assert torch.equal(again.sdf(points), head.sdf(points))
    assert torch.equal(again.expression, head.expression)


def test_a_smile_moves_the_mouth_and_not_the_ears(people, model, template):
    code = named_expression(model, {"smile": 1.0})
    places = torch.from_numpy(template.vertices[template.landmarks]).float()[None]
    moved = (people[0].with_expression(code).to_canonical(places) - places).norm(dim=-1)[0] * 200
    mouth, jaw_by_the_ear = moved[48:60].mean(), moved[[0, 16]].mean()
    assert mouth > 3
    assert jaw_by_the_ear < 0.5


def test_codes_of_the_prior_have_both_names(model):
    assert set(model.prior.mean()) == {"identity", EXPRESSION}
