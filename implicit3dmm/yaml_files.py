"""YAML files and command-line overrides as nested mappings of plain values."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from implicit3dmm.errors import InputError


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        InputError: the file cannot be read, is empty, is no valid YAML, repeats a key, or holds no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give the path of a YAML file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: the file is not text; expected a YAML file in UTF-8") from None
    mapping = _parse(text, _FileLoader, source=str(path))
    if mapping is None:
        raise InputError(f"{path}: the file is empty; expected keys and values ({{}} keeps every default)")
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: the file holds no keys; expected lines such as 'seed: 0'")
    return mapping


def apply_overrides(mapping: Mapping[str, Any], overrides: Mapping[str, Any] | Iterable[str]) -> dict[str, Any]:
    """A copy of `mapping` with some values replaced; the later of two overrides of a key wins.

    Args:
        mapping: Nested mappings of plain values.
        overrides: Values by key path (``{"training.steps": 2000}``), or command-line words
            (``["training.steps=2000"]``) whose values are read as YAML, where 1e-4 is a number too.

    Raises:
        InputError: a word is not ``key.path=value``, or its path leads through a value that is no mapping.
    """
    if not isinstance(overrides, Mapping):
        overrides = dict(_parse_assignment(word) for word in overrides)
    result = dict(mapping)
    for path, value in overrides.items():
        result = _replaced(result, path.split("."), value, where="")
    return result


class _FileLoader(yaml.SafeLoader):
    """YAML 1.1 without repeated keys, of which the last would win unseen."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key '{key.value}' is repeated"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return node


class _OverrideLoader(_FileLoader):
    """As `_FileLoader`, but a number needs no decimal point: who types 1e-4 in a shell means the number."""


_OverrideLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _parse(text: str, loader: type[yaml.SafeLoader], *, source: str) -> Any:
    try:
        return yaml.load(text, Loader=loader)  # a SafeLoader: it builds plain values only
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise InputError(f"{source}: {line}{problem}; correct the YAML there") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2026-13-45 looks like a date, and is none
        raise InputError(f"{source}: {' '.join(str(error).split())}; correct the YAML") from None


def _parse_assignment(word: str) -> tuple[str, Any]:
    path, equals, text = word.partition("=")
    if not (equals and text.strip() and all(path.split("."))):
        raise InputError(f"'{word}' is no override; expected key.path=value, such as training.steps=2000")
    return path, _parse(text, _OverrideLoader, source=f"'{word}'")


def _replaced(mapping: Mapping[str, Any], keys: list[str], value: Any, *, where: str) -> dict[str, Any]:
    key, *rest = keys
    path = f"{where}.{key}" if where else key
    if rest:
        inner = mapping.get(key)
        if not isinstance(inner, Mapping | None):
            raise InputError(f"{path}: the value {inner!r} has no keys; cannot set '{'.'.join(rest)}' in it")
        value = _replaced(inner or {}, rest, value, where=path)
    return {**mapping, key: value}
