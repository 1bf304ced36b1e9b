"""What the package ships: assets (head template, released models, example scan) and configs."""

from importlib.resources import files
from pathlib import Path

from implicit3dmm.errors import InputError


def asset(name: str) -> Path:
    """Path of the shipped asset `name`, such as ``makehuman_head.npz``."""
    return Path(str(files("implicit3dmm.assets"))) / name


def config_folder() -> Path:
    """Folder that holds one folder of YAML configs for each architecture."""
    return Path(str(files("implicit3dmm.configs")))


def config_file(folder: str, name: str) -> Path:
    """A YAML file of the user's, or the shipped one `folder`/`name`.

    Raises:
        InputError: there is neither.
    """
    given, shipped = Path(name), config_folder() / folder / f"{name}.yaml"
    if given.suffix in (".yaml", ".yml"):
        return given
    if shipped.exists():
        return shipped
    names = sorted(
        p.relative_to(config_folder() / folder).with_suffix("").as_posix()
        for p in config_folder().glob(f"{folder or '*'}/**/*.yaml")
    )
    raise InputError(f"no shipped config {name!r}; give a .yaml file or one of {', '.join(names)}")
