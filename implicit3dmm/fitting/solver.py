"""Finds codes and pose of a model from surface points alone, by Gauss-Newton."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation
from torch import Tensor

from implicit3dmm.fitting.config import FitConfig
from implicit3dmm.fitting.units import (
    INDEPENDENT,
    MORE_STEPS,
    SPARSE,
    TRIED_AT,
    TRIED_AT_ONCE,
    TRIED_POINTS,
    group_of,
    try_units,
    units_penalty,
)
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.latents import EXPRESSION, Codes, LatentPrior
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
    """By all codes, then rotation vector, shift and logarithm of the scale; m = codes + 7 a scan."""
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
    """Finds codes and pose of one scan; see `solve_together`."""
    return solve_together(model, [points], [start], config, progress=progress)[0]


def solve_together(
    model: HeadModel,
    scans: Sequence[Float[np.ndarray, "n 3"]],
    starts: Sequence[Similarity],
    config: FitConfig,
    *,
    first: Codes | None = None,
    held: Collection[str] = (),
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Solution]:
    """Minimises robust distances plus the prior over codes and poses of several scans of one subject.

    The objective of one scan is mean rho(f(x)) + w |u|^2, where u are the codes in standard deviations of the prior, x
    the points under the current pose and rho the Geman-McClure function r^2 / (1 + r^2 / c^2). Each step solves the
    normal equations of reweighted least squares for codes and pose together. On the way c shrinks from `robust_start`
    to `robust_end`, w from `prior_start` to its end, and the points grow from `first_points` to all: the pose and the
    main directions of shape are found first, from few points. Only points on the surface are needed: no normals, no
    signed distances. Scans add up: they share the subject's codes, each has a pose and the codes of a record.

    Weights of named expression units are few and large, which no normal distribution is: for them |u|^2 is replaced by
    2 sum log(1 + z^2 / s^2) over the movements, where z^2 adds up the squared weights of a movement's two sides. It is
    reweighted at each step, and s falls from one value of SPARSE to the other, so that no unit is given up early. Below
    0 and above 1, where units mean little, 2 / s^2 times the squared distance to that range is added. Their w takes
    `INDEPENDENT` points for all.

    At the end w is `prior` plus the residuals' variance over the number of points, which keeps the codes from following
    noise: for points with independent noise about a surface of the model that is the maximum a posteriori.

    Args:
        model: the model to fit.
        scans: points on the surface of each, in the scan's frame, any unit.
        starts: about where each head lies: scan to canonical, within some 20 degrees.
        config: the solver's settings.
        first: codes to start from, (1, d) or a row for each scan; by default the prior's mean.
        held: names of the codes that stay as they start, and "pose" where the poses do.
        progress: wraps the steps, such as `tqdm`.

    Returns:
        A solution for each scan.
    """
    rng = np.random.default_rng(config.seed)
    shuffled = [rng.permutation(points) for points in scans]
    prior = model.prior.to(model.device)
    unknowns = _Unknowns.of(model, len(scans), held)
    whitened = _whitened(model.prior, first or {}, len(scans))
    units = next((spec.names for spec in model.field.latent_specs if spec.names and spec.name not in held), ())
    steps = config.steps + (MORE_STEPS if units else 0)
    similarities, losses, spread = list(starts), [[] for _ in scans], 1.0
    with _chunk_map(model.device) as chunk_map:
        for step in progress(range(steps)):
            share = min(step / max(steps - LAST_STEPS, 1), 1.0)
            robust = _geometric(config.robust_start, config.robust_end, share)
            if step in TRIED_AT and units:
                for number, points in enumerate(shuffled):
                    placed = similarities[number].apply(points[:TRIED_POINTS])
                    whitened[number] = _with_units_tried(model, prior, units, whitened[number], placed, robust)
            centres, normals, weights, unit_weights = [], [], [], []
            for number, points in enumerate(shuffled):
                placed = similarities[number].apply(points[: _between(config.first_points, len(points), share)])
                centres.append(np.median(placed, axis=0))  # a mean, and float32's digits, would follow strays far away
                normal = _normal_equations(model, prior, whitened[number], placed, centres[-1], robust, chunk_map)
                normals.append(normal)
                weight = _geometric(config.prior_start, config.prior, share)
                noise = _noise(normal.residuals)
                weights.append(weight + noise / len(placed))
                unit_weights.append(weight + noise / min(INDEPENDENT, len(placed)))
                losses[number].append(float(geman_mcclure(normal.residuals, robust).mean()))
            whole, weight = unknowns.gathered(normals), float(np.mean(weights))
            codes = unknowns.codes(whitened)
            if share == 1 and config.widest > 1:
                spread = min(_widened(whole, codes, weight / spread), config.widest)
            penalty = unknowns.penalty(model, whitened, weight / spread, unit_weights, _geometric(*SPARSE, share))
            moves = unknowns.scattered(_step(whole, penalty))
            whitened = whitened + moves[:, :-7]
            similarities = [
                _moved(move[-7:].numpy(), centre).compose(similarity)
                for move, centre, similarity in zip(moves, centres, similarities, strict=True)
            ]
    return [
        Solution(
            {name: table.cpu() for name, table in _codes(prior, own).items()} | _exactly(first or {}, held, number),
            similarity,
            loss,
            float(own.square().mean().sqrt()),
        )
        for number, (own, similarity, loss) in enumerate(zip(whitened, similarities, losses, strict=True))
    ]


@dataclass(frozen=True)
class _Unknowns:
    """Where the unknowns of each scan, its codes and then its pose, stand among those of all scans together.

    First come the codes, those that the scans share once, then the poses; what is held has no place.
    """

    places: Int[Tensor, "s m"]
    """-1 where there is none."""
    free_codes: int

    @classmethod
    def of(cls, model: HeadModel, scans: int, held: Collection[str]) -> "_Unknowns":
        specs = {spec.name: spec for spec in model.field.latent_specs}
        columns, count = [], 0
        for name, part in model.prior.parts.items():
            size = len(part.mean)
            if name in held:
                columns.append(torch.full((scans, size), -1))
                continue
            rows = torch.arange(scans)[:, None] if specs[name].per == "record" else torch.zeros(scans, 1).long()
            columns.append(count + rows * size + torch.arange(size))
            count += size * (int(rows.max()) + 1)
        poses = count + 7 * torch.arange(scans)[:, None] + torch.arange(7)
        poses = torch.full_like(poses, -1) if "pose" in held else poses
        return cls(torch.cat([*columns, poses], dim=1), count)

    def gathered(self, normals: Sequence[Normal]) -> Normal:
        """The sum of the scans' normal equations."""
        count = int(self.places.max()) + 1
        matrix, slope = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        for places, normal in zip(self.places, normals, strict=True):
            free = places >= 0
            matrix[places[free][:, None], places[free]] += normal.matrix[free][:, free]
            slope[places[free]] += normal.slope[free]
        return Normal(matrix, slope, torch.cat([normal.residuals for normal in normals]))

    def codes(self, whitened: Float[Tensor, "s d"]) -> Float[Tensor, " c"]:
        """The free codes in the order of the unknowns."""
        codes, places = torch.zeros(self.free_codes, dtype=torch.float64), self.places[:, :-7]
        codes[places[places >= 0]] = whitened[places >= 0]
        return codes

    def penalty(
        self,
        model: HeadModel,
        whitened: Float[Tensor, "s d"],
        weight: float,
        unit_weights: Sequence[float],
        sparse: float,
    ) -> "_Penalty":
        """The prior's penalty about the free codes as a quadratic, once that of expression units is reweighted."""
        matrix, start = weight * torch.eye(self.free_codes, dtype=torch.float64), 0
        slope = weight * self.codes(whitened)
        names = {spec.name: spec.names for spec in model.field.latent_specs}
        for name, part in model.prior.parts.items():
            columns = slice(start, start := start + len(part.mean))
            if not names[name]:
                continue
            units, group = (part.axes * part.std).double().cpu(), group_of(names[name])
            for places, own, unit_weight in zip(
                self.places[:, columns], whitened[:, columns], unit_weights, strict=True
            ):
                if (places >= 0).all():
                    curvature, pull = units_penalty(units @ own, group, sparse)
                    matrix[places[:, None], places] = unit_weight * units.T @ (curvature[:, None] * units)
                    slope[places] = unit_weight * units.T @ pull
        return _Penalty(matrix, slope)

    def scattered(self, move: Float[Tensor, " c"]) -> Float[Tensor, "s m"]:
        """What a step changes in each scan's codes and pose."""
        return torch.where(self.places >= 0, move[self.places.clamp_min(0)], 0.0)


def _exactly(first: Codes, held: Collection[str], number: int) -> Codes:
    """The held codes of one scan as they were given, without the rounding of the way to whitened ones and back."""
    return {name: table.cpu()[number % len(table), None].clone() for name, table in first.items() if name in held}


@torch.no_grad()
def _with_units_tried(
    model: HeadModel,
    prior: LatentPrior,
    names: Sequence[str],
    whitened: Float[Tensor, " d"],
    placed: Float[np.ndarray, "n 3"],
    robust: float,
) -> Float[Tensor, " d"]:
    """The codes with those expression units on that explain the points better; see `try_units`."""
    points = torch.as_tensor(placed, dtype=torch.float32, device=model.device)
    codes = _codes(prior, whitened)

    def some(expressions: Float[Tensor, "b e"]) -> Float[Tensor, " b"]:
        shapes = {name: table.expand(len(expressions), -1) for name, table in codes.items()} | {EXPRESSION: expressions}
        sdf = model.field.condition(shapes).sdf(points.expand(len(expressions), -1, -1))
        return geman_mcclure(sdf, robust).mean(dim=1)

    def losses(expressions: Float[Tensor, "b e"]) -> Float[Tensor, " b"]:
        return torch.cat([some(part) for part in expressions.split(TRIED_AT_ONCE)])

    codes[EXPRESSION] = try_units(names, codes[EXPRESSION], losses)
    return torch.cat([part.flatten() for part in prior.whiten(codes).values()]).double().cpu()


def _whitened(prior: LatentPrior, first: Codes, scans: int) -> Float[Tensor, "s d"]:
    """Codes of each scan in standard deviations of the prior, where they start."""
    start = prior.mean() | {name: table.cpu() for name, table in first.items()}
    rows = [part.expand(scans, -1) for part in prior.whiten(start).values()]
    return torch.cat(rows, dim=1).double()


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


class _Penalty(NamedTuple):
    """A quadratic about the free codes."""

    curvature: Float[Tensor, "c c"]
    slope: Float[Tensor, " c"]


def _step(normal: Normal, penalty: _Penalty) -> Float[Tensor, " m"]:
    """Where the quadratic that the normal equations describe, with the prior, is least."""
    count = len(penalty.slope)
    matrix, slope = normal.matrix.clone(), normal.slope.clone()
    matrix[:count, :count] += penalty.curvature
    matrix.diagonal()[count:] += POSE_DAMPING
    slope[:count] += penalty.slope
    return -torch.linalg.solve(matrix, slope)


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
