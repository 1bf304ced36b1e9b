"""The page on data says what is true: its example runs, its figures hold."""

import re
from pathlib import Path

import numpy as np
import pytest

from implicit3dmm.data.building import SUBJECTS_PER_SHARD, build_corpus
from implicit3dmm.data.corpus import FORMAT_VERSION, SHARD_ARRAYS
from implicit3dmm.data.quantisation import QUANTUM
from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.data.sources import base, source_names
from implicit3dmm.data.sources.ict_files import CLONE_VARIABLE, DATA_VARIABLE, FILE_NAME
from implicit3dmm.errors import InputError

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.fixture(scope="module")
def page() -> str:
    if not PAGE.is_file():
        pytest.skip("the pages do not travel with the installed package")
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture
def example(page, monkeypatch) -> str:
    """The text of the example source, and a registry that forgets it."""
    monkeypatch.setattr(base, "SOURCES", dict(base.SOURCES))
    (text,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    return text


def test_the_example_source_makes_a_corpus(example, makehuman, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    people = np.stack([makehuman.sample_subject(rng).coefficients for _ in range(5)])
    np.save(tmp_path / "heads.npy", makehuman.vertices(people))
    monkeypatch.setenv("MY_SCANS", str(tmp_path / "heads.npy"))
    exec(compile(example, "docs/data.md", "exec"), {})
    assert "scans" in source_names()
    recipe = Recipe(source="scans", train=2, surface_points=16, distance_points=16)
    corpus = build_corpus(recipe, tmp_path / "corpus")
    corpus.verify()
    for head in generate(recipe):
        assert np.linalg.norm(head.vertices, axis=1).max() < 1
        assert np.linalg.norm(head.vertices - makehuman.template.vertices, axis=1).mean() < 0.15


def test_the_example_source_says_what_is_missing(example, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SCANS", str(tmp_path / "none.npy"))
    exec(compile(example, "docs/data.md", "exec"), {})
    with pytest.raises(InputError, match="set MY_SCANS to an array"):
        base.SOURCES["scans"]()


def test_the_other_blocks_run(page, tiny_corpus):
    blocks = re.findall(r"```\n(from .*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block.replace('"corpora/small"', repr(str(tiny_corpus.folder))), "docs/data.md", "exec"), {})


def test_names_and_numbers_are_those_of_the_code(page):
    for name in (CLONE_VARIABLE, DATA_VARIABLE, FILE_NAME, *(f"{key}.npy" for key in SHARD_ARRAYS)):
        assert name in page
    for name in source_names():
        assert f"| `{name}` |" in page
    for field in Recipe.__dataclass_fields__:
        assert f"`{field}`" in page
    assert f"1/{round(1 / QUANTUM)}" in page
    assert f"{SUBJECTS_PER_SHARD} subjects" in page
    assert FORMAT_VERSION == 1
