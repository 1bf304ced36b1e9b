"""Implicit-surface 3D morphable models of the human head.

The public names are imported when they are first used, so that importing the package itself takes no time.
"""

from importlib import import_module
from typing import Any

__version__ = "0.6.0"

_PUBLIC = {
    "DepthImage": "geometry.depth_images:DepthImage",
    "FitConfig": "fitting.config:FitConfig",
    "HeadFit": "fitting.fit:HeadFit",
    "InputError": "errors:InputError",
    "Intrinsics": "geometry.depth_images:Intrinsics",
    "Mesh": "geometry.mesh:Mesh",
    "check_field": "fields.check:check_field",
    "evaluate": "evaluation.metrics:surface_metrics",
    "extract": "extraction:extract",
    "fit": "fitting.fit:fit",
    "load_model": "models:load_model",
    "read_depth_image": "geometry.depth_images:read_depth_image",
    "read_mesh": "geometry.mesh:read_mesh",
    "released_models": "models:released_models",
    "save_model": "models:save_model",
    "write_mesh": "geometry.mesh:write_mesh",
}
"""Where each public name is defined; `evaluate` compares two surfaces."""

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
