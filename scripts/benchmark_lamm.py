"""Speed and memory of LAMM at the paper's sizes: decoding on one thread, and a training step against its twin.

    python scripts/benchmark_lamm.py [--repeats N] [--train]

The twins decode the tokens of every layer, merge each into a whole mesh and take the loss there, by adding each
region's vertices at their places (as the public code does) or by one gather; the loss and its gradients are equal.
Weights are random: speed does not depend on them. Each figure is taken in a process of its own.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import tyro

from implicit3dmm.evaluation.compare import peak_mb
from implicit3dmm.mesh_models.base import Batch
from implicit3dmm.mesh_models.lamm import LAMM, LAMMConfig
from implicit3dmm.mesh_models.topology import Topology

SIZES = (12_000, 72_000)
REGIONS = 11
CONTROLS = 7
BATCH = 32
FORMS = ("own", "adding", "gathering")
"""Of the training step: ours, and the twins."""


def main(repeats: int = 31, train: bool = False, stage: str | None = None) -> None:
    """Prints the figures.

    Args:
        repeats: Decodes of each kind, of which the median is printed; a tenth as many training steps.
        train: Time training steps at 12,000 vertices too.
        stage: Run one stage alone in this process.
    """
    torch.set_num_threads(1)
    stages = {f"decode {size} {backbone}": (size, backbone) for size in SIZES for backbone in ("mixer", "transformer")}
    if stage is None:
        names = [*stages, *((f"train {form}" for form in FORMS) if train else ())]
        for name in names:
            command = [sys.executable, __file__, "--repeats", str(repeats), "--stage", name]
            subprocess.run(command, check=True)
    elif stage in stages:
        print(decoding(*stages[stage], repeats))
    else:
        print(training(stage.removeprefix("train "), max(repeats // 10, 2)))


@torch.no_grad()
def decoding(size: int, backbone: str, repeats: int) -> str:
    """Time from a code to vertices."""
    network, code = network_of(size, backbone).eval(), torch.randn(1, 256)
    spent = median_ms(lambda: network.decode(code), repeats)
    return f"{backbone}, {size:,} vertices: {spent:.1f} ms of processor time a head"


def training(form: str, repeats: int) -> str:
    """Time and peak memory of a step at a batch of 32."""
    network = network_of(SIZES[0], "mixer")
    vertices = torch.randn(BATCH, SIZES[0], 3)
    batch, generator = Batch(vertices, vertices, {}), torch.Generator()
    optimiser = network.optimiser(learning_rate=1e-4, weight_decay=0.0)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        if form == "own":
            loss = network.losses(batch, generator=generator)["total"]
        else:
            loss = merged_loss(network, vertices, form)
        loss.backward()
        optimiser.step()

    kept = 3 * sum(4e-6 * parameter.numel() for parameter in network.parameters())
    before = peak_mb()
    milliseconds = median_ms(step, repeats)
    return (
        f"training step, {form}: {milliseconds / 1e3:.2f} processor-seconds, at most "
        f"{peak_mb() - before - kept:.0f} MB beside weights, and {kept:.0f} MB of gradients and moments"
    )


def merged_loss(network: LAMM, vertices: torch.Tensor, form: str) -> torch.Tensor:
    """The multilayer loss by whole meshes: every layer's tokens are decoded and merged."""
    inside = network.encoder(network.tokenised(network.by_region(vertices)))
    outside = network.decoder(network.decoder_input(network.down(inside[-1][:, 0])))
    states, last = inside + outside, (len(inside) - 1, len(outside) - 1)
    factors = [1 - layer / last[0] for layer in range(len(inside))] + [layer / last[1] for layer in range(len(outside))]
    merge = added if form == "adding" else gathered
    meshes = merge(network, states)
    targets = torch.tensor(factors)[:, None, None, None] * network.normalised(vertices)
    return (meshes - targets).abs().mean((1, 2, 3)).sum()


def added(network: LAMM, states: list[torch.Tensor]) -> torch.Tensor:
    """Meshes of every state, region by region added to zeros."""
    meshes = torch.zeros(len(states), len(states[0]), network.topology.size, 3)
    for layer, tokens in enumerate(states):
        for number, region in enumerate(network.topology.regions):
            part = network.heads[number](network.narrowed[number](tokens[:, number + 1]))
            meshes[layer, :, torch.from_numpy(region)] += part.unflatten(1, (-1, 3))
    return meshes


def gathered(network: LAMM, states: list[torch.Tensor]) -> torch.Tensor:
    """Meshes of every state, all regions joined and put in order at once."""
    tokens = torch.stack(states)
    parts = [
        head(narrow(tokens[:, :, number].flatten(0, 1)))
        for number, (narrow, head) in enumerate(zip(network.narrowed, network.heads, strict=True), 1)
    ]
    order = np.argsort(np.concatenate(network.topology.regions))
    joined = torch.cat(parts, dim=1).unflatten(1, (-1, 3)).unflatten(0, tokens.shape[:2])
    return joined[:, :, torch.from_numpy(order)]


def network_of(size: int, backbone: str) -> LAMM:
    """The paper's network on so many vertices, which 11 regions part at random."""
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.choice(np.arange(CONTROLS, size - CONTROLS), REGIONS - 1, replace=False))
    regions = {str(number): np.sort(part) for number, part in enumerate(np.split(rng.permutation(size), cuts))}
    controls = {name: part[:CONTROLS] for name, part in regions.items()}
    topology = Topology.of_regions(np.array([[0, 1, 2]]), np.zeros(1, bool), size, regions, controls)
    torch.manual_seed(0)
    return LAMM(LAMMConfig(backbone=backbone), topology)


def median_ms(run: Callable[[], object], repeats: int) -> float:
    """Median processor time, after one run to warm up."""
    run()
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        spent.append(time.process_time() - started)
    return 1e3 * float(np.median(spent))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
