import numpy as np
import pytest
import torch
import yaml

from implicit3dmm.data.corpus import Corpus, open_heads
from implicit3dmm.data.heads import Heads
from implicit3dmm.data.npz import read_npz
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.errors import InputError


def test_a_recipe_alone_names_the_records_that_its_corpus_has(tiny_corpus):
    heads = Heads(tiny_corpus.recipe, name="tiny")
    subjects, records = (
        read_npz(tiny_corpus.folder / f"{n}.npz", (c,)) for n, c in (("subjects", "split"), ("records", "subject"))
    )
    np.testing.assert_array_equal(heads.split, subjects["split"])
    np.testing.assert_array_equal(heads.record_subject, records["subject"])
    for split in ("train", "validation", "test"):
        assert torch.equal(heads.records(split), tiny_corpus.records(split))
    np.testing.assert_array_equal(heads.mesh(7).vertices, tiny_corpus.mesh(7).vertices)


def test_records_are_numbered_subject_by_subject():
    heads = Heads(Recipe(train=2, test=1, expressions=("neutral", "smile")), name="two faces")
    assert heads.record_subject.tolist() == [0, 0, 1, 1, 2, 2]
    assert heads.records("test").tolist() == [4, 5]
    head = heads.head(3)
    assert (head.subject, head.expression) == (1, "smile")


def test_heads_are_opened_by_folder_recipe_file_and_shipped_recipe(tiny_corpus, tmp_path):
    assert isinstance(open_heads(tiny_corpus.folder), Corpus)
    assert open_heads(tiny_corpus.folder).name == tiny_corpus.folder.name
    path = tmp_path / "skin.yaml"
    path.write_text(yaml.safe_dump({"seed": 3, "train": 2, "detail_mm": 0.3}))
    assert (open_heads(path).name, open_heads(path).recipe.detail_mm) == ("skin", 0.3)
    assert (open_heads("base").name, open_heads("base").recipe.test) == ("base", 50)


def test_what_is_neither_is_refused_with_the_names_of_the_shipped_ones(tmp_path):
    with pytest.raises(
        InputError, match="none holds no finished corpus, and there is no shipped config 'none'; give a"
    ):
        open_heads("none")
    with pytest.raises(InputError, match="no finished corpus"):
        open_heads(tmp_path)
    with pytest.raises(InputError, match="train, validation, test"):
        Heads(Recipe(train=0), name="nobody")
