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
        chosen = topology.control_regions == number
        points = topology.controls[chosen]
        placed = placed_region(topology, source, donor, number)[np.searchsorted(topology.regions[number], points)]
        moves[chosen] = placed - source[points]
    return moves


def placed_region(
    topology: Topology, source: Float[np.ndarray, "v 3"], donor: Float[np.ndarray, "v 3"], number: int
) -> Float[np.ndarray, "n 3"]:
    """Where the vertices of a donor's region are once the rigid motion of its rim has brought it to the source.

    Args:
        topology: of both heads.
        source: vertices of the head that the region is taken to.
        donor: vertices of the head that it is taken from.
        number: the region's place in the topology's `names`.
    """
    rim, region = topology.rims[number], topology.regions[number]
    motion = fit_similarity(donor[rim], source[rim], with_scale=False)
    return motion.apply(donor[region].astype(np.float64))


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
