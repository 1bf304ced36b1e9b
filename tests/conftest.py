"""What tests of several folders share."""

import pytest

from implicit3dmm.data.corpus import Corpus, build_corpus
from implicit3dmm.data.recipe import Recipe

TINY = Recipe(seed=5, train=6, validation=1, test=1, surface_points=1024, distance_points=1024)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory) -> Corpus:
    """Eight neutral heads with 1024 points of each kind; read it, never write into its folder."""
    return build_corpus(TINY, tmp_path_factory.mktemp("corpus") / "tiny")
