"""A small PCA model; read it, never change its arrays."""

import pytest

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.mesh_models.pca import PCAModel


@pytest.fixture(scope="session")
def people() -> Heads:
    """48 heads to learn from and two that are held out."""
    return Heads(Recipe(seed=8, train=48, validation=2), name="people")


@pytest.fixture(scope="session")
def model(people) -> PCAModel:
    """Thirty components."""
    return PCAModel.of(people, components=30)
