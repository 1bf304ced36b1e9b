"""Axioms of a field's values: what they depend on, what they are far away, and what parts do to them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit3dmm.errors import InputError
from implicit3dmm.fields.base import ConditionedField
from implicit3dmm.fields.check_case import Case, Problems, dense_weights, difference, misfit

EXTERIOR_SLOPES = (0.75, 1.25)
"""Range of the slope along rays outside the bounds; an exact distance has nearly one."""


def interface(case: Case) -> Problems:
    """Specs and bounds make sense; shapes and dtypes are as declared; no points give no values."""
    names, (low, high) = [spec.name for spec in case.field.latent_specs], case.field.bounds
    if not names or len(set(names)) < len(names):
        yield f"latent_specs names {names}; expected at least one code, each under its own name"
    if not all(start < end for start, end in zip(low, high, strict=True)):
        yield f"the bounds {case.field.bounds} hold nothing; expected the low corner, then the high one"
    conditioned, points = case.condition(), case.points.clone()
    yield misfit(conditioned.sdf(points), points.shape[:2], points, "sdf")
    if not torch.equal(points, case.points):
        yield "sdf changes the points that it is given"
    sdf, gradient = conditioned.sdf_and_gradient(points)
    yield misfit(conditioned.sdf(points[:, :0]), (len(points), 0), points, "sdf of no points")
    yield misfit(sdf, points.shape[:2], points, "the value of sdf_and_gradient")
    yield misfit(gradient, points.shape, points, "the gradient of sdf_and_gradient")
    yield misfit(conditioned.to_canonical(points), points.shape, points, "to_canonical")
    yield difference(sdf, conditioned.sdf(points), "sdf and sdf_and_gradient differ")


def pointwise(case: Case) -> Problems:
    """The value at a point does not depend on the other points, their order or the chunk."""
    conditioned, points = case.condition(), case.points
    whole, count = conditioned.sdf(points), points.shape[1]
    for size in (1, 5, count - 1):
        with torch.no_grad():  # as the extraction does
            chunks = torch.cat([conditioned.sdf(chunk) for chunk in points.split(size, dim=1)], dim=1)
        yield difference(chunks, whole, f"values change when points come in chunks of {size}")
    backwards = conditioned.sdf(points.flip(1)).flip(1)
    yield difference(backwards, whole, "values change with the order of the points")
    crowd = conditioned.sdf(torch.cat([10 * points, points, points], dim=1))
    yield difference(crowd[:, count:], whole.repeat(1, 2), "values change when other points come along")


def batch(case: Case) -> Problems:
    """A shape's values do not depend on the other shapes of the batch or on their order."""
    whole = case.condition().sdf(case.points)
    order = torch.arange(len(whole) - 1, -1, -1, device=whole.device)
    for rows, what in [(order, "the order of shapes"), *((row[None], "the other shapes") for row in order)]:
        conditioned = case.field.condition({name: table[rows] for name, table in case.codes.items()})
        yield difference(conditioned.sdf(case.points[rows]), whole[rows], f"values change with {what}")


def mode(case: Case) -> Problems:
    """Values depend neither on train/eval mode, nor on recording gradients, nor on the calls before."""
    case.field.train()
    before = case.condition().sdf(case.points)
    yield difference(case.condition().sdf(case.points), before, "a second call gives other values")
    with torch.no_grad():
        silent = case.condition().sdf(case.points)
    yield difference(silent, before, "other values where no gradients are recorded")
    case.field.eval()
    yield difference(case.condition().sdf(case.points), before, "eval mode gives other values than train mode")


def condition(case: Case) -> Problems:
    """Codes are read by `condition` alone, and gradients reach each of them."""
    codes = case.leaves()
    names, tables = list(codes), list(codes.values())
    conditioned = case.field.condition(codes)
    before = conditioned.sdf(case.points)
    gradients = torch.autograd.grad(before.sum(), tables, allow_unused=True, materialize_grads=True)
    for name, gradient in zip(names, gradients, strict=True):
        if not gradient.any(dim=1).all():
            yield f"no gradient of the distances reaches the code {name!r}"
    codes.update({name: torch.full_like(table, torch.nan) for name, table in codes.items()})
    with torch.no_grad():
        for table in tables:
            table.fill_(torch.nan)
        yield difference(conditioned.sdf(case.points), before, "sdf reads the codes again; condition alone should")


def finite(case: Case) -> Problems:
    """Values and gradients are finite, at the origin, at the anchors and far away too."""
    conditioned = case.condition()
    axes = torch.cat([torch.zeros(1, 3), torch.eye(3), -torch.eye(3)]).to(case.points)
    places = {
        "the origin or an axis": axes.expand(len(case.points), -1, -1),
        "a far point": 1e4 * case.points,
    }
    if conditioned.anchors is not None:
        places["an anchor"] = conditioned.anchors.detach()
    for place, points in places.items():
        sdf, gradient = conditioned.sdf_and_gradient(points)
        if not (sdf.isfinite().all() and gradient.isfinite().all()):
            yield f"the value or the gradient at {place} is not finite"


def exterior(case: Case) -> Problems:
    """Outside the bounds the field is positive and grows with a slope of about one along each ray."""
    corner = torch.tensor(case.field.bounds).abs().amax(0).norm()
    radii = corner * torch.linspace(1, 4, 25).to(case.points)
    rays = case.directions(len(case.points), 32)
    sdf = case.condition().sdf((rays[:, :, None] * radii[:, None]).flatten(1, 2)).unflatten(1, (32, 25))
    if not (sdf > 0).all():
        yield f"a distance of {sdf.min():.3g} outside the bounds; expected positive ones"
    slopes = sdf.diff(dim=-1) / radii.diff()
    low, high = EXTERIOR_SLOPES
    if not ((slopes >= low) & (slopes <= high)).all():
        yield f"slopes of {slopes.min():.3g} to {slopes.max():.3g} along rays outside the bounds; expected about 1"


def parts(case: Case) -> Problems:
    """Weights add up to one, a part acts where its weights are, and unknown names are refused."""
    conditioned, points = case.condition(), case.points
    other = case.field.condition({name: table.flip(0) for name, table in case.codes.items()})
    try:
        conditioned.with_part("no such part", other)
        yield "with_part takes a part that does not exist; expected an InputError"
    except InputError:
        pass
    if not case.field.parts:
        return
    if conditioned.anchors is not None:
        _, weights = conditioned.part_weights(points)
        yield difference(weights.sum(-1), torch.ones_like(points[..., 0]), "weights do not add up to one")
        yield difference(weights.clamp_min(0), weights, "a weight is below zero")
    sdf = conditioned.sdf(points)
    for name in case.field.parts:
        own = conditioned.with_part(name, conditioned).sdf(points)
        yield difference(own, sdf, f"the part {name!r} taken from the field itself changes it")
        edited = conditioned.with_part(name, other)
        apart = _apart(conditioned, edited, points)
        what = f"the part {name!r} of another shape changes the field where it does not act"
        yield difference(edited.sdf(points)[apart], sdf[apart], what)


def between(case: Case) -> Problems:
    """Interpolation starts at the one shape and ends at the other."""
    conditioned, points = case.condition(), case.points
    other = case.field.condition({name: table.flip(0) for name, table in case.codes.items()})
    try:
        ends = [conditioned.towards(other, share) for share in (0.0, 1.0)]
    except InputError:
        return
    for end, expected, what in zip(ends, (conditioned, other), ("itself", "the other"), strict=True):
        yield difference(end.sdf(points), expected.sdf(points), f"an end of the way towards another is not {what}")


def _apart(before: ConditionedField, after: ConditionedField, points: Float[Tensor, "b n 3"]) -> Bool[Tensor, "b n"]:
    """Points where an edit changed neither the weights nor a part that acts."""
    if before.embeddings is None or before.anchors is None:
        return torch.zeros_like(points[..., 0], dtype=torch.bool)
    changed = (before.embeddings != after.embeddings).any(-1) | (before.anchors != after.anchors).any(-1)
    weights, later = (dense_weights(field, points) for field in (before, after))
    return ~((weights != later) | (changed[:, None] & (weights > 0))).any(-1)


def mirror(case: Case) -> Problems:
    """Weights of the mirrored field are the mirrored weights, and features of paired parts the mirrored features."""
    conditioned, points = case.condition(), case.points
    if not (hasattr(conditioned, "mirrored") and hasattr(conditioned, "features")):
        return
    mirrored, flip = conditioned.mirrored(), torch.tensor([-1.0, 1.0, 1.0]).to(points)
    away, counterpart = torch.cdist(flip * conditioned.anchors, mirrored.anchors).min(-1)
    yield difference(away, torch.zeros_like(away), "mirrored does not reflect the anchors", limit=1e-6)
    weights = dense_weights(conditioned, points)
    columns = counterpart[:, None].expand(-1, points.shape[1], -1)
    across = dense_weights(mirrored, flip * points).gather(2, columns)
    yield difference(across, weights, "mirrored weights differ")
    midline = counterpart == torch.arange(counterpart.shape[1], device=points.device)
    paired = ~(midline[:, None] & (weights > 0)).any(-1)
    features, reflected = conditioned.features(points), mirrored.features(flip * points)
    yield difference(reflected[paired], features[paired], "mirrored features of paired parts differ")
