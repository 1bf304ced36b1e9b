"""What the package ships: assets (head template, released models, example scan) and configs."""

from importlib.resources import files
from pathlib import Path


def asset(name: str) -> Path:
    """Path of the shipped asset `name`, such as ``makehuman_head.npz``."""
    return Path(str(files("implicit3dmm.assets"))) / name


def config_folder() -> Path:
    """Folder that holds one folder of YAML configs for each architecture."""
    return Path(str(files("implicit3dmm.configs")))
