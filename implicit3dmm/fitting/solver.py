"""Finds codes and pose of a model from surface points alone, by Gauss-Newton."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from implicit3dmm.fitting.config import FitConfig
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.latents import Codes, LatentPrior
from implicit3dmm.models import HeadModel

CHUNK = 1024
"""Points that are differentiated at once, so that their activations stay in cache."""

LAST_STEPS = 3
"""Steps at the end that have all points and the final weights, so that the solver arrives."""

POSE_DAMPING = 1e-7
"""Weight of a pose step's squared length (radians, canonical units, logarithm of scale): a pose that the points do not
tell, such as the turn of a ball, stays."""

ChunkMap = Callable[[Callable, Sequence], Iterable]


@dataclass(frozen=True)
class Solution:
    """What the solver found."""

    codes: Codes
    similarity: Similarity
    """From the scan's frame to the canonical frame."""
    losses: list[float]
    """Robust mean squared distance at the start of each step, squared canonical units."""
    code_norm: float
    """Length of the whitened codes over its expectation under the prior: about 1 for a likely head."""


class Normal(NamedTuple):
    """Normal equations of the weighted least squares about codes u and pose p: a mean over the points."""

    matrix: Float[Tensor, "m m"]
    """By all codes, then rotation vector, shift and logarithm of the scale; m = codes + 7."""
    slope: Float[Tensor, " m"]
    residuals: Float[Tensor, " n"]


def solve(
    model: HeadModel,
    points: Float[np.ndarray, "n 3"],
    start: Similarity,
    config: FitConfig,
    *,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Solution:
    """Minimises robust distances plus the prior over codes and pose.

    The objective is mean rho(f(x)) + w |u|^2, where u are the codes in standard deviations of the prior, x the points
    under the current pose and rho the Geman-McClure function r^2 / (1 + r^2 / c^2). Each step solves the normal
    equations of reweighted least squares for codes and pose together. On the way c shrinks from `robust_start` to
    `robust_end`, w from `prior_start` to its end, and the points grow from `first_points` to all: the pose and the main
    directions of shape are found first, from few points. Only points on the surface are needed: no normals, no signed
    distances.

    At the end w is `prior` plus the residuals' variance over the number of points, which keeps the codes from following
    noise: for points with independent noise about a surface of the model that is the maximum a posteriori.

    Args:
        model: the model to fit.
        points: on the surface, in the scan's frame, any unit.
        start: about where the head lies: scan to canonical, within some 20 degrees.
        config: the solver's settings.
        progress: wraps the steps, such as `tqdm`.
    """
    shuffled = np.random.default_rng(config.seed).permutation(points)
    prior = model.prior.to(model.device)
    whitened = torch.zeros(sum(len(part.mean) for part in prior.parts.values()), dtype=torch.float64)
    similarity, losses, spread = start, [], 1.0
    with _chunk_map(model.device) as chunk_map:
        for step in progress(range(config.steps)):
            share = min(step / max(config.steps - LAST_STEPS, 1), 1.0)
            placed = similarity.apply(shuffled[: _between(config.first_points, len(shuffled), share)])
            robust = _geometric(config.robust_start, config.robust_end, share)
            centre = np.median(placed, axis=0)  # a stray far away would take a mean, and float32's digits, with it
            normal = _normal_equations(model, prior, whitened, placed, centre, robust, chunk_map)
            weight = _geometric(config.prior_start, config.prior, share) + _noise(normal.residuals) / len(placed)
            if share == 1 and config.widest > 1:
                spread = min(_widened(normal, whitened, weight / spread), config.widest)
            move = _step(normal, whitened, weight / spread)
            whitened = whitened + move[:-7]
            similarity = _moved(move[-7:].numpy(), centre).compose(similarity)
            losses.append(float(geman_mcclure(normal.residuals, robust).mean()))
    codes = {name: table.cpu() for name, table in _codes(prior, whitened).items()}
    return Solution(codes, similarity, losses, float(whitened.square().mean().sqrt()))


def geman_mcclure(residual: Tensor, scale: float) -> Tensor:
    """r^2 / (1 + r^2 / c^2): quadratic below `scale`, level far beyond it (Geman and McClure 1987)."""
    squared = residual.square()
    return squared / (1 + squared / scale**2)


def _normal_equations(
    model: HeadModel,
    prior: LatentPrior,
    whitened: Float[Tensor, " d"],
    placed: Float[np.ndarray, "n 3"],
    centre: Float[np.ndarray, "3"],
    robust: float,
    chunk_map: ChunkMap,
) -> Normal:
    codes = _codes(prior, whitened)
    offsets = torch.as_tensor(placed - centre, dtype=torch.float32, device=model.device)
    middle = torch.as_tensor(centre, dtype=torch.float32, device=model.device)

    def accumulate(chunk: Float[Tensor, "c 3"]) -> tuple[Tensor, Tensor, Tensor]:
        sdf, by_codes, by_points = model.field.jacobian(codes, chunk + middle)
        by_whitened = [by_codes[name] @ (part.axes * part.std) for name, part in prior.parts.items()]
        turn = torch.linalg.cross(chunk, by_points)
        # Distances count in the scan's unit: in canonical ones, which shrink with the scale, noise would shrink it.
        growth = (chunk * by_points).sum(1, keepdim=True) - sdf[:, None]
        rows = torch.cat([*by_whitened, turn, by_points, growth], dim=1)
        weighted = rows / (1 + sdf.square() / robust**2).square()[:, None]  # half the slope of rho over r
        return weighted.T @ rows, weighted.T @ sdf, sdf

    matrices, slopes, residuals = zip(*chunk_map(accumulate, offsets.split(CHUNK)), strict=True)
    matrix, slope = (torch.stack(parts).double().sum(0).cpu() / len(placed) for parts in (matrices, slopes))
    return Normal(matrix, slope, torch.cat(residuals).cpu())


def _step(normal: Normal, whitened: Float[Tensor, " d"], weight: float) -> Float[Tensor, " m"]:
    """Where the quadratic that the normal equations describe, with the prior, is least."""
    count = len(whitened)
    damping = torch.full((count + 7,), weight, dtype=torch.float64)
    damping[count:] = POSE_DAMPING
    slope = normal.slope.clone()
    slope[:count] += weight * whitened
    return -torch.linalg.solve(normal.matrix + damping.diag(), slope)


def _widened(normal: Normal, whitened: Float[Tensor, " d"], weight: float) -> float:
    """Variance of the codes about the prior's mean, in its own variances, from those that the points determine."""
    count = len(whitened)
    unsure = torch.linalg.inv(normal.matrix[:count, :count] + weight * torch.eye(count, dtype=torch.float64))
    determined = count - weight * float(unsure.trace())
    return max(float(whitened.square().sum()) / determined, 1.0)


def _noise(residuals: Float[Tensor, " n"]) -> float:
    """Variance of normally distributed residuals, from their median, which strays do not move."""
    return float((1.4826 * residuals.abs().median()) ** 2)


def _codes(prior: LatentPrior, whitened: Float[Tensor, " d"]) -> Codes:
    sizes = [len(part.mean) for part in prior.parts.values()]
    device = next(iter(prior.parts.values())).mean.device
    parts = whitened.float().to(device)[None].split(sizes, dim=1)
    return prior.unwhiten(dict(zip(prior.parts, parts, strict=True)))


def _moved(pose: Float[np.ndarray, "7"], centre: Float[np.ndarray, "3"]) -> Similarity:
    """The similarity about `centre` that a pose step describes."""
    rotation, scale = Rotation.from_rotvec(pose[:3]).as_matrix(), float(np.exp(pose[6]))
    return Similarity(scale, rotation, centre + pose[3:6] - scale * rotation @ centre)


def _between(low: int, high: int, share: float) -> int:
    """A whole number between the two, evenly in magnitude; `high` where it is the smaller one."""
    return round(_geometric(low, high, share)) if low < high else high


def _geometric(start: float, end: float, share: float) -> float:
    return start * (end / start) ** share


@contextmanager
def _chunk_map(device: torch.device) -> Iterator[ChunkMap]:
    """Applies a function to chunks in as many threads as torch has, one core each; on a GPU one after the other."""
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    if workers == 1:
        yield map
        return
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool.map
