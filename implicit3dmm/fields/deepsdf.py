"""DeepSDF (Park et al. 2019): one plain network from code and point to signed distance. Start reading here."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit3dmm.errors import InputError
from implicit3dmm.fields.base import ConditionedField, Field, register_field
from implicit3dmm.fields.layers import ExteriorBall, softplus
from implicit3dmm.latents import Codes, LatentSpec


@dataclass(frozen=True)
class DeepSDFConfig:
    """Sizes of the network; the defaults are the paper's."""

    latent_dim: int = 256
    """Size of the identity code."""
    width: int = 512
    """Width of the hidden layers."""
    layers: int = 8
    """Hidden layers; code and point come in again before the middle one."""
    exterior_radius: float = 1.0
    """Radius of the ball, canonical units, outside which the distance is extended explicitly."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if self.latent_dim < 1:
            raise InputError(f"latent_dim is {self.latent_dim}; expected at least 1")
        if self.layers < 2:
            raise InputError(f"layers is {self.layers}; expected at least 2")
        if self.width < self.latent_dim + 4:
            raise InputError(f"width is {self.width}; expected at least latent_dim + 4 = {self.latent_dim + 4}")
        if self.exterior_radius <= 0:
            raise InputError(f"exterior_radius is {self.exterior_radius}; expected above 0, canonical units")


@register_field("deepsdf", DeepSDFConfig)
class DeepSDF(Field):
    """f(z, x) with Softplus for ReLU, so that normals and Eikonal losses have a second derivative.

    Weight normalisation, dropout and the final tanh of the original are left out: the first two are not needed at
    the sizes trained here and the last would bend the distance.
    """

    def __init__(self, config: DeepSDFConfig):
        super().__init__()
        self.config = config
        self.latent_specs = (LatentSpec("identity", config.latent_dim, config.latent_dim**-0.5, "subject"),)
        self.exterior = ExteriorBall(config.exterior_radius)
        # The first and the middle layer read the code and the point. Each has a matrix of its own for them, so that
        # the code's product is taken once a shape. As in the original, code and point take their share of the middle
        # layer's `width` inputs, and the layer before it is that much narrower.
        self.middle = config.layers // 2
        widths = [config.width] * config.layers
        widths[self.middle - 1] = config.width - config.latent_dim - 3
        self.first = nn.Linear(3, widths[0], bias=False)
        self.first_code = nn.Linear(config.latent_dim, widths[0])
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.middle_point = nn.Linear(3, widths[self.middle], bias=False)
        self.middle_code = nn.Linear(config.latent_dim, widths[self.middle], bias=False)
        self.out = nn.Linear(widths[-1], 1)
        self._start_as_sphere()

    def condition(self, codes: Codes) -> "ConditionedDeepSDF":
        """Takes the code's part of the two layers that read it."""
        code = codes["identity"][:, None]
        return ConditionedDeepSDF(self, self.first_code(code), self.middle_code(code))

    def _start_as_sphere(self) -> None:
        """Starts near the distance to a ball about the origin (Atzmon and Lipman 2020, section 5).

        Its radius would be 0.5 with ReLU; the bend of Softplus makes it smaller, the more so the deeper the network.
        """
        for layer in (self.first, *self.hidden, self.middle_point):
            nn.init.normal_(layer.weight, 0, (2 / layer.out_features) ** 0.5)
        for layer in (self.first_code, self.middle_code):
            nn.init.normal_(layer.weight, 0, 0.1 * (2 / layer.out_features) ** 0.5)
        for layer in (self.first_code, *self.hidden):
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.out.weight, (torch.pi / self.out.in_features) ** 0.5, 1e-4)
        nn.init.constant_(self.out.bias, -0.5)


class ConditionedDeepSDF(ConditionedField):
    """DeepSDF for `b` given shapes."""

    def __init__(self, model: DeepSDF, first_bias: Float[Tensor, "b 1 w"], middle_bias: Float[Tensor, "b 1 v"]):
        self.model = model
        self._first_bias = first_bias
        self._middle_bias = middle_bias

    def towards(self, other: "ConditionedDeepSDF", share: float) -> "ConditionedDeepSDF":
        """The field of the code on the straight line between the two, in which the biases are affine."""
        first = torch.lerp(self._first_bias, other._first_bias, share)
        return ConditionedDeepSDF(self.model, first, torch.lerp(self._middle_bias, other._middle_bias, share))

    def sdf(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
        """Signed distance, canonical units."""
        inside, outside = self.model.exterior.split(points)
        values = softplus(self.model.first(inside) + self._first_bias)
        for number, layer in enumerate(self.model.hidden, start=1):
            values = layer(values)
            if number == self.model.middle:
                values = values + self.model.middle_point(inside) + self._middle_bias
            values = softplus(values)
        return self.model.out(values).squeeze(-1) + outside
