"""docs/fields.md: its example runs as it stands, and what it quotes is in the code."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest

from implicit3dmm.fields import base, check, deepsdf
from implicit3dmm.models import load_model

PAGE = (Path(__file__).parents[2] / "docs/fields.md").read_text()


def section(title: str) -> str:
    """The text under a heading, up to the next one of its level or above."""
    level, _, _ = title.partition(" ")
    return re.split(rf"^#{{1,{len(level)}}} ", PAGE.split(f"\n{title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(base, "FIELDS", dict(base.FIELDS))
    return base.FIELDS


def test_the_example_architecture_is_sound_and_trains(registry, tiny_corpus, tmp_path, monkeypatch):
    architecture, checking, training = python_blocks(section("## Add an architecture"))
    assert sum(bool(line) for line in architecture.splitlines()) <= 42
    (tmp_path / "modulated.py").write_text(architecture)
    spec = importlib.util.spec_from_file_location("modulated", tmp_path / "modulated.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "modulated", module)
    spec.loader.exec_module(module)
    assert registry["modulated"][1] is module.Modulated
    exec(checking, vars(module))
    shutil.copytree(tiny_corpus.folder, tmp_path / "corpora/small")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    exec(training, vars(module))
    assert load_model("runs/modulated/model.safetensors").field.config == module.ModulatedConfig()


def test_what_is_quoted_of_deepsdf_is_in_its_file():
    source = Path(deepsdf.__file__).read_text()
    blocks = python_blocks(section("## DeepSDF, line by line"))
    assert len(blocks) >= 6
    for block in blocks:
        assert block in source


def test_every_axiom_is_explained():
    text = section("### Check it")
    for name in check.AXIOMS:
        assert re.search(rf"^\| .*\b{name}\b", text, flags=re.MULTILINE), name


def test_the_interface_is_listed_in_full():
    text = section("## The interface")
    names = {name for cls in (base.Field, base.ConditionedField) for name in {*vars(cls), *cls.__annotations__}}
    for name in names:
        if not name.startswith("_"):
            assert f"`{name}" in text, name
