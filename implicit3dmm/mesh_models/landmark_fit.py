"""Codes of mesh models from a few points (Abrevaya et al. 2019, section 5.5, "Reconstruction of Sparse Data")."""

import numpy as np
import torch
from jaxtyping import Float, Int

from implicit3dmm.errors import InputError
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.mesh_models.base import MeshModel


def fit_landmarks(
    model: MeshModel,
    vertices: Int[np.ndarray, " k"],
    points: Float[np.ndarray, "n 3"],
    *,
    weight: float,
    rng: np.random.Generator,
    steps: int = 200,
) -> Float[np.ndarray, " d"]:
    """The code whose head comes nearest to the points: least sum ||k_i - v_i(z)||^2 + weight ||z||^2 (equation 13).

    The paper descends with Adam; L-BFGS, which is used here, needs fewer steps.

    Args:
        model: whose codes are standard normal.
        vertices: numbers of the landmarks' vertices.
        points: where these lie, canonical units; distances count in millimetres.
        weight: of the code's squared norm; at 1 a code's standard deviation counts as much as an error of 1 mm.
        rng: draws the start.
        steps: of the solver at most.

    Raises:
        InputError: the points are not one for each vertex, or a vertex is not one of the model's.
    """
    if points.shape != (len(vertices), 3) or not len(vertices):
        raise InputError(f"points of shape {points.shape} given for {len(vertices)} vertices; give one point for each")
    if vertices.min() < 0 or vertices.max() >= model.topology.size:
        raise InputError(f"{model.name} has the vertices 0 to {model.topology.size - 1}; landmarks name others")
    chosen = torch.as_tensor(vertices)
    target = torch.as_tensor(points, dtype=torch.float32)
    start = rng.normal(size=(1, model.network.latent_dim))
    code = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    solver = torch.optim.LBFGS([code], max_iter=steps, line_search_fn="strong_wolfe")

    def energy() -> torch.Tensor:
        solver.zero_grad()
        error = (model.network.decode(code)[0, chosen] - target) * UNIT_MM
        loss = error.square().sum() + weight * code.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(energy)
    return code.detach().numpy()[0]
