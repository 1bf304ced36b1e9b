"""Heads in correspondence: order, neutral rows and labels."""

import numpy as np
import pytest

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.data.registered import AGES, UNKNOWN, RegisteredHeads
from implicit3dmm.errors import InputError


@pytest.fixture(scope="module")
def heads() -> Heads:
    recipe = Recipe(seed=4, train=3, test=2, expressions=("smile", "neutral"), random_expressions=1)
    return Heads(recipe, name="people")


@pytest.fixture(scope="module")
def registered(heads) -> RegisteredHeads:
    return RegisteredHeads.of(heads, "test")


def test_rows_are_the_records_of_the_split_in_order(heads, registered):
    assert len(registered) == 6
    assert registered.subjects.tolist() == [3, 3, 3, 4, 4, 4]
    for row, record in enumerate(heads.records("test").tolist()):
        np.testing.assert_allclose(registered.vertices[row], heads.head(record).vertices, atol=1e-6)


def test_every_head_knows_its_own_neutral_head(heads, registered):
    assert registered.rest.tolist() == [1, 1, 1, 4, 4, 4]
    record = heads.records("test").tolist()[5]
    np.testing.assert_allclose(registered.vertices[registered.rest[5]], heads.head(record).neutral, atol=1e-6)


def test_labels_count_people_and_expressions_and_random_ones_have_none(heads, registered):
    assert registered.labels["identity"].tolist() == [0, 0, 0, 1, 1, 1]
    assert registered.labels["expression"].tolist() == [0, 1, UNKNOWN] * 2
    years = [heads.head(record).person.about["years"] for record in heads.records("test").tolist()]
    assert registered.labels["age"].tolist() == [sum(year >= age for age in AGES) for year in years]


@pytest.mark.parametrize("labels", [[-2, 0], [0.0, 1.0], [0], [[0, 1]]])
def test_labels_out_of_range_are_refused(registered, labels):
    two = np.arange(2)
    with pytest.raises(InputError, match=r"labels 'age' of 2 heads .* expected a whole number from 0 for each head"):
        RegisteredHeads(registered.vertices[:2], two, two, {"age": np.array(labels)})


def test_heads_that_are_not_there_are_refused(heads):
    with pytest.raises(InputError, match="people has no validation heads; choose another split or corpus"):
        RegisteredHeads.of(heads, "validation")
    smiles = Heads(Recipe(train=2, expressions=("smile",)), name="smiles")
    with pytest.raises(InputError, match="smiles has no neutral heads, which mesh models need; add neutral"):
        RegisteredHeads.of(smiles, "train")
