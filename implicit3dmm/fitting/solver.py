"""Finds codes and pose of a model from surface points alone."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit3dmm.fitting.config import FitConfig
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.latents import Codes
from implicit3dmm.models import HeadModel


@dataclass(frozen=True)
class Solution:
    """What the solver found."""

    codes: Codes
    similarity: Similarity
    """From the scan's frame to the canonical frame."""
    losses: list[float]
    """Robust mean squared distance of each step, squared canonical units."""
    code_norm: float
    """Length of the whitened codes over its expectation under the prior: about 1 for a likely head."""


def solve(
    model: HeadModel,
    points: Float[np.ndarray, "n 3"],
    start: Similarity,
    config: FitConfig,
    *,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Solution:
    """Minimises robust distances plus the prior over codes and pose.

    The objective is mean rho(f(x)) + prior |u|^2, where u are the codes in standard deviations of the prior, x the
    points under the current pose and rho the Geman-McClure function r^2 / (1 + r^2 / c^2), whose c shrinks from
    `robust_start` to `robust_end`. Only points on the surface are needed: no normals, no signed distances.

    Args:
        model: the model to fit.
        points: on the surface, in the scan's frame, any unit.
        start: about where the head lies: scan to canonical, within some 20 degrees.
        config: the solver's settings.
        progress: wraps the steps, such as `tqdm`.
    """
    generator = torch.Generator().manual_seed(config.seed)
    pose = _Pose(start, points, model.device)
    whitened = {n: torch.zeros(1, len(p.mean), device=model.device) for n, p in model.prior.parts.items()}
    for table in whitened.values():
        table.requires_grad_(True)
    optimiser = torch.optim.Adam(
        [
            {"params": list(whitened.values()), "lr": config.code_rate},
            {"params": [pose.parameters], "lr": config.pose_rate},
        ]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    prior = model.prior.to(model.device)
    losses = []
    for step in progress(range(config.steps)):
        chosen = torch.randint(len(points), (min(config.batch, len(points)),), generator=generator)
        codes = prior.unwhiten(whitened)
        distance = model.field.condition(codes).sdf(pose.apply(chosen)[None])
        scale = config.robust_start * (config.robust_end / config.robust_start) ** (step / config.steps)
        data = geman_mcclure(distance, scale).mean()
        loss = data + config.prior * sum(table.square().sum() for table in whitened.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(data.detach()))
    size = sum(table.numel() for table in whitened.values())
    norm = sum(float(table.detach().square().sum()) for table in whitened.values())
    with torch.no_grad():
        codes = {name: table.cpu() for name, table in prior.unwhiten(whitened).items()}
    return Solution(codes, pose.similarity(), losses, (norm / size) ** 0.5)


def geman_mcclure(residual: Tensor, scale: float) -> Tensor:
    """r^2 / (1 + r^2 / c^2): quadratic below `scale`, level far beyond it (Geman and McClure 1987)."""
    squared = residual.square()
    return squared / (1 + squared / scale**2)


class _Pose:
    """A small similarity about the centre of the points, on top of the start."""

    def __init__(self, start: Similarity, points: Float[np.ndarray, "n 3"], device: torch.device):
        self._start = start
        placed = start.apply(points)
        self._centre = np.median(placed, axis=0)  # a stray far away would take a mean, and float32's digits, with it
        self._points = torch.as_tensor(placed - self._centre, dtype=torch.float32, device=device)
        self._offset = torch.as_tensor(self._centre, dtype=torch.float32, device=device)
        self.parameters = torch.zeros(7, device=device, requires_grad=True)

    def apply(self, chosen: Tensor) -> Float[Tensor, "m 3"]:
        rotation, shift, growth = self.parameters[:3], self.parameters[3:6], self.parameters[6]
        turned = self._points[chosen] @ rotation_matrix(rotation).T
        return growth.exp() * turned + self._offset + shift

    def similarity(self) -> Similarity:
        values = self.parameters.detach().double().cpu()
        scale, rotation = float(values[6].exp()), rotation_matrix(values[:3]).numpy()
        shift = self._centre + values[3:6].numpy() - scale * rotation @ self._centre
        return Similarity(scale, rotation, shift).compose(self._start)


def rotation_matrix(vector: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """Rotation about `vector` by its length in radians (the exponential of its cross-product matrix)."""
    x, y, z = vector
    zero = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3))
