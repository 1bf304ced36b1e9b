"""Axioms of a field's derivatives: that they are right, twice over, and that nothing jumps."""

import torch
from jaxtyping import Float
from torch import Tensor

from implicit3dmm.fields.base import Field
from implicit3dmm.fields.check_case import ROUNDING, Case, Problems, difference

STEP = 1e-7
"""Step of finite differences, canonical units."""
SLOPE_ERROR = 1e-4
"""Largest difference of a derivative and finite differences, relative to 1 and to the derivative."""
JUMP = 1e-6
"""Largest change, canonical units, beyond what the gradient explains within the shortest interval of a line."""
STEEPEST = 1e3
"""Largest difference quotient along a line."""
LINES = 6
INTERVALS = 32
HALVINGS = 20
"""How often an interval is halved: from about 0.03 to about 3e-8 canonical units."""


def gradient(case: Case) -> Problems:
    """`sdf_and_gradient` gives the derivative."""
    conditioned, aside = case.condition(), case.directions(*case.points.shape[:2])
    _, slopes = conditioned.sdf_and_gradient(case.points)
    ahead, behind = (conditioned.sdf(case.points + step * aside) for step in (STEP, -STEP))
    found, expected = (slopes * aside).sum(-1), (ahead - behind) / (2 * STEP)
    yield difference(found, expected, "it differs from finite differences", limit=SLOPE_ERROR)


def jacobian(case: Case) -> Problems:
    """`jacobian` gives the values and the derivatives by codes and points of every single point."""
    one, places = {name: table[:1] for name, table in case.codes.items()}, case.points[0]
    found, twin = case.field.jacobian(one, places), Field.jacobian(case.field, one, places)
    for name in ("sdf", "by_points"):
        yield difference(
            getattr(found, name), getattr(twin, name), f"{name}: its own derivation differs", limit=ROUNDING
        )
    for name, table in twin.by_codes.items():
        yield difference(found.by_codes[name], table, f"{name}: it differs from a pass for each point", limit=ROUNDING)


def second_derivative(case: Case) -> Problems:
    """The gradient can be differentiated again, by points, codes and weights, and rightly so."""
    conditioned, aside = case.condition(), case.directions(*case.points.shape[:2])
    points = case.points.clone().requires_grad_(True)
    (slopes,) = torch.autograd.grad(conditioned.sdf(points).sum(), points, create_graph=True)
    if not slopes.requires_grad:
        yield "the gradient cannot be differentiated again; normal and Eikonal losses would not train"
    (found,) = torch.autograd.grad((slopes * aside).sum(), points)
    ahead, behind = (conditioned.sdf_and_gradient(case.points + step * aside)[1] for step in (STEP, -STEP))
    expected = (ahead - behind) / (2 * STEP)
    yield difference(found, expected, "by points it differs from finite differences", limit=SLOPE_ERROR)
    yield difference(*_loss_slopes(case), "by codes and weights it differs from them", limit=SLOPE_ERROR)


def _loss_slopes(case: Case) -> tuple[Tensor, Tensor]:
    """Slope of a loss along a random move of all codes and weights: autograd's, and by finite differences.

    Both in units of the slope that such a move finds on average, which is small where there are many weights.
    """
    codes = case.leaves()
    variables = [*codes.values(), *case.field.parameters()]

    def loss() -> Tensor:
        return _eikonal(*case.field.condition(dict(codes)).sdf_and_gradient(case.points, create_graph=True))

    slopes = torch.autograd.grad(loss(), variables, allow_unused=True, materialize_grads=True)
    moves = [case.random(*variable.shape) - 0.5 for variable in variables]
    length = sum(move.square().sum() for move in moves).sqrt()
    losses = []
    for step in (STEP, -2 * STEP, STEP):  # ahead, behind, and back to where the weights were
        with torch.no_grad():
            for variable, move in zip(variables, moves, strict=True):
                variable += step / length * move
        losses.append(loss().detach())
    found = sum((slope * move).sum() for slope, move in zip(slopes, moves, strict=True)) / length
    size = sum(slope.square().sum() for slope in slopes) / sum(slope.numel() for slope in slopes)
    unit = size.sqrt() + ROUNDING
    return found / unit, (losses[0] - losses[1]) / (2 * STEP) / unit


def _eikonal(sdf: Float[Tensor, "b n"], slopes: Float[Tensor, "b n 3"]) -> Float[Tensor, ""]:
    """A loss of values and gradients, as trainings have it."""
    return sdf.square().mean() + (slopes.norm(dim=-1) - 1).square().mean()


def continuity(case: Case) -> Problems:
    """No jumps along lines between random points and anchors, and bounded difference quotients.

    Every interval of a line is halved again and again, each time towards the half whose change the gradient explains
    less; a jump is what is left in the end.
    """
    conditioned = case.condition()

    def measured(points: Float[Tensor, "b m 3"]) -> Float[Tensor, "b m 7"]:
        sdf, slopes = conditioned.sdf_and_gradient(points)
        return torch.cat([points, sdf[..., None], slopes], dim=-1)

    low, high = (measured(points) for points in _intervals(case, conditioned.anchors))
    for _ in range(HALVINGS):
        middle = measured((low[..., :3] + high[..., :3]) / 2)
        first = (_unexplained(low, middle) > _unexplained(middle, high))[..., None]
        low, high = torch.where(first, low, middle), torch.where(first, middle, high)
    steepness = (high - low)[..., 3].abs() / (high - low)[..., :3].norm(dim=-1)
    for size, limit, what in (
        (_unexplained(low, high), JUMP, "jumps by"),
        (steepness, STEEPEST, "has a slope of"),
    ):
        if not size.max() <= limit:
            place = [round(x, 4) for x in low.flatten(0, 1)[size.argmax(), :3].tolist()]
            yield f"the field {what} {size.max():.2g} near {place}"


def _intervals(
    case: Case, anchors: Float[Tensor, "b k 3"] | None
) -> tuple[Float[Tensor, "b m 3"], Float[Tensor, "b m 3"]]:
    """Low and high ends of the intervals of lines between places chosen among the points and the anchors."""
    places = case.points if anchors is None else torch.cat([case.points, anchors.detach()], dim=1)
    chosen = case.random(places.shape[1]).argsort()[: 2 * LINES]
    starts, ends = places[:, chosen].unflatten(1, (2, LINES)).unbind(1)
    share = torch.linspace(0, 1, INTERVALS + 1).to(places)[:, None]
    nodes = (1 - share) * starts[:, :, None] + share * ends[:, :, None]
    return nodes[:, :, :-1].flatten(1, 2), nodes[:, :, 1:].flatten(1, 2)


def _unexplained(low: Float[Tensor, "b m 7"], high: Float[Tensor, "b m 7"]) -> Float[Tensor, "b m"]:
    """Change of the value from one end to the other, less the mean of the slopes there times the way."""
    explained = ((low + high)[..., 4:] / 2 * (high - low)[..., :3]).sum(-1)
    return ((high - low)[..., 3] - explained).abs()


def twin(case: Case) -> Problems:
    """`sdf_dense`, where there is one, is the same function as `sdf`."""
    if not hasattr(case.condition(), "sdf_dense"):
        return
    found, expected = (_derivatives(case, method) for method in ("sdf", "sdf_dense"))
    for name, value in expected.items():
        yield difference(found[name], value, f"sdf and sdf_dense differ in {name}")


def _derivatives(case: Case, method: str) -> dict[str, Tensor]:
    """Values, gradients, and the slopes of a loss by everything that goes into them."""
    points, codes = case.points.clone().requires_grad_(True), case.leaves()
    conditioned = case.field.condition(dict(codes))
    sdf = getattr(conditioned, method)(points)
    (slopes,) = torch.autograd.grad(sdf.sum(), points, create_graph=True)
    inner = {"embeddings": conditioned.embeddings, "anchors": conditioned.anchors}
    made = {name: tensor for name, tensor in inner.items() if tensor is not None and tensor.requires_grad}
    variables = {"points": points} | codes | made | dict(case.field.named_parameters())
    loss = _eikonal(sdf, slopes)
    by = torch.autograd.grad(loss, list(variables.values()), allow_unused=True, materialize_grads=True)
    named = {f"the slope by {name}": slope for name, slope in zip(variables, by, strict=True)}
    return {"the value": sdf, "the gradient": slopes} | named
