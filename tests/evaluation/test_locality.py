"""Swaps between fitted heads, on fits that are known."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.locality import COLUMNS, LocalityConfig, evaluate_locality
from implicit3dmm.evaluation.methods import FieldMethod
from implicit3dmm.extraction import extract
from implicit3dmm.fields import DeepSDFConfig, build_field
from implicit3dmm.fitting import FitConfig
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.latents import LatentPrior
from implicit3dmm.models import HeadModel, load_model

MODEL = "imhead-neutral"
RESOLUTION = 40
TWO = LocalityConfig(parts=("nose", "ears"), pairs=2, split="train")


@dataclass
class Fit:
    codes: dict
    similarity: Similarity
    mesh: Mesh


class Knowing(FieldMethod):
    """A method whose fits are draws from its prior, one after the other."""

    def fit(self, points):
        seed = int(np.abs(points).sum()) % 1000
        codes = self.model.prior.sample(1, generator=torch.Generator().manual_seed(seed))
        mesh = extract(self.model, codes, resolution=self.resolution).mesh
        return Fit(codes, Similarity.identity(), mesh)


@pytest.fixture(scope="module")
def method():
    return Knowing(load_model(MODEL), FitConfig(), RESOLUTION, "digest")


@pytest.fixture(scope="module")
def rows(method, tiny_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("locality")
    return folder, evaluate_locality(tiny_corpus, [method], folder=folder, config=TWO)[MODEL]


def test_each_pair_and_part_has_a_row_and_the_figures_say_that_the_part_alone_moved(rows):
    folder, found = rows
    assert [(row["base"], row["donor"], row["part"]) for row in found] == [
        (0, 1, "nose"), (0, 1, "ears"), (1, 2, "nose"), (1, 2, "ears")
    ]  # fmt: skip
    for row in found:
        assert row["inside_mm"] > 0.3
        assert row["leak"] == row["beyond_mm"] / row["inside_mm"] < 0.05
        assert row["donor_after_mm"] < 0.8 * row["donor_before_mm"]
        assert 0 < row["border_after_degrees"] < 60
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["methods"][MODEL]["nose"]["leak"]["count"] == 2
    page = (folder / "summary.md").read_text()
    assert page.count(f"| {MODEL} ") == 2
    assert all(title in page for title in COLUMNS.values())


def test_a_run_goes_on_and_does_nothing_twice(rows, method, tiny_corpus):
    folder, found = rows
    done = []
    more = LocalityConfig(parts=("nose", "ears"), pairs=3, split="train")
    again = evaluate_locality(
        tiny_corpus, [method], folder=folder, config=more, progress=lambda swaps: done.extend(swaps) or swaps
    )[MODEL]
    assert done == [(2, 3, "nose"), (2, 3, "ears")]
    assert again[:4] == found


def test_what_has_no_such_parts_is_refused_before_any_work(method, tiny_corpus, tmp_path):
    with pytest.raises(InputError, match="no part 'hair'"):
        evaluate_locality(tiny_corpus, [method], folder=tmp_path / "a", config=replace(TWO, parts=("hair",)))
    field = build_field(DeepSDFConfig(4, 16, 3))
    prior = LatentPrior.from_tensors(
        {
            "prior.identity.mean": torch.zeros(4),
            "prior.identity.axes": torch.eye(4),
            "prior.identity.std": torch.ones(4),
        },
        ["identity"],
    )
    plain = FieldMethod(HeadModel(field, prior, {"name": "plain"}), FitConfig(), RESOLUTION, "digest")
    with pytest.raises(InputError, match="plain has no parts to swap"):
        evaluate_locality(tiny_corpus, [plain], folder=tmp_path / "b", config=TWO)
    for alone in (LocalityConfig(split="test", pairs=1), replace(TWO, pairs=7)):
        with pytest.raises(InputError, match="a swap takes two heads, and each has one next to it"):
            evaluate_locality(tiny_corpus, [method], folder=tmp_path / "c", config=alone)
    with pytest.raises(InputError, match="at least one part"):
        evaluate_locality(tiny_corpus, [method], folder=tmp_path / "d", config=LocalityConfig(pairs=0))
    assert not any(tmp_path.iterdir())
