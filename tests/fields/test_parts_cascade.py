"""The parts cascade: what passes through it, what its parts depend on, and its derivatives."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from implicit3dmm.errors import InputError
from implicit3dmm.fields import Field, PartsCascadeConfig, build_field, check_field
from implicit3dmm.fields.parts_cascade import screw
from implicit3dmm.heads.template import ALL_PARTS, ANCHORS, REMAINDER

SMALL = dict(
    parts={"nose": 3, "eyes": 3, "mouth": 3, "rem": 4}, width=16, layers=3, gate_width=8, hyper_width=8,
    landmark_width=8,
)  # fmt: skip


def cascade(**settings) -> Field:
    """A cascade whose weights have all been moved."""
    torch.manual_seed(0)
    field = build_field(PartsCascadeConfig(**(SMALL | settings)))
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return field


def codes_of(field: Field, count: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {spec.name: torch.randn(count, spec.dim, generator=generator) for spec in field.latent_specs}


def somewhere(count: int = 2, points: int = 7) -> torch.Tensor:
    return torch.rand(count, points, 3, generator=torch.Generator().manual_seed(2)) - 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 0},
        {"rank": 4, "motion": "se3"},
        {"rank": 4, "parts": {"identity": 5}},
        {"rank": 4, "landmarks": "five", "parts": {"eyes": 3, "rem": 4, "mouth": 3, "nose": 3}},
    ],
)
def test_every_form_keeps_the_axioms(settings):
    check_field(cascade(**settings), generator=torch.Generator().manual_seed(0), points=12, shapes=2)


def test_points_pass_through_the_parts_in_their_order_and_the_template_has_the_distance():
    field = cascade(parts={"mouth": 3, "rem": 4, "nose": 3})
    conditioned, points = field.condition(codes_of(field)), somewhere()
    places, correction = points, 0
    for name, (made, centres) in conditioned.told.items():
        stage = field.stages[name]
        outputs = stage.net(places, stage.net.folded(made, centres))
        places = places + outputs[..., :3]
        if name == "rem":
            correction = outputs[..., 3]
        torch.testing.assert_close(conditioned.passed(points)[name], places)
    assert list(conditioned.told) == ["mouth", "rem", "nose"]
    template = field.template(places, field.template.folded(field.template_landmarks.expand(2, -1, -1)))
    torch.testing.assert_close(conditioned.sdf(points), field.ball(places, template) + correction)


def test_the_remainder_alone_places_the_other_parts():
    field = cascade()
    codes = codes_of(field)
    before = field.condition(codes).landmarks
    after = field.condition(codes | {"mouth": codes["mouth"] + 1}).landmarks
    assert not torch.equal(before["mouth"], after["mouth"])
    assert all(torch.equal(before[name], after[name]) for name in ("nose", "eyes", "rem"))
    after = field.condition(codes | {"rem": codes["rem"] + 1}).landmarks
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_a_part_of_another_head_is_its_code():
    field = cascade()
    codes = codes_of(field)
    one, other = (field.condition({name: code[i : i + 1] for name, code in codes.items()}) for i in (0, 1))
    points = somewhere(1)
    mixed = {name: code[int(name == "eyes") :][:1] for name, code in codes.items()}
    torch.testing.assert_close(one.with_part("eyes", other).sdf(points), field.condition(mixed).sdf(points))
    with pytest.raises(InputError, match="no part 'ears'; its parts are nose, eyes, mouth, rem"):
        one.with_part("ears", other)


@pytest.mark.parametrize("parts", [SMALL["parts"], {"rem": 4, "nose": 3}, {"identity": 5}])
def test_errors_are_the_distances_to_what_is_known_of_each_stage(parts):
    field = cascade(parts=parts)
    conditioned = field.condition(codes_of(field))
    count = len(ANCHORS) + 4
    labels = torch.arange(count).remainder(4).expand(2, -1)
    generator = torch.Generator().manual_seed(5)
    places = torch.rand(2, 2, 2, count, 3, generator=generator) - 0.5
    passed, done, expected = conditioned.passed(places[:, 0, 0]), set(), []
    for name in parts:
        done.add(name)
        stated = []
        for k in range(count):
            own = "identity" in done or ALL_PARTS[k % 4] in done
            rest = "identity" in done or REMAINDER in done
            stated.append(places[:, int(own), int(rest), k])
        expected.append((passed[name] - torch.stack(stated, dim=1)).norm(dim=-1))
    errors = conditioned.stage_errors(places, labels)
    torch.testing.assert_close(errors.consistency, torch.stack(expected, dim=1), atol=2e-6, rtol=1e-4)
    points = places[:, 0, 0]
    ends = passed[list(parts)[-1]]
    template = field.ball(ends, field.template(ends, field.template.folded(field.template_landmarks.expand(2, -1, -1))))
    torch.testing.assert_close(errors.correction, (conditioned.sdf(points) - template).abs(), atol=2e-6, rtol=1e-4)


def test_generated_landmarks_are_compared_on_the_shape_that_their_stage_gets():
    field = cascade(parts={"rem": 4, "nose": 3})
    conditioned = field.condition(codes_of(field))
    places = torch.zeros(2, 2, 2, len(ANCHORS), 3)
    places[:, 0, 0][:, field.stages["rem"].anchors] = conditioned.landmarks["rem"]
    places[:, 0, 1][:, field.stages["nose"].anchors] = conditioned.landmarks["nose"]
    noses = torch.full((2, len(ANCHORS)), ALL_PARTS.index("nose"))
    errors = conditioned.stage_errors(places, noses)
    torch.testing.assert_close(errors.landmark, torch.zeros_like(errors.landmark), atol=2e-6, rtol=0)


def test_a_screw_motion_turns_about_the_origin_and_shifts():
    turn, shift = torch.tensor([0.3, -0.5, 0.2]).double(), torch.tensor([0.1, 0.2, -0.3]).double()
    points = somewhere().double()
    turned = screw(points, turn.expand_as(points), torch.zeros_like(points))
    rotation = Rotation.from_rotvec(turn.numpy()).as_matrix()
    np.testing.assert_allclose(turned, points.numpy() @ rotation.T, atol=1e-7)
    still = screw(points, torch.zeros_like(points), shift.expand_as(points))
    torch.testing.assert_close(still, points + shift)


def test_a_screw_motion_is_the_flow_of_its_velocity():
    turn, shift = torch.tensor([0.3, -0.5, 0.2]).double(), torch.tensor([0.1, 0.2, -0.3]).double()
    points = somewhere(1, 3).double()
    whole = screw(points, turn.expand_as(points), shift.expand_as(points))
    for _ in range(4):
        points = screw(points, (turn / 4).expand_as(points), (shift / 4).expand_as(points))
    torch.testing.assert_close(points, whole, atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": {}}, "parts is {}"),
        ({"parts": {"nose": 0}}, "give a code size of at least 1"),
        ({"parts": {"nose": 3, "ears": 3}}, "give several of nose, eyes, mouth, rem, or one of any name"),
        ({"layers": 1}, "layers is 1"),
        ({"rank": -1}, "rank is -1"),
        ({"width": 0}, "width is 0"),
        ({"exterior_radius": 0.0}, "exterior_radius is 0.0"),
    ],
)
def test_bad_sizes_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        PartsCascadeConfig(**settings).validate()
