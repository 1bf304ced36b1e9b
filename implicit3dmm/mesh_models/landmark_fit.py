"""Codes of models of registered heads from a few points (Abrevaya et al. 2019, section 5.5)."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit3dmm.errors import InputError
from implicit3dmm.heads.frame import UNIT_MM

Landmarks = Callable[[Float[Tensor, "b d"]], Float[Tensor, "b n 3"]]
"""Where the landmarks of heads of some codes are, canonical units."""


def fit_landmarks(
    landmarks: Landmarks,
    points: Float[np.ndarray, "n 3"],
    *,
    size: int,
    weight: float,
    rng: np.random.Generator,
    steps: int = 200,
) -> Float[np.ndarray, " d"]:
    """The code whose landmarks come nearest to points: least sum ||k_i - v_i(z)||^2 + weight ||z||^2 (equation 13).

    The paper descends with Adam; L-BFGS, which is used here, needs fewer steps.

    Args:
        landmarks: of a model whose codes are standard normal.
        points: of the head, canonical units; distances count in millimetres.
        size: of a code.
        weight: of the code's squared norm; at 1 a code's standard deviation counts as much as an error of 1 mm.
        rng: draws the start, which is a tenth of a standard deviation long.
        steps: of the solver at most.

    Raises:
        InputError: the points are not as many as the landmarks.
    """
    wanted = torch.as_tensor(points, dtype=torch.float32)
    code = torch.tensor(0.1 * rng.normal(size=(1, size)), dtype=torch.float32, requires_grad=True)
    expected = landmarks(code).shape[1:]
    if wanted.shape != expected:
        raise InputError(f"points of shape {tuple(wanted.shape)} given; expected {tuple(expected)}")
    solver = torch.optim.LBFGS([code], max_iter=steps, line_search_fn="strong_wolfe")

    def energy() -> Tensor:
        solver.zero_grad()
        error = (landmarks(code)[0] - wanted) * UNIT_MM
        loss = error.square().sum() + weight * code.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(energy)
    return code.detach().numpy()[0]
