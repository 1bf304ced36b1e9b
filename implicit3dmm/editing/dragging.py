"""Edits of registered heads by control points (LAMM): dragged, taken from another head, or drawn anew."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from implicit3dmm.errors import InputError
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.mesh_models.control import confinement
from implicit3dmm.mesh_models.lamm import LAMM
from implicit3dmm.mesh_models.model import MeshModel
from implicit3dmm.mesh_models.topology import Topology


def drag(model: MeshModel, vertices: Float[np.ndarray, "v 3"], moves: Float[np.ndarray, "c 3"]) -> np.ndarray:
    """A head with its control points moved.

    What displacements change of the head that the network makes of its code is added to the head itself, so that
    nothing of it is lost, and displacements of zero give it back to the last bit. Beyond the regions whose points
    move, the change dies away within `COLLAR_MM`.

    Args:
        model: a LAMM that was taught to follow control points.
        vertices: (v, 3) of the head, canonical units.
        moves: of the model's control points, canonical units.

    Returns:
        (v, 3) vertices, canonical units.

    Raises:
        InputError: the model is another one.
    """
    network = steerable(model)
    if not moves.any():
        return vertices
    with torch.no_grad():
        codes = network.encode(torch.as_tensor(np.asarray(vertices, np.float32))[None])
        moved = network.decode(codes, torch.as_tensor(np.asarray(moves, np.float32))[None])
        change = (moved - network.decode(codes))[0].numpy()
    return vertices + confinement(model.topology, vertices, moves)[:, None] * change


def steerable(model: MeshModel) -> LAMM:
    """The network of a model that follows control points.

    Raises:
        InputError: it does not.
    """
    network = model.network
    if not isinstance(network, LAMM) or network.config.learning.task != "control":
        raise InputError(f"{model.name} follows no control points; give a LAMM that lamm/control trained")
    return network


def drawn_moves(
    model: MeshModel, names: Sequence[str], count: int, *, temperature: float, seed: int
) -> Float[np.ndarray, "n c 3"]:
    """Displacements drawn from those between people's regions, canonical units.

    Args:
        model: a LAMM that was taught to follow control points.
        names: regions that are drawn; control points of others stay.
        count: how many.
        temperature: scales the standard deviations; 0 gives the mean.
        seed: of the draws.

    Raises:
        InputError: the model is another one, there is no such region, or a number is out of range.
    """
    if count < 1 or not 0 <= temperature < np.inf or seed < 0:
        raise InputError(
            f"count {count}, temperature {temperature}, seed {seed}: give at least 1, and 0 or more of the others"
        )
    return steerable(model).drawn_moves(names, count, temperature=temperature, rng=np.random.default_rng(seed))


def named_moves(topology: Topology, moves_mm: Mapping[str, Sequence[float]]) -> Float[np.ndarray, "c 3"]:
    """Displacements of control points by name, canonical units.

    Args:
        topology: with the control points.
        moves_mm: displacement in mm of the average adult along the canonical axes (to the subject's left, up, out of
            the face), by the name of a region, whose control points all move, or by region and number: nose/0.

    Raises:
        InputError: there is no such region or control point, or a displacement is not three finite numbers.
    """
    moves = np.zeros((len(topology.controls), 3))
    for name, move in moves_mm.items():
        region, _, number = name.partition("/")
        own = np.flatnonzero(topology.control_regions == topology.region(region))
        if number:
            if not number.isdecimal() or int(number) >= len(own):
                raise InputError(f"no control point {name}; {region} has {region}/0 to {region}/{len(own) - 1}")
            own = own[[int(number)]]
        if len(move) != 3 or not np.isfinite(move).all():
            raise InputError(f"{name} moves by {list(move)}; three numbers in mm were expected, such as {name}=0,0,5")
        moves[own] += np.asarray(move) / UNIT_MM
    return moves
