"""What tests of several folders share."""

import os
from pathlib import Path

import pytest
import torch

from implicit3dmm.data.building import build_corpus
from implicit3dmm.data.corpus import Corpus
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.data.sources import HeadSource, open_source
from implicit3dmm.heads.template import HeadTemplate

TINY = Recipe(seed=5, train=6, validation=1, test=1, surface_points=1024, distance_points=1024)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory) -> Corpus:
    """Eight neutral heads with 1024 points of each kind; read it, never write into its folder."""
    return build_corpus(TINY, tmp_path_factory.mktemp("corpus") / "tiny")


@pytest.fixture(scope="session")
def makehuman() -> HeadSource:
    """The built-in source."""
    return open_source("makehuman")


@pytest.fixture(scope="session")
def template(makehuman) -> HeadTemplate:
    """The built-in head."""
    return makehuman.template


@pytest.fixture
def torch_as_it_was():
    """One thread; and torch's threads and denormals, which a training changes, are left as they were found."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def no_tries(monkeypatch) -> None:
    """Expressions are found by the solver's steps alone: trying units one by one is most of a small fit's time."""
    monkeypatch.setattr("implicit3dmm.fitting.solver.TRIED_AT", ())


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Data that the project may not carry: the folder IMPLICIT3DMM_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("IMPLICIT3DMM_DATA") or Path(__file__).parents[2] / "shared/data")
    if not folder.is_dir():
        pytest.skip("needs data that the project may not carry: set IMPLICIT3DMM_DATA to their folder")
    return folder
