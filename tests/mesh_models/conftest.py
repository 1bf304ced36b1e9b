"""A small PCA model, and deformed spheres for networks; read them, never change their arrays."""

import numpy as np
import pytest
import trimesh

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.mesh_models.pca import PCAModel
from implicit3dmm.mesh_models.topology import Topology


@pytest.fixture(scope="session")
def people() -> Heads:
    """48 heads to learn from and two that are held out."""
    return Heads(Recipe(seed=8, train=48, validation=2), name="people")


@pytest.fixture(scope="session")
def model(people) -> PCAModel:
    """Thirty components."""
    return PCAModel.of(people, components=30)


@pytest.fixture(scope="session")
def ball() -> Topology:
    """A sphere of 642 vertices with three regions, one above the other."""
    sphere = trimesh.creation.icosphere(subdivisions=3)
    height = np.asarray(sphere.vertices)[:, 1]
    members = np.digitize(height, [-0.3, 0.3])
    regions = {name: np.flatnonzero(members == number) for number, name in enumerate(("low", "middle", "high"))}
    controls = {name: vertices[:1] for name, vertices in regions.items()}
    return Topology.of_regions(sphere.faces, np.zeros(len(sphere.faces), bool), len(height), regions, controls)


@pytest.fixture(scope="session")
def balls() -> RegisteredHeads:
    """24 spheres, smoothly deformed in four ways, each its own neutral head."""
    rng = np.random.default_rng(0)
    sphere = np.asarray(trimesh.creation.icosphere(subdivisions=3).vertices)
    waves = [np.sin(2 * sphere @ rng.normal(size=(3, 3))) for _ in range(4)]
    vertices = sphere + np.tensordot(rng.normal(size=(24, 4)), waves, 1) * 0.05
    numbers = np.arange(24)
    return RegisteredHeads(vertices.astype(np.float32), numbers, numbers, {})
