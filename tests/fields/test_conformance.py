"""Every registered field keeps the axioms, and the suite catches those who break one."""

import pytest
import torch

from implicit3dmm.config import load_config
from implicit3dmm.errors import InputError
from implicit3dmm.fields import (
    BlendConfig,
    ConditionedField,
    Field,
    FieldCheckError,
    ImHeadConfig,
    build_field,
    check_field,
    field_configs,
)
from implicit3dmm.latents import LatentSpec
from implicit3dmm.resources import config_folder
from implicit3dmm.training import RunConfig


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def tiny(name: str) -> Field:
    torch.manual_seed(0)
    return build_field(load_config(RunConfig, config_folder() / name / "tiny.yaml").field)


@pytest.mark.parametrize("name", sorted(field_configs()))
def test_every_registered_field_keeps_the_axioms(name):
    check_field(tiny(name), generator=generator())


def smallest_imhead(blend: BlendConfig) -> Field:
    torch.manual_seed(0)
    return build_field(
        ImHeadConfig(
            latent_dim=4,
            local_dim=2,
            octaves=1,
            local_width=8,
            local_layers=1,
            feature_dim=4,
            fusion_width=16,
            fusion_layers=1,
            landmark_width=4,
            blend=blend,
        )
    )


@pytest.mark.parametrize("neighbours", [0, 3, 38])
def test_imhead_keeps_the_axioms_whatever_the_number_of_neighbours(neighbours):
    check_field(smallest_imhead(BlendConfig(neighbours)), generator=generator(), points=16, shapes=2)


def test_the_field_itself_is_left_alone():
    field = tiny("imhead").eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in field.state_dict().items()}
    check_field(field, generator=generator())
    assert not field.training
    assert not any(parameter.requires_grad for parameter in field.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in field.state_dict().items())
    assert all(tensor.dtype == before[name].dtype for name, tensor in field.state_dict().items())


class Lumps(Field):
    """A ball with a lump on each side: the smallest field with parts, anchors and a mirror."""

    parts = ("right", "left")
    latent_specs = (LatentSpec("identity", 4, 0.5, "subject"),)

    def __init__(self):
        super().__init__()
        self.decompose = torch.nn.Linear(4, 2 * 3)
        self.place = torch.nn.Linear(3, 3)
        self.lump = torch.nn.Linear(3 + 3, 3)
        self.register_buffer("centres", torch.tensor([[-0.3, 0.1, 0.2], [0.3, 0.1, 0.2]]))
        self.register_buffer("flip", torch.tensor([[-1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]))

    conditioned: type["ConditionedLumps"]

    def condition(self, codes):
        embeddings = self.decompose(codes["identity"]).unflatten(-1, (2, 3))
        return self.conditioned(self, embeddings, self.centres + 0.1 * self.flip * self.place(embeddings))


class ConditionedLumps(ConditionedField):
    def __init__(self, model, embeddings, anchors):
        self.model, self.embeddings, self.anchors = model, embeddings, anchors

    def sdf(self, points):
        return self.length(points) - 0.4 + 0.1 * self.features(points).sum(-1)

    def sdf_dense(self, points):
        return self.sdf(points)

    def length(self, points):
        return (points.square().sum(-1) + 1e-4).sqrt()

    def part_weights(self, points):
        squared = (points[:, :, None] - self.anchors[:, None]).square().sum(-1)
        weights = torch.softmax(-squared / 0.1, dim=-1)
        return torch.arange(2, device=points.device).expand(weights.shape), weights

    def lumps(self, points):
        local = (
            self.model.flip * (points[:, :, None] - self.anchors[:, None]) / (1 + self.length(points)[..., None, None])
        )
        embeddings = self.embeddings[:, None].expand(*local.shape[:3], -1)
        return torch.tanh(self.model.lump(torch.cat([local, embeddings], dim=-1)))

    def features(self, points):
        return (self.part_weights(points)[1][..., None] * self.lumps(points)).sum(-2)

    def with_part(self, name, other):
        if name not in self.model.parts:
            raise InputError(f"no part {name!r}")
        taken = torch.tensor([[name == part] for part in self.model.parts])
        embeddings = torch.where(taken, other.embeddings, self.embeddings)
        return type(self)(self.model, embeddings, torch.where(taken, other.anchors, self.anchors))

    def towards(self, other, share):
        pairs = ((self.embeddings, other.embeddings), (self.anchors, other.anchors))
        return type(self)(self.model, *(torch.lerp(start, end, share) for start, end in pairs))

    def mirrored(self):
        flip = self.anchors.new_tensor([-1.0, 1.0, 1.0])
        return type(self)(self.model, self.embeddings.flip(1), flip * self.anchors.flip(1))


def lumps(conditioned: type = ConditionedLumps, field: type = Lumps) -> Field:
    torch.manual_seed(0)
    broken = field()
    broken.conditioned = conditioned
    return broken


def test_a_sound_field_of_a_third_party_passes():
    check_field(lumps(), generator=generator())


class ExtraDimension(ConditionedLumps):
    def sdf(self, points):
        return super().sdf(points)[..., None]


class LastPointOfTheChunk(ConditionedLumps):
    """As NPHM in eval mode, where a background value lands on the last point instead of the last network."""

    def sdf(self, points):
        sdf = super().sdf(points)
        return torch.cat([sdf[:, :-1], torch.ones_like(sdf[:, -1:])], dim=1)


class CentredOnTheChunk(ConditionedLumps):
    def sdf(self, points):
        sdf = super().sdf(points)
        return sdf + 0.01 * points.mean((1, 2), keepdim=True)[..., 0] if points.shape[1] else sdf


class ChangesItsInput(ConditionedLumps):
    def sdf(self, points):
        sdf = super().sdf(points)
        if not points.requires_grad:
            points[..., 0] += 1e-6
        return sdf


class TiledCodes(Lumps):
    """As MonoNPHM's appearance codes, which come apart when the batch has more than one element."""

    def condition(self, codes):
        tiled = codes["identity"].repeat(2, 1).unflatten(0, (-1, 2))[:, 0]
        return super().condition({"identity": tiled})


class SharedStatistics(Lumps):
    def condition(self, codes):
        return super().condition({"identity": codes["identity"] - codes["identity"].mean(0)})


class Dropout(Lumps):
    def condition(self, codes):
        conditioned = super().condition(codes)
        conditioned.embeddings = torch.nn.functional.dropout(conditioned.embeddings, 0.2, self.training)
        return conditioned


class OtherOutputInEval(ConditionedLumps):
    def sdf(self, points):
        return super().sdf(points) * (1.0 if self.model.training else 1.01)


class OtherOutputWithoutGradients(ConditionedLumps):
    def sdf(self, points):
        return super().sdf(points) + (0.0 if torch.is_grad_enabled() else 1e-5)


class CountsItsCalls(ConditionedLumps):
    def sdf(self, points):
        self.model.calls = getattr(self.model, "calls", 0) + 1
        return super().sdf(points) + 1e-3 * self.model.calls


class ReadsCodesLate(Lumps):
    def condition(self, codes):
        conditioned = super().condition(codes)
        first = conditioned.sdf
        conditioned.sdf = lambda points: first(points) + 0.01 * codes["identity"].sum(1)[:, None]
        return conditioned


class DetachedCodes(Lumps):
    def condition(self, codes):
        return super().condition({"identity": codes["identity"].detach()})


class SingularAtTheOrigin(ConditionedLumps):
    def length(self, points):
        return points.square().sum(-1).sqrt()


class DetachedWeights(ConditionedLumps):
    def part_weights(self, points):
        indices, weights = super().part_weights(points)
        return indices, weights.detach()


class _Square(torch.autograd.Function):
    """x^2, whose backward pass forgets that its own result depends on x."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values**2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2 * ctx.saved_tensors[0].detach()


class WrongSecondDerivative(ConditionedLumps):
    def length(self, points):
        return (_Square.apply(points).sum(-1) + 1e-4).sqrt()


class NearestPartAlone(ConditionedLumps):
    """One neighbour: the value jumps where the nearest anchor changes."""

    def part_weights(self, points):
        indices, weights = super().part_weights(points)
        return indices, torch.nn.functional.one_hot(weights.argmax(-1), 2).to(weights)


class JumpOfATenthOfAMillimetre(ConditionedLumps):
    def sdf(self, points):
        return super().sdf(points) + 5e-4 * (points[..., 0] > 0)


class DeadZone(ConditionedLumps):
    """As NPHM's normaliser: far from all anchors its small constant wins and the field dies away."""

    def sdf(self, points):
        squared = (points[:, :, None] - self.anchors[:, None]).square().sum(-1)
        weights = torch.exp(-squared / 0.1)
        return super().sdf(points) * weights.sum(-1) / (weights.sum(-1) + 1e-6)


class FinalTanh(ConditionedLumps):
    """As DeepSDF's last layer, which bounds the distance."""

    def sdf(self, points):
        return torch.tanh(super().sdf(points))


class NegativeFarAway(ConditionedLumps):
    def sdf(self, points):
        return super().sdf(points) - 2


class AnyPart(ConditionedLumps):
    def with_part(self, name, other):
        return super().with_part(name, other) if name in self.model.parts else self


class PartsOfTheWrongSide(ConditionedLumps):
    def with_part(self, name, other):
        return super().with_part(name, other.mirrored())


class NeverArrives(ConditionedLumps):
    def towards(self, other, share):
        return super().towards(other, 0.9 * share)


class WeightsOfNinetyPercent(ConditionedLumps):
    def part_weights(self, points):
        indices, weights = super().part_weights(points)
        return indices, 0.9 * weights


class GlobalCodeInTheParts(Lumps):
    """As NPHM's global code: a part of another shape brings the whole of that shape along."""

    def condition(self, codes):
        conditioned = super().condition(codes)
        conditioned.size = self.decompose(codes["identity"])[:, :1]
        return conditioned


class ConditionedOnSize(ConditionedLumps):
    """Sharp weights, so that parts have a territory, and a global size that `with_part` takes along."""

    size = 0.0

    def part_weights(self, points):
        side = ((points[..., 0] / 0.4).clamp(-1, 1) + 1) / 2
        smooth = side * side * side * (10 + side * (6 * side - 15))
        return super().part_weights(points)[0], torch.stack([1 - smooth, smooth], dim=-1)

    def sdf(self, points):
        return super().sdf(points) + 0.1 * self.size

    def with_part(self, name, other):
        edited = super().with_part(name, other)
        edited.size = other.size
        return edited


class SlightlyOtherTwin(ConditionedLumps):
    def sdf_dense(self, points):
        return self.sdf(points) + 1e-6


class TwinWithAnotherGradient(ConditionedLumps):
    def sdf_dense(self, points):
        return DetachedWeights(self.model, self.embeddings, self.anchors).sdf(points)


class TwinWithoutGradientToAnchors(ConditionedLumps):
    def sdf_dense(self, points):
        return ConditionedLumps(self.model, self.embeddings, self.anchors.detach()).sdf(points)


class UnmirroredInputs(ConditionedLumps):
    def lumps(self, points):
        return super().lumps(points) + 0.1 * points[..., None, :1]


class AnchorsStayInTheMirror(ConditionedLumps):
    def mirrored(self):
        return type(self)(self.model, self.embeddings.flip(1), self.anchors)


@pytest.mark.parametrize(
    ("axiom", "broken"),
    [
        ("interface: sdf is", lumps(ExtraDimension)),
        ("pointwise: values change when points come in chunks", lumps(LastPointOfTheChunk)),
        ("pointwise: values change when points come in chunks", lumps(CentredOnTheChunk)),
        ("interface: sdf changes the points", lumps(ChangesItsInput)),
        ("batch: values change with", lumps(field=TiledCodes)),
        ("batch: values change with the other shapes", lumps(field=SharedStatistics)),
        ("mode: a second call", lumps(field=Dropout)),
        ("mode: eval mode", lumps(OtherOutputInEval)),
        ("mode: other values where no gradients", lumps(OtherOutputWithoutGradients)),
        ("interface: sdf and sdf_and_gradient differ", lumps(CountsItsCalls)),
        ("condition: sdf reads the codes again", lumps(field=ReadsCodesLate)),
        ("condition: no gradient .* 'identity'", lumps(field=DetachedCodes)),
        ("finite: .* at the origin", lumps(SingularAtTheOrigin)),
        ("gradient: it differs", lumps(DetachedWeights)),
        ("second derivative: by points", lumps(WrongSecondDerivative)),
        ("continuity: the field jumps", lumps(NearestPartAlone)),
        ("continuity: the field jumps by 0.0005", lumps(JumpOfATenthOfAMillimetre)),
        ("exterior: slopes", lumps(DeadZone)),
        ("exterior: slopes", lumps(FinalTanh)),
        ("exterior: a distance of", lumps(NegativeFarAway)),
        ("parts: with_part takes a part that does not exist", lumps(AnyPart)),
        ("parts: the part 'right' taken from the field itself", lumps(PartsOfTheWrongSide)),
        ("between: an end of the way towards another is not the other", lumps(NeverArrives)),
        ("parts: weights do not add up", lumps(WeightsOfNinetyPercent)),
        ("parts: .* where it does not act", lumps(ConditionedOnSize, GlobalCodeInTheParts)),
        ("twin: .* in the value", lumps(SlightlyOtherTwin)),
        ("twin: .* in the gradient", lumps(TwinWithAnotherGradient)),
        ("twin: .* in the slope by", lumps(TwinWithoutGradientToAnchors)),
        ("mirror: mirrored features", lumps(UnmirroredInputs)),
        ("mirror: mirrored does not reflect", lumps(AnchorsStayInTheMirror)),
    ],
    ids=lambda value: f"{type(value).__name__}-{value.conditioned.__name__}" if isinstance(value, Field) else "",
)
def test_a_broken_field_is_caught_by_the_axiom_that_it_breaks(axiom, broken):
    with pytest.raises(FieldCheckError, match=f"^{axiom}"):
        check_field(broken, generator=generator())


@pytest.mark.parametrize("neighbours", [1, 2])
def test_a_blend_of_too_few_neighbours_is_refused_as_it_would_jump(neighbours):
    with pytest.raises(InputError, match="neighbours"):
        BlendConfig(neighbours=neighbours).validate()


def test_a_blend_of_one_neighbour_jumps():
    with pytest.raises(FieldCheckError, match=r"^continuity: the field jumps"):
        check_field(smallest_imhead(BlendConfig(neighbours=1)), generator=generator())


def test_a_blend_without_softening_has_no_gradient_at_its_anchors():
    with pytest.raises(FieldCheckError, match=r"^finite: .* at an anchor"):
        check_field(smallest_imhead(BlendConfig(softening=0.0)), generator=generator())
