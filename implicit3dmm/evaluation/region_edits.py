"""What new regions and corrupted tokens change of a head, vertex by vertex (LAMM, Fig. 9, section 3.2)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit3dmm.evaluation.statistics import Estimate, estimate_mean
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.mesh_models.lamm import LAMM
from implicit3dmm.mesh_models.model import MeshModel
from implicit3dmm.mesh_models.topology import Topology

DRAWS = 20
"""New regions of each head, as in the paper's Fig. 9, and corruptions of each token."""
SEED = 0


class Drawn(NamedTuple):
    """What new shapes of one region change, mm of the average adult; each estimate is over the heads."""

    inside: Estimate
    """Of the region's vertices, from where the network alone gives them back."""
    outside: Estimate
    ratio: Estimate
    """Outside over inside."""
    from_input: Estimate
    """Of all other vertices, from the head that was given: what is lost in giving it back included."""


class NewRegions(NamedTuple):
    """New regions of some heads."""

    given_back: Float[np.ndarray, " v"]
    """Mean distance of each vertex from the head to what the network gives back, mm."""
    changes: dict[str, Float[np.ndarray, " v"]]
    """Mean distance of each vertex from there to where a new region has it, by region, mm."""
    drawn: dict[str, Drawn]


class Corrupted(NamedTuple):
    """What the loss of one decoder token changes, mm of the average adult; each estimate is over the heads."""

    regions: dict[str, float]
    """Mean over the vertices of each region, by its name."""
    own: Estimate
    """Of the token's region."""
    others: Estimate
    """Of all vertices of other regions."""
    ratio: Estimate
    """Others over own."""


@torch.no_grad()
def new_regions(model: MeshModel, heads: Float[Tensor, "r v 3"], names: Sequence[str]) -> NewRegions:
    """Draws regions of heads anew, `DRAWS` times each, and measures what changes (Fig. 9).

    The paper measures from the input to the output. Here the two halves of that way are kept apart, since a network
    that gives heads back less exactly is no less local for it.

    Args:
        model: a network with editable regions.
        heads: canonical units.
        names: of the regions, drawn one at a time.

    Raises:
        InputError: the network has no editable regions, or no such region.
    """
    rngs = {name: np.random.default_rng([SEED, model.topology.region(name)]) for name in names}
    topology, network = model.topology, model.network
    back = np.zeros(topology.size)
    changes = {name: np.zeros(topology.size) for name in names}
    columns: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for head in heads[:, None]:
        still = network.decode(network.encode(head))
        back += moved_mm(still, head)[0] / len(heads)
        for name, change in changes.items():
            made = network.with_new_region(head.expand(DRAWS, -1, -1), name, rng=rngs[name])
            moved = moved_mm(made, still).mean(0)
            own = topology.labels == topology.region(name)
            missed = moved_mm(made, head)[:, ~own].mean()
            change += moved / len(heads)
            columns[name].append((moved[own].mean(), moved[~own].mean(), missed))
    drawn = {name: _drawn(*np.array(rows).T) for name, rows in columns.items()}
    return NewRegions(back, changes, drawn)


@torch.no_grad()
def corrupted_tokens(network: LAMM, heads: Float[Tensor, "r v 3"]) -> dict[str, Corrupted]:
    """Corrupts the decoder's learnt tokens, one at a time, while no control point moves (section 3.2).

    The paper finds that this influences the token's region alone, and leaves open how tokens are corrupted. Here all
    numbers of a token are replaced, at the decoder's input, by normal ones of their own mean and standard deviation:
    the token says nothing any more, and is as large as before. Each is drawn `DRAWS` times, the same for all heads.

    Args:
        network: of any stage of training.
        heads: canonical units.

    Returns:
        What changes, by the region whose token it is.
    """
    generator = torch.Generator().manual_seed(SEED)
    topology = network.topology
    inputs = network.decoder_input(network.encode(heads))
    still = network.decode_tokens(inputs)
    shares = _shares(topology)
    sizes = np.array([len(region) for region in topology.regions])
    found = {}
    for number, name in enumerate(topology.names):
        token, moved = network.decoder_tokens[number], np.zeros((len(heads), len(sizes)))
        for _ in range(DRAWS):
            drawn = torch.randn(token.shape, generator=generator).to(token)
            corrupted = inputs.clone()
            corrupted[:, 1 + number] = token.mean() + token.std() * drawn
            moved += moved_mm(network.decode_tokens(corrupted), still) @ shares / DRAWS
        own, weights = moved[:, number], np.where(np.arange(len(sizes)) == number, 0, sizes)
        others = moved @ weights / weights.sum()
        by_region = dict(zip(topology.names, moved.mean(0).tolist(), strict=True))
        found[name] = Corrupted(by_region, *map(estimate_mean, (own, others, others / own)))
    return found


def _drawn(inside: np.ndarray, outside: np.ndarray, missed: np.ndarray) -> Drawn:
    return Drawn(*map(estimate_mean, (inside, outside, outside / inside, missed)))


def moved_mm(found: Float[Tensor, "b v 3"], start: Float[Tensor, "#b v 3"]) -> Float[np.ndarray, "b v"]:
    """Distances of the vertices, mm of the average adult."""
    return UNIT_MM * (found - start).norm(dim=-1).double().numpy()


def _shares(topology: Topology) -> Float[np.ndarray, "v k"]:
    """The matrix that takes figures of vertices to their means over the regions."""
    member = topology.labels[:, None] == np.arange(len(topology.names))
    return member / member.sum(0)
