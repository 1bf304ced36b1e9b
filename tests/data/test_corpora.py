"""Several corpora as one: numbers go on, samples are those of the members."""

import pytest
import torch

from implicit3dmm.data.building import build_corpus
from implicit3dmm.data.corpora import Corpora, by_member
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.errors import InputError


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    recipe = Recipe(seed=6, train=2, test=1, surface_points=512, distance_points=512)
    return build_corpus(recipe, tmp_path_factory.mktemp("other") / "corpus")


def test_the_second_is_numbered_after_the_first(tiny_corpus, other):
    both, first = Corpora([tiny_corpus, other]), len(tiny_corpus.record_subject)
    assert both.records("train").tolist() == [*tiny_corpus.records("train"), first, first + 1]
    assert both.records("test").tolist() == [*tiny_corpus.records("test"), first + 2]
    assert both.record_subject[-3:].tolist() == [tiny_corpus.recipe.subjects + i for i in range(3)]
    assert torch.equal(both.anchors[first:], other.anchors)


def test_samples_come_from_the_member_and_keep_the_order(tiny_corpus, other):
    both, first = Corpora([tiny_corpus, other]), len(tiny_corpus.record_subject)
    records = torch.tensor([first + 1, 0, first, 2])
    drawn = both.samples(records, (7, 9), torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    for i, (member, record) in enumerate([(other, 1), (tiny_corpus, 0), (other, 0), (tiny_corpus, 2)]):
        alone = member.samples(torch.tensor([record]), (7, 9), generator)
        assert all(torch.equal(rows[i], own[0]) for rows, own in zip(drawn, alone, strict=True))


def test_subjects_are_told_apart_by_member(tiny_corpus, other):
    both, first = Corpora([tiny_corpus, other]), tiny_corpus.recipe.subjects
    (one, start, own), (two, later, theirs) = by_member(both, torch.tensor([1, 3, first, first + 2]))
    assert (one, start, own.tolist()) == (tiny_corpus, 0, [1, 3])
    assert (two, later, theirs.tolist()) == (other, first, [0, 2])
    assert [(m, s, o.tolist()) for m, s, o in by_member(other, torch.tensor([0, 1]))] == [(other, 0, [0, 1])]


def test_corpora_that_share_heads_are_refused(tiny_corpus):
    with pytest.raises(InputError, match="share heads"):
        Corpora([tiny_corpus, tiny_corpus])
