"""Expressions by a forward warp and root finding, NPHM's way (Giebenhain et al. 2023): the twin of expression_warp.

The network moves points of the neutral head to the expressive one, x_obs = x_can + D(x_can, z_id, z_exp). To know the
distance at a point of the expressive head its neutral place has to be found first, by Broyden's method. It is here to
be measured beside the backward warp (Potamias et al., section 11).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit3dmm.errors import InputError
from implicit3dmm.fields.base import ConditionedField, Jacobian, register_field
from implicit3dmm.fields.expression_warp import ConditionedExpressionWarp, ExpressionWarp, ExpressionWarpConfig
from implicit3dmm.latents import EXPRESSION, Codes

SMALLEST_DETERMINANT = 1e-3
"""Of the warp's derivative at a root, below which the warp folds and its inverse says nothing."""


@dataclass(frozen=True)
class ForwardWarpConfig(ExpressionWarpConfig):
    """As the backward warp's, without ambient coordinates, and how roots are found."""

    iterations: int = 15
    """Broyden's steps at most (NPHM)."""
    tolerance: float = 1e-5
    """Distance from the point that is asked for, canonical units, at which a root is found (2 micrometres)."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        super().validate()
        if getattr(self.identity, "ambient", 0):
            raise InputError(f"identity.ambient is {self.identity.ambient}; a forward warp has none; give 0")
        if self.iterations < 1 or self.tolerance <= 0:
            raise InputError("iterations must be at least 1 and tolerance above 0")


@register_field("forward_warp", ForwardWarpConfig)
class ForwardWarp(ExpressionWarp):
    """A field of neutral heads behind the inverse of a warp."""

    def jacobian(self, codes: Codes, points: Float[Tensor, "n 3"]) -> Jacobian:
        """As in `Field`, by implicit differentiation; points whose neutral place was not found tell nothing."""
        with torch.no_grad():
            lifted = self.warp.lift(codes[EXPRESSION])
            reduced = self.warp.reduce(self.identity.traits(codes))
            inside, outside = self.exterior.split(points)
            conditioned = self.condition(codes)
            neutral, found = conditioned.root(inside[None])
            inner = self.identity.jacobian(codes, neutral[0])
            back = conditioned.inverse_slope(neutral)[0]
            found = found[0] & (back.abs().amax((1, 2)) < 1 / SMALLEST_DETERMINANT)
            through = torch.einsum("ni,nij->nj", inner.by_points, back) * found[:, None]
        with torch.enable_grad():
            own = [row.expand(len(points), -1).clone().requires_grad_() for row in (reduced, lifted)]
            moved = self.warp.fold(*own)(neutral[0][:, None])[:, 0]
            by_reduced, by_lifted = torch.autograd.grad((moved * -through).sum(), own)
            places = points.detach().requires_grad_()
            inside, away = self.exterior.split(places)
            (by_points,) = torch.autograd.grad((inside * through).sum() + away.sum(), places)
        with torch.no_grad():
            by_codes = {EXPRESSION: by_lifted @ self.warp.lift.weight}
            for name, rows in self._reduced_jacobian(codes).items():
                by_codes[name] = inner.by_codes[name] * found[:, None] + by_reduced @ rows
        return Jacobian(inner.sdf + outside, by_codes, by_points)

    def _conditioned(
        self, inner: ConditionedField, traits: Float[Tensor, "b f"], expression: Float[Tensor, "b d"]
    ) -> "ConditionedForwardWarp":
        return ConditionedForwardWarp(self, inner, traits, expression)


class ConditionedForwardWarp(ConditionedExpressionWarp):
    """A field behind the inverse of a warp, for `b` given subjects under `b` given expressions."""

    def sdf(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
        """Signed distance to the neutral head at the points' neutral places, canonical units."""
        inside, outside = self.model.exterior.split(points)
        return self.inner.sdf(self._neutral(inside)) + outside

    def to_canonical(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """The points' neutral places, as near as the search came."""
        inside, _ = self.model.exterior.split(points)
        return points - inside + self._neutral(inside)

    def warp_error(self, posed: Float[Tensor, "b n 3"], neutral: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
        """Distance between where the warp takes neutral points and where they belong."""
        return (neutral + self._warp(neutral) - posed).square().sum(-1).add(1e-12).sqrt()

    @torch.no_grad()
    def root(self, points: Float[Tensor, "b n 3"]) -> tuple[Float[Tensor, "b n 3"], Bool[Tensor, "b n"]]:
        """The neutral places that the warp takes to `points`, and whether they were found.

        Broyden's method on each point by itself, from the point less its own displacement and with the identity for
        the inverse derivative; the best iterate counts. A point that is found stays.
        """
        config = self.model.config
        places = points - self._warp(points)
        misses = places + self._warp(places) - points
        best, least = places, misses.norm(dim=-1)
        inverse = torch.eye(3, dtype=points.dtype, device=points.device).expand(*points.shape, 3).clone()
        for _ in range(config.iterations):
            open_ = least > config.tolerance
            if not open_.any():
                break
            step = -(inverse @ misses[..., None])[..., 0] * open_[..., None]
            places = places + step
            missed = places + self._warp(places) - points
            change = (inverse @ (missed - misses)[..., None])[..., 0]
            row = (step[..., None, :] @ inverse)[..., 0, :]
            scale = (step * change).sum(-1, keepdim=True)
            scale = torch.where(scale.abs() < 1e-12, torch.ones_like(scale), scale)
            inverse = inverse + ((step - change) / scale)[..., :, None] * row[..., None, :]
            misses, distance = missed, missed.norm(dim=-1)
            better = distance < least
            best, least = torch.where(better[..., None], places, best), torch.where(better, distance, least)
        return best, least <= config.tolerance

    def inverse_slope(self, neutral: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3 3"]:
        """Inverse of the derivative of the posed point by the neutral one."""
        with torch.enable_grad():
            places = neutral.detach().requires_grad_()
            moved = places + self._warp(places)
            rows = [torch.autograd.grad(moved[..., axis].sum(), places, retain_graph=axis < 2)[0] for axis in range(3)]
        slope = torch.stack(rows, dim=-2).detach()
        folds = torch.linalg.det(slope).abs() < SMALLEST_DETERMINANT
        eye = torch.eye(3, dtype=slope.dtype, device=slope.device)
        return torch.linalg.inv(torch.where(folds[..., None, None], eye, slope))

    def _neutral(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """Neutral places, with the root's first two derivatives where gradients are recorded.

        Each Newton step with the inverse slope held makes one more order of derivatives exact; values stay.
        """
        places, _ = self.root(points.detach())
        if not torch.is_grad_enabled():
            return places
        inverse = self.inverse_slope(places)
        for _ in range(2):
            misses = places + self._warp(places) - points
            places = places - (inverse @ (misses - misses.detach())[..., None])[..., 0]
        return places
