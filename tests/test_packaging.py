"""What is declared, shipped and imported agrees with itself."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import implicit3dmm

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONDA_NAMES = {"pytorch": "torch", "python-build": "build"}
UNWANTED = ("OpenGL", "pyrender", "pyglet", "matplotlib", "anny", "mesh_to_sdf")


def by_name(lines: list[str]) -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def declared() -> dict[str, Requirement]:
    project = PYPROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return by_name(project["dependencies"] + extras)


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return by_name([line for line in lines if line and not line.startswith("#")])


def test_the_conda_environment_has_the_dependencies_of_pyproject():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip_lines,) = (entry["pip"] for entry in entries if isinstance(entry, dict))
    conda = by_name([entry for entry in entries if isinstance(entry, str)])
    python = conda.pop("python")
    del conda["pip"]
    conda = {CONDA_NAMES.get(name, name): requirement for name, requirement in conda.items()}
    environment = conda | by_name([line for line in pip_lines if line != "-e ."])

    assert "-e ." in pip_lines
    assert str(python.specifier) == PYPROJECT["project"]["requires-python"]
    assert {name: str(requirement.specifier) for name, requirement in environment.items()} == {
        name: str(requirement.specifier) for name, requirement in declared().items()
    }


def test_constraints_are_exact_and_hold_on_any_machine():
    for requirement in constraints().values():
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert requirement.marker is None


def test_constraints_satisfy_what_is_declared():
    pinned = constraints()
    for name, requirement in declared().items():
        assert name in pinned
        (version,) = (pin.version for pin in pinned[name].specifier)
        assert version in requirement.specifier


def test_constraints_cover_what_the_pinned_dependencies_need():
    pinned, seen, waiting = constraints(), set(), list(declared())
    while waiting:
        name = waiting.pop()
        if name in seen or name.startswith(("nvidia-", "cuda-", "triton")):  # torch pins its CUDA wheels itself
            continue
        seen.add(name)
        assert name in pinned
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # a development tool that this machine does without
            continue
        if distribution.version in pinned[name].specifier:
            needs = map(Requirement, distribution.requires or [])
            waiting += [
                canonicalize_name(need.name)
                for need in needs
                if need.marker is None or need.marker.evaluate({"extra": ""})
            ]


def test_every_package_is_listed_for_the_wheel():
    setuptools = PYPROJECT["tool"]["setuptools"]
    folders = {path.parent for path in (ROOT / "implicit3dmm").rglob("*.py")}
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert all((folder / "__init__.py").is_file() for folder in folders)
    assert packages | set(setuptools["package-dir"]) == set(setuptools["packages"])


def test_one_version_everywhere():
    version = implicit3dmm.__version__
    assert importlib.metadata.version("implicit3dmm") == version
    changelog, citation = ROOT / "CHANGELOG.md", ROOT / "CITATION.cff"
    if changelog.is_file():
        assert re.search(r"^## \[?v?([0-9][0-9a-z.]*)", changelog.read_text(), re.MULTILINE)[1] == version
    if citation.is_file():
        assert str(yaml.safe_load(citation.read_text())["version"]) == version


def run_python(program: str) -> dict:
    """What a fresh interpreter that writes no bytecode prints as JSON in its last line."""
    done = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


IMPORT = """
import json, os, sys, time
written = []
def watch(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(str(arguments[0]))
    if event in ("socket.connect", "socket.bind"):
        written.append(event)
sys.addaudithook(watch)
start = time.process_time()
import implicit3dmm
seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "written": written, "modules": sorted(sys.modules)}))
"""

IMPORT_ALL = """
import importlib, json, pkgutil, sys
import implicit3dmm
names = [module.name for module in pkgutil.walk_packages(implicit3dmm.__path__, "implicit3dmm.")]
for name in names:
    if not name.endswith(".__main__"):
        importlib.import_module(name)
print(json.dumps({"modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def fresh_import() -> dict:
    return run_python(IMPORT)


def test_import_is_fast_enough(fresh_import):
    # Processor time, since a busy machine says nothing about the package; a second try forgives a cold disk.
    assert min(fresh_import["seconds"], run_python(IMPORT)["seconds"]) < 3.0


def test_import_writes_nothing(fresh_import):
    assert fresh_import["written"] == []


@pytest.mark.parametrize("program", [IMPORT, IMPORT_ALL], ids=["the package", "every module"])
def test_import_brings_no_display_and_no_optional_backend(program):
    modules = {name.split(".")[0] for name in run_python(program)["modules"]}
    assert modules.isdisjoint(UNWANTED)
