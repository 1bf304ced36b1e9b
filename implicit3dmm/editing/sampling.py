"""New noses, ears or chins for a given head, from the statistics of the local embeddings."""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from implicit3dmm.fields import ConditionedField
from implicit3dmm.heads.template import anchor_group
from implicit3dmm.latents import Codes
from implicit3dmm.models import HeadModel

Given = Literal["neighbours", "nothing"]
"""What a new part is drawn under: what the head looks like around it, or nothing."""

NEIGHBOURS = 3
"""Anchors around each of a part's own that a new part has to go with."""

TOLERANCE = 1.0
"""How closely: standard deviations of each number of the neighbours' embeddings. Without any, the neighbours' 32
numbers each would leave a head of 256 codes nothing to draw."""


@torch.no_grad()
def sample_part(
    model: HeadModel,
    head: ConditionedField,
    part: str,
    count: int,
    *,
    temperature: float = 1.0,
    given: Given = "neighbours",
    generator: torch.Generator,
) -> Iterator[ConditionedField]:
    """Draws a part anew and leaves the rest of the head alone (Potamias et al., section 4, Fig. 6).

    The embeddings of all parts are affine in the codes, whose distribution the prior knows. Drawn from it without
    more (given="nothing", the paper's way), a part need not go with the head. Drawn under what the embeddings of the
    neighbouring parts say of the codes, it does: with u the codes in standard deviations and e = A u + b the
    neighbours' embeddings, each known up to TOLERANCE standard deviations, u is normal with precision I + A' A and
    mean (I + A' A)^-1 A' (e - b), where rows of A and e are divided by their tolerance. Where each part has a code of
    its own, as in a cascade, the others say nothing of it, and it is drawn from the prior in either case.

    Args:
        model: whose prior says what parts look like.
        head: one head of it, edited before or not.
        part: as `ConditionedField.with_part` takes it.
        count: how many to draw.
        temperature: standard deviations are multiplied by it.
        given: what a part is drawn under.
        generator: of the draws.

    Raises:
        InputError: the architecture has no parts, or none of that name.
    """
    kept = head.with_part(part, head)  # refuses what is no part
    size = sum(spec.dim for spec in model.field.latent_specs)
    mean, spread = torch.zeros(1, size), torch.eye(size)
    if given == "neighbours" and kept.embeddings is not None:
        mean, spread = _posterior(model, head, _around(head, part))
    for _ in range(count):
        coordinates = mean + temperature * torch.randn(1, size, generator=generator) @ spread
        yield head.with_part(part, model.condition(_codes(model, coordinates)))


def _around(head: ConditionedField, part: str) -> list[int]:
    """The anchors next to those of a part, of which they are none."""
    own = list(anchor_group(part))
    others = [k for k in range(head.anchors.shape[1]) if k not in own]
    nearest = torch.cdist(head.anchors[0, own], head.anchors[0, others]).argsort(dim=1)[:, :NEIGHBOURS]
    return [others[k] for k in nearest.unique().tolist()]


def _posterior(
    model: HeadModel, head: ConditionedField, around: list[int]
) -> tuple[Float[Tensor, "1 d"], Float[Tensor, "d d"]]:
    """Mean of the codes' coordinates under the neighbours' embeddings, and what turns white noise into their spread."""
    size = sum(spec.dim for spec in model.field.latent_specs)
    probes = torch.cat([torch.zeros(1, size), torch.eye(size)])  # of an affine map
    embeddings = model.condition(_codes(model, probes)).embeddings[:, around].flatten(1).double().cpu()
    directions = embeddings[1:] - embeddings[0]
    known = head.embeddings[0, around].flatten().double().cpu() - embeddings[0]
    tolerance = TOLERANCE * directions.norm(dim=0)
    directions, known = directions / tolerance, known / tolerance
    precision = torch.eye(size, dtype=torch.float64) + directions @ directions.T
    lower = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve((directions @ known)[:, None], lower).T
    spread = torch.linalg.solve_triangular(lower, torch.eye(size, dtype=torch.float64), upper=False)
    return mean.float(), spread.float()


def _codes(model: HeadModel, coordinates: Float[Tensor, "b d"]) -> Codes:
    """Codes of coordinates in standard deviations, those of all codes one after the other."""
    sizes = [spec.dim for spec in model.field.latent_specs]
    names = [spec.name for spec in model.field.latent_specs]
    whitened = dict(zip(names, coordinates.split(sizes, dim=1), strict=True))
    return {name: table.to(model.device) for name, table in model.prior.unwhiten(whitened).items()}
