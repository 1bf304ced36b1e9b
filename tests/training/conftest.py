"""A training changes torch's threads and denormals; each test leaves them as it found them."""

import pytest


@pytest.fixture(autouse=True)
def _torch_as_it_was(torch_as_it_was):
    pass
