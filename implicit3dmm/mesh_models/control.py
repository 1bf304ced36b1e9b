"""Displacements of control points: towards another head's region, drawn anew, and what they are like (LAMM, 3.3).

Regions of two heads are brought together by the rigid motion of their rims, in metric space: an affine map of the
rim, or one in standardised coordinates, would take the size of the part for its pose.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.similarity import fit_similarity
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.mesh_models.topology import Topology

COLLAR_MM = 10.0
"""An edit dies away within this distance of its regions."""
PAIRS = 1000
"""Pairs of heads whose regions are compared."""
SEED = 0


def moves_towards(
    topology: Topology, source: Float[np.ndarray, "v 3"], donor: Float[np.ndarray, "v 3"], names: Sequence[str]
) -> Float[np.ndarray, "c 3"]:
    """Displacements that bring the control points of some regions to where the donor's region has them.

    Args:
        topology: of both heads.
        source: vertices of the head that is changed.
        donor: vertices of the other one, in the same unit and about the same pose.
        names: of the regions; control points of others stay.

    Raises:
        InputError: there is no such region.
    """
    moves = np.zeros((len(topology.controls), 3))
    for name in names:
        number = topology.region(name)
        rim, chosen = topology.rims[number], topology.control_regions == number
        points = topology.controls[chosen]
        placed = fit_similarity(donor[rim], source[rim], with_scale=False).apply(donor[points].astype(np.float64))
        moves[chosen] = placed - source[points]
    return moves


def confinement(
    topology: Topology, places: Float[np.ndarray, "v 3"], moves: Float[np.ndarray, "c 3"]
) -> Float[np.ndarray, " v"]:
    """How much of an edit each vertex takes: all in the regions whose control points move, nothing 1 cm beyond.

    Args:
        topology: of the head.
        places: of its vertices, canonical units.
        moves: of the control points.
    """
    edited = np.isin(topology.labels, np.unique(topology.control_regions[moves.any(1)]))
    if not edited.any():
        return np.zeros(topology.size)
    away, _ = NearestNeighbours(places[edited].astype(np.float64)).query(places.astype(np.float64))
    share = np.clip(1 - away * UNIT_MM / COLLAR_MM, 0, 1)
    return share**2 * (3 - 2 * share)


def move_statistics(
    topology: Topology, heads: RegisteredHeads
) -> tuple[Float[np.ndarray, "c 3"], Float[np.ndarray, "d d"]]:
    """Mean and covariance of such displacements between neutral heads of different people.

    Args:
        topology: of the heads.
        heads: to compare.

    Returns:
        The mean, canonical units, and the covariance of its d = 3 c numbers, 0 between regions.
    """
    rng = np.random.default_rng(SEED)
    resting = np.unique(heads.rest)
    moves = []
    while len(moves) < PAIRS:
        source, donor = rng.choice(resting, 2, replace=False)
        moves.append(moves_towards(topology, heads.vertices[source], heads.vertices[donor], topology.names))
    drawn = np.stack(moves).reshape(PAIRS, -1)
    region = np.repeat(topology.control_regions, 3)
    covariance = np.where(region[:, None] == region, np.cov(drawn.T), 0.0)
    return drawn.mean(0).reshape(-1, 3), covariance


def draw_moves(
    topology: Topology,
    mean: Float[np.ndarray, "c 3"],
    covariance: Float[np.ndarray, "d d"],
    names: Sequence[str],
    count: int,
    *,
    temperature: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "n c 3"]:
    """Draws displacements of the control points of some regions; `temperature` scales the standard deviations.

    Raises:
        InputError: there is no such region.
    """
    chosen = np.isin(topology.control_regions, [topology.region(name) for name in names])
    flat = np.repeat(chosen, 3)
    moves = np.zeros((count, len(flat)))
    spread = covariance[np.ix_(flat, flat)] * temperature**2
    moves[:, flat] = rng.multivariate_normal(mean[chosen].ravel(), spread, size=count, method="eigh")
    return moves.reshape(count, -1, 3)
