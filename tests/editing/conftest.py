import pytest
import torch

from implicit3dmm.models import HeadModel, load_model


@pytest.fixture(scope="session")
def model() -> HeadModel:
    """The released model."""
    return load_model("imhead")


@pytest.fixture(scope="session")
def people(model):
    """Two heads that differ, as fields."""
    codes = model.prior.sample(2, generator=torch.Generator().manual_seed(3))
    return [model.condition({name: table[i : i + 1] for name, table in codes.items()}) for i in range(2)]
