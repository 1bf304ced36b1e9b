"""Configs: what YAML may say, what it is refused for, and the words that refuse it."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import yaml

from implicit3dmm.config import (
    describe,
    from_mapping,
    load_config,
    to_mapping,
)
from implicit3dmm.errors import InputError


@dataclass(frozen=True)
class Blend:
    count: int = 8
    """Networks that act at a point."""
    sigma: float = 0.1
    """Width of the blend, canonical units."""

    def validate(self) -> None:
        if self.count < 1:
            raise InputError(f"count is {self.count}; expected at least 1")


@dataclass(frozen=True)
class Local:
    hidden: int = 200
    blend: Blend = dataclasses.field(default_factory=lambda: Blend(count=4))


@dataclass(frozen=True)
class Plain:
    layers: tuple[int, ...] = (512, 512)
    omega: float = 30.0
    """First-layer frequency."""


def registered() -> dict[str, type]:
    return {"local": Local, "plain": Plain}


@dataclass(frozen=True)
class Training:
    steps: int = 1000
    """Optimiser steps."""
    lr: float = 1e-3
    """Learning rate of the network,
    not of the codes."""
    betas: tuple[float, float] = (0.9, 0.999)
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    schedule: Literal["constant", "cosine"] = "cosine"
    clip: float | None = None
    size: int | tuple[int, ...] = 64
    resume: bool = False
    note: str = ""

    def validate(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; expected at least 1")


@dataclass(frozen=True)
class Run:
    corpus: str
    field: Local | Plain = dataclasses.field(default_factory=Plain, metadata={"choose": registered})
    training: Training = dataclasses.field(default_factory=Training)
    exterior: Blend | None = None
    seed: int = 0


def run(**changes: Any) -> Run:
    return from_mapping(Run, {"corpus": "ci", **changes})


def refusal(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        run(**changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def yaml_file(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "base.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# What is read


def test_what_is_left_out_keeps_its_default():
    assert run() == Run(corpus="ci")


def test_every_kind_of_value_is_read(yaml_file):
    path = yaml_file("""
corpus: ci
field: {name: local, hidden: 64, blend: {count: 2}}
training:
  steps: 20
  lr: 1.0e-4
  betas: [0, 0.5]
  weights: {eikonal: 1, surface: 0.5}
  schedule: constant
  clip: null
  size: [32, 64, 128]
  resume: true
exterior: {sigma: 0.3}
""")
    training = Training(
        steps=20,
        lr=1e-4,
        betas=(0.0, 0.5),
        weights={"eikonal": 1.0, "surface": 0.5},
        schedule="constant",
        clip=None,
        size=(32, 64, 128),
        resume=True,
    )
    expected = Run("ci", Local(64, Blend(count=2)), training, exterior=Blend(sigma=0.3))
    assert load_config(Run, path) == expected


def test_a_whole_number_becomes_a_float_where_one_is_due():
    config = run(training={"betas": [0, 1], "clip": 1, "weights": {"a": 2}})
    values = (*config.training.betas, config.training.clip, *config.training.weights.values())
    assert [type(value) for value in values] == [float] * 4


@pytest.mark.parametrize("size", [32, (1, 2, 3), ()])
def test_a_union_takes_each_of_its_members(size):
    assert run(training={"size": list(size) if isinstance(size, tuple) else size}).training.size == size


def test_a_partial_mapping_keeps_the_rest_of_the_default_object():
    assert run(field={"name": "local", "blend": {"sigma": 0.5}}).field == Local(blend=Blend(4, 0.5))
    assert run(field={"omega": 20}).field == Plain(omega=20.0), "the name itself has a default here"


def test_another_architecture_starts_from_its_own_defaults():
    assert run(field={"name": "local"}).field == Local()


@pytest.mark.parametrize(
    "config",
    [
        Run("ci"),
        Run("a: b", Local(32), Training(lr=1e-5, weights={"x": 1e20}, size=(1, 2)), Blend(), seed=-3),
        Run("off", Plain(layers=()), Training(note="1e-4", clip=math.inf, schedule="constant")),
    ],
)
def test_configs_survive_yaml(config, yaml_file):
    mapping = to_mapping(config)
    assert from_mapping(Run, mapping) == config
    assert load_config(Run, yaml_file(yaml.safe_dump(mapping))) == config


def test_plain_values_are_plain():
    assert to_mapping(Run("ci", Local())) == {
        "corpus": "ci",
        "field": {"name": "local", "hidden": 200, "blend": {"count": 4, "sigma": 0.1}},
        "training": {
            "steps": 1000,
            "lr": 1e-3,
            "betas": [0.9, 0.999],
            "weights": {},
            "schedule": "cosine",
            "clip": None,
            "size": 64,
            "resume": False,
            "note": "",
        },
        "exterior": None,
        "seed": 0,
    }


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sed": 1}, "sed: unknown key; did you mean 'seed'?"),
        ({"field": {"name": "plain", "omga": 1}}, "field.omga: unknown key; did you mean 'omega'?"),
        (
            {"field": {"name": "plain", "xyz": 1}},
            "field.xyz: unknown key; expected one of 'layers', 'omega'",
        ),
        ({"exterior": {1: 2}}, "exterior.1: unknown key; expected one of 'count', 'sigma'"),
        ({"field": {"name": "locl"}}, "field.name: 'locl' is not a choice; did you mean 'local'?"),
        (
            {"field": {"name": 7}},
            "field.name: 7 is not a choice; expected one of 'local', 'plain'",
        ),
        (
            {"field": "local"},
            "field: 'local' is text; expected a mapping with the key 'name', one of 'local', 'plain'",
        ),
        (
            {"field": None},
            "field: the value is null; expected a mapping with the key 'name', one of 'local', 'plain'",
        ),
        ({"training": {"steps": "many"}}, "training.steps: 'many' is text; expected a whole number"),
        ({"training": {"steps": 2.0}}, "training.steps: 2.0 is a number; expected a whole number"),
        ({"training": {"steps": True}}, "training.steps: true is a boolean; expected a whole number"),
        ({"training": {"lr": True}}, "training.lr: true is a boolean; expected a number"),
        ({"training": {"lr": math.nan}}, "training.lr: nan is not a number; expected a number"),
        ({"training": {"lr": "1e-4"}}, "training.lr: '1e-4' is text; expected a number; write 1.0e-4"),
        (
            {"training": {"clip": "2.5E3"}},
            "training.clip: '2.5E3' is text; expected a number or null; write 2.5e+3",
        ),
        (
            {"training": {"steps": "2e3"}},
            "training.steps: '2e3' is text; expected a whole number; write all its digits",
        ),
        ({"training": {"note": 3}}, "training.note: 3 is a whole number; expected text; put it in quotes"),
        ({"training": {"resume": 1}}, "training.resume: 1 is a whole number; expected a boolean"),
        (
            {"training": {"betas": 0.9}},
            "training.betas: 0.9 is a number; expected a list of 2: a number, a number",
        ),
        ({"training": {"betas": [0.9]}}, "training.betas: a list of 1; expected a list of 2"),
        ({"training": {"betas": [0.9, "x"]}}, "training.betas[1]: 'x' is text; expected a number"),
        ({"training": {"weights": {"a": None}}}, "training.weights.a: the value is null; expected a number"),
        ({"training": {"weights": [1]}}, "training.weights: [1] is a list; expected a mapping"),
        (
            {"training": {"size": "big"}},
            "training.size: 'big' is text; expected a whole number or a list, each a whole number",
        ),
        (
            {"training": {"schedule": "cosin"}},
            "training.schedule: 'cosin' is not a choice; did you mean 'cosine'?",
        ),
        (
            {"training": {"schedule": True}},
            "training.schedule: true is not a choice; expected one of 'constant', 'cosine'",
        ),
        ({"training": 3}, "training: 3 is a whole number; expected a mapping"),
        ({"exterior": {"count": 0}}, "exterior.count is 0; expected at least 1"),
        ({"training": {"steps": 0}}, "training.steps is 0; expected at least 1"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(changes, message):
    assert refusal(**changes) == message


def test_a_missing_key_is_named():
    with pytest.raises(InputError, match=r"^corpus: missing; expected text$"):
        from_mapping(Run, {})


def test_the_given_path_stands_before_every_message():
    with pytest.raises(InputError, match=r"^model\.config\.field\.omga: unknown key"):
        from_mapping(Run, {"corpus": "ci", "field": {"omga": 1}}, where="model.config")


def test_a_choice_without_default_must_be_made():
    @dataclass(frozen=True)
    class Model:
        field: Local | Plain = dataclasses.field(metadata={"choose": registered})

    with pytest.raises(InputError, match=r"^field: missing; expected a mapping$"):
        from_mapping(Model, {})
    with pytest.raises(InputError, match=r"^field\.name: missing; expected one of 'local', 'plain'$"):
        from_mapping(Model, {"field": {"hidden": 3}})


def test_a_wrong_key_in_a_file_names_the_file(yaml_file):
    path = yaml_file("corpus: ci\nfield: {omga: 3}\n")
    with pytest.raises(InputError) as caught:
        load_config(Run, path)
    assert str(caught.value) == f"{path}: field.omga: unknown key; did you mean 'omega'?"


def test_overrides_by_words_and_by_mapping_agree(yaml_file):
    path = yaml_file("corpus: ci\n")
    words = load_config(Run, path, ["training.lr=1e-4", "seed=3"])
    assert words == load_config(Run, path, {"training.lr": 1e-4, "seed": 3})
    assert (words.training.lr, words.seed) == (1e-4, 3)


# Help


def test_help_lists_every_key_with_its_default_type_and_text():
    text = describe(Run)
    for line in (
        "corpus  (text, required)",
        "field.name = plain  (one of 'local', 'plain')",
        "field.hidden = 200  (a whole number; with field.name=local)",
        "field.blend.count = 4  (a whole number; with field.name=local)",
        "field.layers = [512, 512]  (a list, each a whole number; with field.name=plain)",
        "training.steps = 1000  (a whole number)",
        "    Optimiser steps.",
        "training.lr = 0.001  (a number)",
        "    not of the codes.",
        "training.betas = [0.9, 0.999]  (a list of 2: a number, a number)",
        "training.weights = {}  (a mapping)",
        "training.schedule = cosine  (one of 'constant', 'cosine')",
        "training.clip = null  (a number or null)",
        "training.resume = false  (a boolean)",
        "training.note = ''  (text)",
        "exterior = null  (a mapping or null)",
        "exterior.sigma = 0.1  (a number)",
    ):
        assert line in text.splitlines()


def test_help_defaults_can_be_pasted_into_a_file():
    @dataclass(frozen=True)
    class Small:
        lr: float = 1e-5

    line = describe(Small).split("  ")[0]
    assert yaml.safe_load(line.replace(" =", ":")) == {"lr": 1e-5}


def test_help_takes_the_text_of_inherited_fields():
    @dataclass(frozen=True)
    class Wider(Blend):
        extra: int = 0
        """More."""

    assert describe(Wider).count("\n    ") == 3
