"""The twins of LAMM's training step are the same computation."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from implicit3dmm.mesh_models.base import Batch
from implicit3dmm.mesh_models.lamm import LAMM, LAMMConfig
from implicit3dmm.mesh_models.topology import Topology

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_lamm.py"


@pytest.mark.parametrize("form", ["adding", "gathering"])
def test_a_twin_that_merges_every_layer_has_the_loss_and_gradients_of_the_training_step(form):
    benchmark = runpy.run_path(str(SCRIPT))
    regions = {"a": [0, 3, 5], "b": [1, 2, 4, 6]}
    topology = Topology.of_regions(np.array([[0, 1, 2]]), np.zeros(1, bool), 7, regions, {"a": [3]})
    torch.manual_seed(0)
    network = LAMM(LAMMConfig(width=8, latent_dim=4, control_widths=(3, 3)), topology).double()
    vertices = torch.randn(3, 7, 3, dtype=torch.float64)
    losses = network.losses(Batch(vertices, vertices, {}), generator=torch.Generator())
    torch.set_default_dtype(torch.float64)
    twin = benchmark["merged_loss"](network, vertices, form)
    torch.set_default_dtype(torch.float32)
    assert abs(twin - losses["total"]) < 1e-12
    own, other = (
        torch.autograd.grad(loss, list(network.parameters()), allow_unused=True) for loss in (losses["total"], twin)
    )
    for a, b in zip(own, other, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
