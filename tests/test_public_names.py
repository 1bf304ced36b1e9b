"""What `import implicit3dmm` offers."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import implicit3dmm

DEFINED_IN = {
    "DepthImage": "geometry.depth_images",
    "FitConfig": "fitting.config",
    "HeadFit": "fitting.fit",
    "InputError": "errors",
    "Intrinsics": "geometry.depth_images",
    "Mesh": "geometry.mesh",
    "check_field": "fields.check",
    "extract": "extraction",
    "fit": "fitting.fit",
    "load_model": "models",
    "read_depth_image": "geometry.depth_images",
    "read_mesh": "geometry.mesh",
    "released_models": "models",
    "save_model": "models",
    "write_mesh": "geometry.mesh",
}

LIGHT = """
import json, sys
import implicit3dmm
print(json.dumps([sorted(sys.modules), dir(implicit3dmm), implicit3dmm.__all__]))
"""


@pytest.mark.parametrize("name", DEFINED_IN)
def test_every_public_name_is_what_its_module_defines(name):
    module = importlib.import_module(f"implicit3dmm.{DEFINED_IN[name]}")
    assert getattr(implicit3dmm, name) is getattr(module, name)


def test_evaluate_compares_two_surfaces():
    from implicit3dmm.evaluation.metrics import surface_metrics

    assert implicit3dmm.evaluate is surface_metrics


def test_the_list_of_names_is_complete_and_one_and_the_same():
    assert sorted(implicit3dmm.__all__) == sorted([*DEFINED_IN, "evaluate", "__version__"]) == dir(implicit3dmm)
    assert re.fullmatch(r"\d+\.\d+\.\d+", implicit3dmm.__version__)
    namespace = {}
    exec("from implicit3dmm import *", namespace)
    assert namespace.keys() >= set(implicit3dmm.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'implicit3dmm' has no attribute 'fitt'"):
        implicit3dmm.fitt  # noqa: B018
    assert not hasattr(implicit3dmm, "DeepSDF")


def test_importing_the_package_imports_nothing_heavy_and_submodules_still_import():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    modules, listed, names = json.loads(done.stdout)
    assert sorted(names) == listed
    ours = {name for name in modules if name.startswith("implicit3dmm")}
    assert ours == {"implicit3dmm"}
    assert {"torch", "numpy", "scipy", "trimesh"}.isdisjoint(modules)
    assert Path(importlib.import_module("implicit3dmm.fitting").__file__).parent.name == "fitting"
