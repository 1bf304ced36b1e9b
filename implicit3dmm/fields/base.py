"""What a field is, and what it becomes once its codes are given."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit3dmm.config import from_mapping, to_mapping
from implicit3dmm.errors import InputError
from implicit3dmm.latents import EXPRESSION, Codes, LatentSpec

Frames = Literal["part", "all"]
"""Which local frames an edit of a part moves: that part's alone, or all, as the landmark network places them anew."""


class Jacobian(NamedTuple):
    """Signed distances of one shape at n points, and how they change."""

    sdf: Float[Tensor, " n"]
    """Canonical units."""
    by_codes: Codes
    """(n, d) derivative by each of the shape's codes."""
    by_points: Float[Tensor, "n 3+a"]
    """Derivative by the point, and by its ambient coordinates where it has any."""


class StageErrors(NamedTuple):
    """By how much the stages of a cascade miss what is known of them; canonical units."""

    landmark: Float[Tensor, "b s"]
    """Distance of each generated landmark to the true one, on the shape that its stage gets."""
    consistency: Float[Tensor, "b t k"]
    """Distance of each point, after each stage, to where it belongs on the shape that the stage should leave."""
    correction: Float[Tensor, "b k"]
    """What is added to the template's distance at points of the surface, absolute."""


class Field(nn.Module, ABC):
    """A signed distance in the canonical frame, conditioned on codes.

    A new architecture derives from this class in a file of its own under fields/ and registers itself; training,
    fitting, extraction, editing and evaluation then work on it. `check_field` holds it to what they rely on.
    """

    config: Any
    """The dataclass that it was built from, which the weights file keeps."""

    latent_specs: tuple[LatentSpec, ...]
    """The codes that it needs."""
    parts: tuple[str, ...] = ()
    """Names of the parts that can be edited one by one."""
    staged: bool = False
    """Whether it has stages that a training can tell where points belong; see `ConditionedField.stage_errors`."""
    ambient: int = 0
    """Ambient coordinates a that follow a point's three; an expression warp hands them to the field that it warps."""
    bounds: ClassVar[tuple[tuple[float, float, float], tuple[float, float, float]]] = (
        (-0.6, -0.95, -0.6),
        (0.6, 0.9, 0.8),
    )
    """Box that contains the surface, canonical units."""

    @abstractmethod
    def condition(self, codes: Codes) -> "ConditionedField":
        """The field of the shapes that `codes` describe.

        All that depends on the codes alone is computed here, once a shape, and nothing of it again for any chunk
        of points.
        """

    def condition_on_embeddings(
        self,
        embeddings: Float[Tensor, "b k e"],
        anchors: Float[Tensor, "b k 3"] | None = None,
        expression: Float[Tensor, "b d"] | None = None,
    ) -> "ConditionedField":
        """The field of given local embeddings, which need not come from one code, as those of an edited head do not.

        Args:
            embeddings: of each local part.
            anchors: their places; by default where the embeddings put them.
            expression: code of the expression, where the field has any; neutral by default.

        Raises:
            InputError: the architecture has no local embeddings.
        """
        raise InputError(f"{type(self).__name__} has no local embeddings; use a model with parts, such as imhead")

    def traits(self, codes: Codes) -> Float[Tensor, "b f"]:
        """What a warp reads of each subject: an affine function of its codes, here the codes themselves."""
        return torch.cat([codes[spec.name] for spec in self.latent_specs], dim=-1)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over the weights of a trained field that this one extends.

        Raises:
            InputError: they are those of another architecture or of other sizes.
        """
        try:
            self.load_state_dict(weights)
        except RuntimeError:
            raise InputError(f"the weights to start from are not those of this {type(self).__name__}") from None

    def jacobian(self, codes: Codes, points: Float[Tensor, "n 3+a"]) -> Jacobian:
        """Signed distances of one shape with their derivatives by codes and points, which Gauss-Newton fits need.

        Here every point gets a shape of its own, so that one backward pass tells all points apart; an architecture
        that knows where its codes act does it with less.

        Args:
            codes: of one shape, (1, d) each; those that the field does not have are left aside.
            points: canonical units.
        """
        with torch.enable_grad():
            own = {
                spec.name: codes[spec.name].detach().expand(len(points), -1).clone().requires_grad_()
                for spec in self.latent_specs
            }
            places = points.detach()[:, None].requires_grad_()
            sdf = self.condition(own).sdf(places)[:, 0]
            *by_codes, by_points = torch.autograd.grad(sdf.sum(), [*own.values(), places])
        return Jacobian(sdf.detach(), dict(zip(own, by_codes, strict=True)), by_points[:, 0])


class ConditionedField(ABC):
    """The field of `b` given shapes.

    The value at a point depends on the shape and the point alone: not on the other points, on the batch, on how
    points are cut into chunks, or on train/eval mode.
    """

    embeddings: Tensor | None = None
    """(b, k, d) local embeddings made from the codes, where the architecture has any."""
    anchors: Float[Tensor, "b k 3"] | None = None
    """Centres of the local parts on the neutral head, canonical units, where the architecture has any."""
    expression: Float[Tensor, "b d"] | None = None
    """Codes of the expressions, where the architecture has any; zero is neutral."""

    @property
    def state(self) -> Codes | None:
        """What makes this head again, edited or not: codes, or local embeddings with anchors; None where it is lost."""
        if self.embeddings is None or self.anchors is None:
            return None
        expression = {} if self.expression is None else {EXPRESSION: self.expression}
        return {"embeddings": self.embeddings, "anchors": self.anchors} | expression

    @property
    def traits(self) -> Float[Tensor, "b f"]:
        """What a warp reads of the subjects, see `Field.traits`; after an edit, of the edited ones.

        Raises:
            InputError: the architecture cannot be edited.
        """
        if self.embeddings is None:
            raise InputError(f"{type(self).__name__} cannot be edited; use a model with parts, such as imhead")
        return self.embeddings.flatten(1)

    @abstractmethod
    def sdf(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
        """Signed distance in canonical units, negative inside."""

    def sdf_and_gradient(
        self, points: Float[Tensor, "b n 3"], *, create_graph: bool = False
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 3"]]:
        """Signed distance and its gradient with respect to the points.

        Args:
            points: canonical units.
            create_graph: whether the gradient itself is to be differentiated (normal and Eikonal losses).
        """
        with torch.enable_grad():
            points = points.detach().requires_grad_(True)
            sdf = self.sdf(points)
            (gradient,) = torch.autograd.grad(sdf.sum(), points, create_graph=create_graph)
        return (sdf, gradient) if create_graph else (sdf.detach(), gradient)

    def to_canonical(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """Where each point lands in the neutral or template space; a field without a warp leaves it in place."""
        return points

    def to_template(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"] | None:
        """Where each point lands on, or near, the one template that all shapes are deformed to; None without one."""
        return None

    def warp_error(self, posed: Float[Tensor, "b n 3"], neutral: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"] | None:
        """Distance by which the warp misses known correspondences; None where the field has no warp.

        Args:
            posed: points of the shapes.
            neutral: the same points of the same subjects without an expression.
        """
        return None

    def stage_errors(self, places: Float[Tensor, "b 2 2 k 3"], parts: Int[Tensor, "b k"]) -> StageErrors | None:
        """What a cascade of deformations to a template misses; None where the field is none, or no place is given.

        Args:
            places: points of the surfaces on the way to the template, see `data.composites.settle_remainder`; the
                first 39 are the anchors.
            parts: the part that each belongs to, as its place in `data.composites.ALL_PARTS`.
        """
        return None

    def part_weights(self, points: Float[Tensor, "b n 3"]) -> tuple[Int[Tensor, "b n k"], Float[Tensor, "b n k"]]:
        """Indices and weights of the few local parts that act at each point.

        Raises:
            InputError: the architecture has no parts.
        """
        raise InputError(f"{type(self).__name__} has no parts; use a model with parts, such as imhead")

    def with_part(self, name: str, other: "ConditionedField", *, frames: Frames = "part") -> "ConditionedField":
        """The same field with the part `name` taken from `other`.

        Args:
            name: one of the architecture's parts.
            other: a field of the same model.
            frames: whether the part's local frames alone move, to their places in `other`, or all do.

        Raises:
            InputError: the architecture has no parts, or none of that name.
        """
        raise InputError(f"{type(self).__name__} has no part {name!r}; use a model with parts, such as imhead")

    def with_mirrored(self, name: str) -> "ConditionedField":
        """The same field with one side of a part given to the other side, mirrored.

        Args:
            name: one side of a part, such as ears_L, which the other side becomes like.

        Raises:
            InputError: the architecture has no such part.
        """
        raise InputError(f"{type(self).__name__} has no part {name!r}; use a model with parts, such as imhead")

    def with_expression(self, expression: Float[Tensor, "b d"]) -> "ConditionedField":
        """The same subjects under other expressions.

        Raises:
            InputError: the architecture has no expressions.
        """
        raise InputError(f"{type(self).__name__} has no expressions; use a model with a warp, such as imhead")

    def towards(self, other: "ConditionedField", share: float) -> "ConditionedField":
        """A field between this one (share 0) and `other` (share 1) of the same model, or beyond either.

        Raises:
            InputError: the architecture does not say how.
        """
        raise InputError(f"{type(self).__name__} cannot be interpolated; use another model, such as imhead")


FIELDS: dict[str, tuple[type, type[Field]]] = {}
"""Registered architectures: name -> (config class, field class)."""


def register_field(name: str, config: type) -> Callable[[type[Field]], type[Field]]:
    """Registers a field class under `name` with the frozen dataclass that configures it.

    The class is built as `FieldClass(config)`. A package of its own can register by an entry point in the group
    ``implicit3dmm.fields`` that names the module.

    Args:
        name: what configs and weights files call the architecture.
        config: the dataclass; each architecture has its own.

    Raises:
        InputError: another class has the name, or another architecture the config class.
    """

    def register(field: type[Field]) -> type[Field]:
        for taken, (known_config, known) in FIELDS.items():
            same = _full_name(known) == _full_name(field)  # a module that is loaded again
            if not same and (taken == name or known_config is config):
                raise InputError(
                    f"{_full_name(field)} registers {name!r} with {config.__name__}, which {_full_name(known)} has "
                    f"as {taken!r}; choose another name and a config class of its own"
                )
        FIELDS[name] = (config, field)
        return field

    return register


def field_configs() -> Mapping[str, type]:
    """Config class of each architecture by name, those of installed plug-ins included."""
    _load_plugins()
    return {name: config for name, (config, _) in FIELDS.items()}


def build_field(config: object) -> Field:
    """Makes the field that `config` describes, with fresh weights from torch's global generator.

    Raises:
        InputError: no registered architecture has configs of this class.
    """
    return FIELDS[_name_of(config)][1](config)


def field_to_mapping(config: object) -> dict[str, object]:
    """The plain values of a field's config, with the architecture's name first."""
    return {"name": _name_of(config), **to_mapping(config)}


def field_from_mapping(mapping: Mapping[str, object], *, where: str) -> object:
    """Reads what `field_to_mapping` wrote.

    Raises:
        InputError: the architecture is unknown, or a key or value is wrong.
    """
    configs = field_configs()
    if mapping.get("name") not in configs:
        raise InputError(
            f"{where}: no architecture {mapping.get('name')!r}; there are {', '.join(configs)}; install its package"
        )
    rest = {key: value for key, value in mapping.items() if key != "name"}
    return from_mapping(configs[mapping["name"]], rest, where=where)


def _name_of(config: object) -> str:
    for name, (kind, _) in FIELDS.items():
        if kind is type(config):
            return name
    raise InputError(f"no architecture is registered with {type(config).__name__}; see register_field")


def _full_name(field: type[Field]) -> str:
    return f"{field.__module__}.{field.__qualname__}"


@cache
def _load_plugins() -> None:
    """Imports, once, the modules that installed packages announce; an error of theirs is not hidden."""
    from importlib.metadata import entry_points  # slow to import

    for point in entry_points(group="implicit3dmm.fields"):
        point.load()
