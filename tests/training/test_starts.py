"""Codes start from principal components: of whole heads, or around each anchor."""

import numpy as np
import pytest
import torch

from implicit3dmm.data.axes import neutral_vertices
from implicit3dmm.data.building import build_corpus
from implicit3dmm.data.corpora import Corpora
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.heads.template import ANCHORS
from implicit3dmm.latents import LatentBank, LatentSpec
from implicit3dmm.training.starts import PLACE, components, start_codes


@pytest.fixture(scope="module")
def centred(tiny_corpus) -> np.ndarray:
    heads = neutral_vertices(tiny_corpus, tiny_corpus.subjects("train")).astype(np.float64)
    return heads - heads.mean(0)


def started(corpus, spec: LatentSpec) -> torch.Tensor:
    subjects = corpus.record_subject[corpus.records("train")].unique()
    bank = LatentBank([spec], corpus.record_subject, torch.Generator().manual_seed(0))
    start_codes(bank, corpus, subjects, whitening=0.0)
    return bank.tables[spec.name].detach()[subjects]


def test_without_whitening_they_keep_the_distances_of_space(centred):
    codes = components(centred, 5, whitening=0.0).astype(np.float64)
    space = np.linalg.norm(centred[:, None] - centred, axis=-1)
    code = np.linalg.norm(codes[:, None] - codes, axis=-1)
    np.testing.assert_allclose(code, space * np.sqrt(6) / np.linalg.svd(centred, compute_uv=False)[0], atol=1e-3)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_the_spread_follows_its_law(centred, whitening):
    codes = components(centred, 5, whitening=whitening).astype(np.float64)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (spread[:5] / spread[0]) ** (1 - whitening)
    np.testing.assert_allclose(codes.std(0), expected, rtol=1e-2)
    np.testing.assert_allclose(codes.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.corrcoef(codes.T), np.eye(5), atol=1e-3)
    np.testing.assert_allclose(np.abs((left[:, :5] * codes).sum(0)), np.sqrt(6) * expected, rtol=1e-2)


def test_components_beyond_the_subjects_are_zero(centred):
    codes = components(centred, 9, whitening=0.5)
    assert codes.shape == (6, 9)
    assert codes.dtype == np.float32
    assert not codes[:, 5:].any()
    assert codes[:, :5].all()


def test_a_code_per_anchor_keeps_the_distances_of_the_heads_around_it(tiny_corpus, centred):
    codes = started(tiny_corpus, LatentSpec("local", len(ANCHORS) * 12, 1.0, "subject", per_anchor=True))
    codes = codes.unflatten(1, (len(ANCHORS), 12)).double().numpy()
    template, nose = tiny_corpus.source.template, ANCHORS.index("nose_tip")
    distance = np.linalg.norm(template.vertices - template.vertices[template.anchors[nose]], axis=1)
    around = centred.reshape(6, -1, 3)[:, np.argsort(distance)[:PLACE]].reshape(6, -1)
    space = np.linalg.norm(around[:, None] - around, axis=-1)
    code = np.linalg.norm(codes[:, nose][:, None] - codes[:, nose], axis=-1)
    np.testing.assert_allclose(code / code.max(), space / space.max(), atol=0.02)


def test_mirrored_heads_get_mirrored_codes(tiny_corpus, monkeypatch):
    template = tiny_corpus.source.template

    def mirrored(heads, subjects):
        rows = neutral_vertices(heads, subjects).reshape(len(subjects), -1, 3)
        return (rows[:, template.mirror] * np.float32([-1, 1, 1])).reshape(len(subjects), -1)

    spec = LatentSpec("local", len(ANCHORS) * 4, 1.0, "subject", per_anchor=True)
    plain = started(tiny_corpus, spec).unflatten(1, (len(ANCHORS), 4))
    monkeypatch.setattr("implicit3dmm.training.starts.neutral_vertices", mirrored)
    other = started(tiny_corpus, spec).unflatten(1, (len(ANCHORS), 4))
    sign = (plain[:, 1:2] * other[:, :1]).sum(0, keepdim=True).sign()  # an axis may point either way
    torch.testing.assert_close(other[:, :1], sign * plain[:, 1:2], atol=2e-3, rtol=0)


def test_heads_of_another_topology_start_in_the_same_space(tiny_corpus, tmp_path):
    twin = build_corpus(Recipe(seed=6, train=6, surface_points=64, distance_points=64), tmp_path / "twin")
    codes = started(Corpora([tiny_corpus, twin]), LatentSpec("identity", 16, 1.0, "subject"))
    assert codes.shape == (12, 16)
    assert (codes[:, :11].std(0) > 0).all()
    assert codes.mean(0).abs().max() < 1e-4
