"""Sources of heads, one file each; every module of this folder is imported, so that its source is registered."""

import importlib
import pkgutil

from implicit3dmm.data.sources.base import (
    HeadSource,
    Subject,
    expression_weights,
    open_source,
    random_expression,
    register_source,
    source_names,
    subject_similarity,
)

__all__ = [
    "HeadSource",
    "Subject",
    "expression_weights",
    "open_source",
    "random_expression",
    "register_source",
    "source_names",
    "subject_similarity",
]

for module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(module.name)
