"""Edits of registered heads by their codes: a factor transferred, or the way between two heads."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from implicit3dmm.mesh_models.model import MeshModel


def transfer_factor(
    model: MeshModel,
    head: Float[np.ndarray, "v 3"],
    donor: Float[np.ndarray, "v 3"],
    factor: str,
    *,
    how: Literal["replace", "add"] = "replace",
) -> Float[np.ndarray, "v 3"]:
    """A head with a factor, such as the expression, of another one (Abrevaya et al. 2019, supplement).

    What the exchange of codes changes of the head that the model makes is added to the head itself, so that nothing
    else of it is lost.

    Args:
        model: with factors.
        head: (v, 3) registered vertices, canonical units.
        donor: (v, 3) likewise.
        factor: which.
        how: whether the donor's code replaces the head's own or is added to it.

    Returns:
        (v, 3) vertices, canonical units.

    Raises:
        InputError: the model has no such factor, or a head is of another topology.
    """
    place = model.network.place(factor)
    codes, others = (model.encode(each[None]) for each in (head, donor))
    changed = codes.copy()
    changed[:, place] = others[:, place] + (codes[:, place] if how == "add" else 0)
    return head + (model.decode(changed) - model.decode(codes))[0]


def interpolate_registered(
    model: MeshModel, head: Float[np.ndarray, "v 3"], donor: Float[np.ndarray, "v 3"], share: float
) -> Float[np.ndarray, "v 3"]:
    """A head on the way to another one, along the straight line between their codes.

    What the model misses of the two moves along: at 0 and at 1 they are met exactly.

    Args:
        model: any network of registered heads.
        head: (v, 3) registered vertices, canonical units.
        donor: (v, 3) likewise.
        share: how far; 0 is the head, 1 the donor, beyond it exaggerates.

    Returns:
        (v, 3) vertices, canonical units.

    Raises:
        InputError: a head is of another topology.
    """
    ends = np.stack([head, donor])
    codes = model.encode(ends)
    weights = np.array([1 - share, share], codes.dtype)
    missed = np.tensordot(weights, ends - model.decode(codes), 1)
    return model.decode((weights @ codes)[None])[0] + missed
