"""What a training is told: ranges, the shipped files, and no field that nothing reads."""

import ast
from pathlib import Path

import pytest

import implicit3dmm
from implicit3dmm.config import describe, load_config
from implicit3dmm.errors import InputError
from implicit3dmm.fields import DeepSDFConfig, field_configs
from implicit3dmm.resources import config_folder
from implicit3dmm.training import RunConfig, TrainingConfig

PACKAGE = Path(implicit3dmm.__file__).parent
CONFIGS = sorted(path for name in field_configs() for path in (config_folder() / name).glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_shipped_config_loads_as_the_architecture_of_its_folder(path):
    config = load_config(RunConfig, path)
    assert type(config.field) is field_configs()[path.parent.name]


@pytest.mark.parametrize("name", sorted(field_configs()))
def test_every_architecture_ships_a_tiny_config(name):
    assert (config_folder() / name / "tiny.yaml").is_file()


def test_the_two_base_configs_see_as_many_points():
    imhead, deepsdf = (
        load_config(RunConfig, config_folder() / name / "base.yaml").training for name in ("imhead", "deepsdf")
    )
    for name in ("steps", "shapes", "surface_points", "distance_points", "gradient_points"):
        assert getattr(imhead, name) == getattr(deepsdf, name), name


def test_the_papers_configs_have_the_papers_sizes():
    field = load_config(RunConfig, config_folder() / "imhead/paper.yaml").field
    assert (field.latent_dim, field.local_dim, field.octaves, field.blend.neighbours) == (256, 32, 7, 0)
    assert (field.local_layers, field.local_width, field.fusion_layers, field.fusion_width) == (4, 200, 4, 200)
    field = load_config(RunConfig, config_folder() / "deepsdf/paper.yaml").field
    assert (field.latent_dim, field.layers, field.width) == (256, 8, 512)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"shapes": 0}, "shapes is 0"),
        ({"log_every": 0}, "log_every is 0"),
        ({"gradient_points": 1}, "gradient_points is 1"),
        ({"gradient_points": 129}, "gradient_points is 129"),
        ({"distance_points": 31}, "gradient_points is more than twice distance_points"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": 17}, r"workers is 17; give 1 to shapes \(16\)"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"clip": -1.0}, "clip is -1.0"),
        ({"distance_softness": 0.0}, "distance_softness is 0.0"),
        ({"decay": 1.5}, "decay is 1.5"),
        ({"pca_whitening": -0.1}, "pca_whitening is -0.1"),
    ],
    ids=str,
)
def test_a_training_that_cannot_run_is_refused_by_name(wrong, message):
    with pytest.raises(InputError, match=message):
        TrainingConfig(**wrong).validate()


def test_a_training_config_is_described_by_its_own_strings():
    text = describe(RunConfig)
    assert "training.steps = 40000" in text
    assert "Optimiser steps." in text
    assert "with field.name='deepsdf'" in text or "with field.name=deepsdf" in text
    assert "Width of the hidden layers." in text


def test_overrides_reach_the_architecture_and_the_training():
    path = config_folder() / "deepsdf/tiny.yaml"
    config = load_config(RunConfig, path, ["field.width=48", "training.losses.normal=0.5"])
    assert isinstance(config.field, DeepSDFConfig)
    assert config.field.width == 48
    assert config.training.losses.normal == 0.5
    with pytest.raises(InputError, match=r"field\.widht: unknown key; did you mean 'width'"):
        load_config(RunConfig, path, ["field.widht=48"])


def is_config(node: ast.AST) -> bool:
    """Whether a class tells the program what to do: a dataclass that checks itself, or is named so."""
    if not isinstance(node, ast.ClassDef):
        return False
    is_dataclass = any(ast.unparse(decorator).startswith("dataclass") for decorator in node.decorator_list)
    checks_itself = any(isinstance(item, ast.FunctionDef) and item.name == "validate" for item in node.body)
    return is_dataclass and (checks_itself or node.name.endswith(("Config", "Weights", "Recipe")))


class Readings(ast.NodeVisitor):
    """Names of attributes that code reads, and short texts, which getattr reads by; checks of ranges do not count."""

    def __init__(self):
        self.names = set()

    def visit_FunctionDef(self, node):
        if node.name != "validate":
            self.generic_visit(node)

    def visit_Attribute(self, node):
        if isinstance(node.ctx, ast.Load):
            self.names.add(node.attr)
        self.generic_visit(node)

    def visit_Constant(self, node):
        self.names.add(node.value)


def test_every_config_field_is_read_somewhere():
    trees = [ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))]
    readings = Readings()
    for tree in trees:
        readings.visit(tree)
    configs = [node for tree in trees for node in ast.walk(tree) if is_config(node)]
    assert {"ImHeadConfig", "TrainingConfig", "LossWeights", "Recipe"} <= {node.name for node in configs}
    unread = [
        f"{node.name}.{item.target.id}"
        for node in configs
        for item in node.body
        if isinstance(item, ast.AnnAssign) and item.target.id not in readings.names
    ]
    assert not unread
