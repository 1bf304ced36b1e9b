"""Composite heads: parts of several subjects in one (Gu and Pears, section 3.4), and where their landmarks belong."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from implicit3dmm.data.sources import HeadSource
from implicit3dmm.heads.grafting import GraftSite
from implicit3dmm.heads.template import ALL_PARTS, PARTS, REMAINDER, HeadTemplate

Donors = Literal["one", "independent"]
"""Whether all grafted parts of a composite are of one other subject, as in the paper, or each of another."""


@cache
def graft_sites(source: HeadSource) -> Mapping[str, GraftSite]:
    """Where each of the parts is cut out of the source's heads."""
    return {part: GraftSite.of(source.template, part) for part in PARTS}


def draw_donors(host: int, others: Sequence[int], donors: Donors, rng: np.random.Generator) -> dict[str, int]:
    """The subject that each part of a composite is of; the remainder is the host's.

    Args:
        host: number of the subject that gets the parts.
        others: numbers of those that may give them, the host among them or not.
        donors: one for all parts, or one for each; a part may then stay the host's.
        rng: of the draws.
    """
    if donors == "one":
        others = [other for other in others if other != host]
    drawn = rng.choice(others, 1 if donors == "one" else len(PARTS))
    return {part: int(number) for part, number in zip(PARTS, np.broadcast_to(drawn, len(PARTS)), strict=True)} | {
        REMAINDER: host
    }


def composite(
    source: HeadSource, heads: Mapping[int, Float[np.ndarray, "v 3"]], donors: Mapping[str, int], *, blended: bool
) -> Float[np.ndarray, "v 3"]:
    """The head of the remainder's subject with the other parts of theirs.

    Args:
        source: of the heads.
        heads: vertices by subject, in one frame.
        donors: as `draw_donors` gives them.
        blended: as `GraftSite.graft` takes it.
    """
    host = heads[donors[REMAINDER]]
    for part, site in graft_sites(source).items():
        if donors[part] != donors[REMAINDER]:
            host = site.graft(host, heads[donors[part]], blended=blended)
    return host


@cache
def vertex_parts(source: HeadSource) -> UInt8[np.ndarray, " v"]:
    """The part that each vertex belongs to, as its place in `ALL_PARTS`."""
    labels = np.full(len(source.template.vertices), ALL_PARTS.index(REMAINDER), np.uint8)
    for part, site in graft_sites(source).items():
        labels[site.inside] = ALL_PARTS.index(part)
    return labels


def keypoint_vertices(template: HeadTemplate) -> Int[np.ndarray, " 107"]:
    """The vertices of the 39 anchors, then those of the 68 landmarks."""
    return np.concatenate([template.anchors, template.landmarks])


def stages(source: HeadSource, head: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "2 2 v 3"]:
    """A neutral head on the way to the template, part by part.

    Indexed by whether the grafted parts are the template's already, then by whether the remainder is: [0, 0] is the
    head itself, [1, 0] the head with the template's parts, [0, 1] the template with the head's parts, [1, 1] the
    template. A point of one part is found on them whatever the other parts are.
    """
    template = source.template.vertices
    parts_done, rest_done = head, template
    for site in graft_sites(source).values():
        parts_done, rest_done = site.graft(parts_done, template), site.graft(rest_done, head)
    return np.stack([head, rest_done, parts_done, template]).reshape(2, 2, -1, 3)


def settle_remainder(
    places: Float[np.ndarray, "2 2 n 3"], parts: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "2 2 n 3"]:
    """Points of `stages` by whether their own part is the template's: those of the remainder are as soon as it is."""
    rest = parts == ALL_PARTS.index(REMAINDER)
    settled = places.copy()
    settled[0, 1, rest] = settled[1, 0, rest] = places[1, 1, rest]
    return settled
