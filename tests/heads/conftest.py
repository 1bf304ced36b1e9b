"""The arrays of the shipped head, which the tests of its parts share."""

import numpy as np
import pytest

from implicit3dmm.heads.closing import Closing
from implicit3dmm.resources import asset


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    with np.load(asset("makehuman_head.npz"), allow_pickle=False) as file:
        return {key: file[key] for key in file.files if key not in ("macro", "race", "local", "asym")}


@pytest.fixture(scope="session")
def cage_faces(arrays) -> list[tuple[int, ...]]:
    return [tuple(row[row >= 0].tolist()) for row in arrays["cage_faces"]]


@pytest.fixture(scope="session")
def closing(arrays) -> Closing:
    return Closing.from_arrays(arrays)


@pytest.fixture(scope="session")
def open_head(arrays) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Skin (1, s, 3) and the eyeballs of the base mesh, dm."""
    tracked = arrays["mean_q4"][None] / 1e4
    skin, left, right = np.split(tracked, np.cumsum([arrays["n_skin"], arrays["n_eye"]]), axis=1)
    return skin, (left, right)
