"""The parts cascade (Gu and Pears, "Parts-Based Implicit 3D Face Modeling"): part by part to one template.

Each part of the head has a code and a deformation. A point passes through all of them, in each relative to the part's
landmarks: one takes the nose to the template's nose, the next the eyes to its eyes, and so on, until the remainder is
the template's too; a last network knows the template's signed distance, and the remainder's adds a correction (Eqn 6
of the paper, with local fields, Eqn 7). With a single part for the whole identity it is ImFace's identity field (Zheng
et al. 2022). Expressions come by `expression_warp`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit3dmm.errors import InputError
from implicit3dmm.fields.base import ConditionedField, Field, Frames, Jacobian, StageErrors, register_field
from implicit3dmm.fields.layers import BallOffset, ExteriorBall
from implicit3dmm.fields.siren import HyperSiren, LocalSiren, ModulatedSiren, PlainSiren
from implicit3dmm.heads.template import ALL_PARTS, ANCHORS, REMAINDER, average_anchors
from implicit3dmm.latents import Codes, LatentSpec

LANDMARKS = {
    "nose": ("nasion", "nose_tip", "nose_ala_R", "nose_ala_L", "glabella"),
    "eyes": ("eye_inner_R", "eye_inner_L", "eye_outer_R", "eye_outer_L", "nasion"),
    "mouth": ("mouth_corner_R", "mouth_corner_L", "upper_lip", "lower_lip", "chin"),
    "rem": ("chin", "ear_R", "ear_L", "occiput_R", "crown_L"),
}
"""The anchors that the local fields of each part lie around."""

FIVE = ("eye_outer_R", "eye_outer_L", "nose_tip", "mouth_corner_R", "mouth_corner_L")
"""ImFace's landmarks of the whole face, which any other part has, and the template."""


@dataclass(frozen=True)
class PartsCascadeConfig:
    """Parts, their order, and the networks' sizes; the defaults are the paper's where it gives them."""

    parts: dict[str, int] = field(default_factory=lambda: {"nose": 48, "eyes": 48, "mouth": 48, "rem": 112})
    """Size of each part's code, in the order in which points pass through their deformations: any of nose, eyes, mouth
    and rem, or one part of another name, which is the whole head."""
    landmarks: Literal["parts", "five"] = "parts"
    """Each part's own landmarks, or the same five for all (the paper's Tables 3 and 4)."""
    motion: Literal["translation", "se3"] = "translation"
    """What a deformation gives at a point: a shift, or a screw motion (ImFace)."""
    width: int = 128
    """Width of the deformations and of the template's network."""
    layers: int = 5
    """Their linear layers."""
    gate_width: int = 64
    """Width of the networks that blend local fields; the paper does not give it."""
    hyper_width: int = 128
    """Width of the hyper-networks' hidden layer; the paper does not give it."""
    rank: int = 0
    """0: the hyper-networks make all weights (the paper). Above: they change shared weights by this rank."""
    landmark_width: int = 128
    """Width of the landmark generators' hidden layer; the paper does not give it."""
    exterior_radius: float = 1.0
    """Radius of the ball, canonical units, outside which the distance is extended explicitly."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if not self.parts or min(self.parts.values()) < 1:
            raise InputError(f"parts is {self.parts}; give a code size of at least 1 for one part or more")
        if len(self.parts) > 1 and not set(self.parts) <= set(ALL_PARTS):
            raise InputError(f"parts is {self.parts}; give several of {', '.join(ALL_PARTS)}, or one of any name")
        for name in ("width", "gate_width", "hyper_width", "landmark_width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.layers < 2:
            raise InputError(f"layers is {self.layers}; expected at least 2")
        if self.rank < 0:
            raise InputError(f"rank is {self.rank}; expected at least 0")
        if self.exterior_radius <= 0:
            raise InputError(f"exterior_radius is {self.exterior_radius}; expected above 0, canonical units")

    @property
    def corrected(self) -> str:
        """The part whose deformation also corrects the distance: the remainder, or the last where there is none."""
        return REMAINDER if REMAINDER in self.parts else list(self.parts)[-1]


@register_field("parts_cascade", PartsCascadeConfig)
class PartsCascade(Field):
    """The cascade; its codes are those of its parts."""

    staged = True

    def __init__(self, config: PartsCascadeConfig):
        super().__init__()
        self.config = config
        self.latent_specs = tuple(
            LatentSpec(name, dim, 0.01, "subject", part=name if len(config.parts) > 1 else "")
            for name, dim in config.parts.items()
        )
        self.parts = tuple(config.parts) if len(config.parts) > 1 else ()
        self.exterior = ExteriorBall(config.exterior_radius)
        self.stages = nn.ModuleDict({name: Stage(config, name) for name in config.parts})
        self.template = PlainSiren(len(FIVE), 1, width=config.width, layers=config.layers, gate_width=config.gate_width)
        self.ball = BallOffset()
        self.register_buffer("template_landmarks", _places(FIVE), persistent=False)

    def condition(self, codes: Codes) -> "ConditionedPartsCascade":
        """Runs landmark generators and hyper-networks."""
        told = {}
        for name, stage in self.stages.items():
            centres = stage.centres(self._placing(name, codes))
            told[name] = (stage.net.modulations(codes[name]), centres)
        return ConditionedPartsCascade(self, codes, told)

    def jacobian(self, codes: Codes, points: Float[Tensor, "n 3"]) -> Jacobian:
        """As in `Field`, with one backward pass: every point has its own modulations, whose derivatives are known."""
        if not self.config.rank:
            return super().jacobian(codes, points)
        with torch.no_grad():
            shared = self.condition(codes).told
        with torch.enable_grad():
            places = points.detach()[:, None].requires_grad_()
            own = {
                name: tuple(part.expand(len(points), *part.shape[1:]).clone().requires_grad_() for part in parts)
                for name, parts in shared.items()
            }
            sdf = ConditionedPartsCascade(self, codes, own, thin=True).sdf(places)[:, 0]
            wanted = [part for parts in own.values() for part in parts]
            *by_told, by_points = torch.autograd.grad(sdf.sum(), [*wanted, places])
        with torch.no_grad():
            by_codes = {name: torch.zeros(len(points), codes[name].shape[1]).to(points) for name in self.stages}
            for number, name in enumerate(self.stages):
                by_modulations, by_centres = by_told[2 * number : 2 * number + 2]
                for code, rows in self._derivatives(name, codes).items():
                    by_codes[code] += torch.cat([by_modulations, by_centres.flatten(1)], dim=1) @ rows
        return Jacobian(sdf.detach(), by_codes, by_points[:, 0])

    def _placing(self, name: str, codes: Codes) -> Float[Tensor, "b d"]:
        """What a part's landmarks are generated from."""
        return torch.cat([codes[each] for each in _placed_by(name, self.config)], dim=-1)

    def _derivatives(self, name: str, codes: Codes) -> Codes:
        """Derivatives of a stage's modulations and landmarks by each code that they read, a row for each number."""
        stage = self.stages[name]
        reads = _placed_by(name, self.config)

        def told(own: Sequence[Tensor]) -> Tensor:
            given = dict(zip(reads, own, strict=True))
            centres = stage.centres(self._placing(name, given))
            return torch.cat([stage.net.modulations(given[name]), centres.flatten(1)], dim=1)[0]

        rows = torch.autograd.functional.jacobian(
            lambda *own: told(own), tuple(codes[each].detach() for each in reads), vectorize=True
        )
        return {each: part[:, 0] for each, part in zip(reads, rows, strict=True)}


class Stage(nn.Module):
    """One deformation: a local SIREN around a part's landmarks, and what generates these."""

    def __init__(self, config: PartsCascadeConfig, name: str):
        super().__init__()
        self.motion = config.motion
        self.corrects = name == config.corrected
        landmarks = LANDMARKS.get(name, FIVE) if config.landmarks == "parts" else FIVE
        self.anchors = [ANCHORS.index(anchor) for anchor in landmarks]
        outputs = (3 if config.motion == "translation" else 6) + self.corrects
        sizes = {"width": config.width, "layers": config.layers, "gate_width": config.gate_width}
        own = {"hyper_width": config.hyper_width} | ({"rank": config.rank} if config.rank else {})
        kind = ModulatedSiren if config.rank else HyperSiren
        self.net: LocalSiren = kind(config.parts[name], len(landmarks), outputs, **sizes, **own)
        reads = sum(config.parts[each] for each in _placed_by(name, config))
        last = nn.Linear(config.landmark_width, 3 * len(landmarks))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.generator = nn.Sequential(nn.Linear(reads, config.landmark_width), nn.LeakyReLU(), last)
        self.register_buffer("mean_landmarks", _places(landmarks), persistent=False)

    def centres(self, placing: Float[Tensor, "b d"]) -> Float[Tensor, "b l 3"]:
        """The part's landmarks on each shape, canonical units."""
        return self.mean_landmarks + self.generator(placing).unflatten(-1, (-1, 3))

    def moved(
        self, points: Float[Tensor, "b n 3"], outputs: Float[Tensor, "b n o"]
    ) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n"] | None]:
        """Where the network's outputs take the points, and the correction of the distance where it has one."""
        correction = outputs[..., -1] if self.corrects else None
        if self.motion == "translation":
            return points + outputs[..., :3], correction
        return screw(points, outputs[..., :3], outputs[..., 3:6]), correction


class ConditionedPartsCascade(ConditionedField):
    """The cascade for `b` given shapes."""

    def __init__(
        self, model: PartsCascade, codes: Codes, told: dict[str, tuple[Tensor, Tensor]], *, thin: bool = False
    ):
        """Folds what the stages are told into their layers.

        Args:
            model: the cascade.
            codes: of the shapes.
            told: modulations and landmarks of each stage.
            thin: for shapes of a single point each; see `ModulatedSiren.folded`.
        """
        self.model = model
        self.codes = codes
        self.told = told
        how = {"thin": True} if thin else {}
        self._layers = {name: model.stages[name].net.folded(*parts, **how) for name, parts in told.items()}
        shapes = len(next(iter(told.values()))[1])
        self._template = model.template.folded(model.template_landmarks.expand(shapes, -1, -1))

    @property
    def state(self) -> Codes:
        """The codes."""
        return self.codes

    @property
    def traits(self) -> Float[Tensor, "b f"]:
        """The codes of all parts."""
        return self.model.traits(self.codes)

    @property
    def landmarks(self) -> dict[str, Float[Tensor, "b l 3"]]:
        """The generated landmarks of each part."""
        return {name: centres for name, (_, centres) in self.told.items()}

    def sdf(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
        """Signed distance, canonical units (Eqn 6): that of the template where the cascade ends, and the correction."""
        inside, outside = self.model.exterior.split(points)
        correction = outside
        for name, stage in self.model.stages.items():
            inside, own = stage.moved(inside, stage.net(inside, self._layers[name]))
            correction = correction if own is None else correction + own
        return self.model.ball(inside, self.model.template(inside, self._template)) + correction

    def passed(self, points: Float[Tensor, "b n 3"]) -> dict[str, Float[Tensor, "b n 3"]]:
        """Where points are after each deformation, by the part's name; after the last they are on the template."""
        inside = self.model.exterior.split(points)[0]
        places = {}
        for name, stage in self.model.stages.items():
            places[name] = inside = stage.moved(inside, stage.net(inside, self._layers[name]))[0]
        return places

    def to_template(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """Where points are after the last deformation."""
        return self.passed(points)[list(self.model.stages)[-1]]

    def stage_errors(self, places: Float[Tensor, "b 2 2 k 3"], parts: Int[Tensor, "b k"]) -> StageErrors | None:
        """What generated landmarks, deformations and correction miss (Eqns 8 and 10); see `ConditionedField`.

        None where nothing is known, as of a corpus without composites.
        """
        if not places.shape[3]:
            return None
        done: list[str] = []
        inside, outside = self.model.exterior.split(places[:, 0, 0])
        correction, landmark, consistency = torch.zeros_like(outside), [], []
        for name, stage in self.model.stages.items():
            landmark.append(self.landmarks[name] - _places_after(done, places, parts)[:, stage.anchors])
            inside, own = stage.moved(inside, stage.net(inside, self._layers[name]))
            correction = correction if own is None else own
            done.append(name)
            consistency.append(inside - _places_after(done, places, parts))
        return StageErrors(
            _lengths(torch.cat(landmark, dim=1)), _lengths(torch.stack(consistency, dim=1)), correction.abs()
        )

    def with_part(
        self, name: str, other: "ConditionedPartsCascade", *, frames: Frames = "part"
    ) -> "ConditionedPartsCascade":
        """Takes the code of one part from `other`.

        Args:
            name: one of the field's parts.
            other: a field of the same model.
            frames: makes no difference: the remainder alone places the landmarks of the other parts.

        Raises:
            InputError: `name` is no part of the model.
        """
        if name not in self.model.parts:
            raise InputError(f"the cascade has no part {name!r}; its parts are {', '.join(self.model.parts) or 'none'}")
        return self.model.condition(self.codes | {name: other.codes[name]})

    def towards(self, other: "ConditionedPartsCascade", share: float) -> "ConditionedPartsCascade":
        """Moves the codes along straight lines."""
        return self.model.condition(
            {name: torch.lerp(code, other.codes[name], share) for name, code in self.codes.items()}
        )


def screw(
    points: Float[Tensor, "*n 3"], turn: Float[Tensor, "*n 3"], shift: Float[Tensor, "*n 3"]
) -> Float[Tensor, "*n 3"]:
    """Points after the rigid motion exp(turn, shift) of each (Park et al. 2021, Nerfies, section 3.2).

    The series' factors sin(a)/a, (1 - cos a)/a^2 and (a - sin a)/a^3 are smooth in a^2, and so at no turn.
    """
    squared = turn.square().sum(-1, keepdim=True)
    angle = (squared + 1e-8).sqrt()
    first, second = angle.sin() / angle, (1 - angle.cos()) / angle.square()
    third = (1 - first) / angle.square()

    def cross(vectors: Tensor) -> Tensor:
        return torch.linalg.cross(turn, vectors)

    turned = points + first * cross(points) + second * cross(cross(points))
    return turned + shift + second * cross(shift) + third * cross(cross(shift))


def _places_after(
    done: Sequence[str], places: Float[Tensor, "b 2 2 k 3"], parts: Int[Tensor, "b k"]
) -> Float[Tensor, "b k 3"]:
    """Where points are once some parts are the template's; a part that is none of the known is the whole head."""
    if not done:
        return places[:, 0, 0]
    if not set(done) <= set(ALL_PARTS):
        return places[:, 1, 1]
    own = torch.isin(parts, torch.tensor([ALL_PARTS.index(name) for name in done], device=parts.device))
    rest = int(REMAINDER in done)
    return torch.where(own[..., None], places[:, 1, rest], places[:, 0, rest])


def _lengths(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
    return vectors.square().sum(-1).add(1e-12).sqrt()


def _placed_by(name: str, config: PartsCascadeConfig) -> tuple[str, ...]:
    """The codes that a part's landmarks are generated from: its own, and that of the head that it sits in."""
    return tuple(dict.fromkeys([name, *([REMAINDER] if REMAINDER in config.parts else [])]))


def _places(names: Sequence[str]) -> Float[Tensor, "l 3"]:
    places = average_anchors()[[ANCHORS.index(name) for name in names]]
    return torch.tensor(places, dtype=torch.float32)
