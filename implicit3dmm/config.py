"""Frozen dataclasses to and from YAML, with errors by key path.

A config is a frozen dataclass. Its fields are booleans, whole numbers, numbers, text, `Literal` choices,
tuples (lists in YAML), ``dict[str, T]``, further configs, and unions of these with each other or None. The
string under a field says what it means and in which unit: it becomes the help text. A YAML file holds only
what differs from the defaults.

A config may define ``validate(self)``. It is called on every config that is built here and raises
`InputError` with a message that starts with the name of the field at fault ("steps is 0; expected at least
1").

A field whose class depends on a name, such as the architecture of a model, carries
``metadata={"choose": registered}``: `registered()` gives the config classes by name, and the field's mapping
carries the key ``name`` beside the keys of the class that it chooses.
"""

import ast
import dataclasses
import difflib
import inspect
import itertools
import re
import reprlib
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from implicit3dmm.errors import InputError
from implicit3dmm.yaml_files import apply_overrides, read_yaml

ConfigT = TypeVar("ConfigT")

_WORDS = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
    types.NoneType: "null",
}
_NUMBER_TEXT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def load_config(
    cls: type[ConfigT], path: str | Path, overrides: Mapping[str, Any] | Sequence[str] | None = None
) -> ConfigT:
    """Reads a config of class `cls` from a YAML file.

    Args:
        cls: A config class.
        path: The YAML file.
        overrides: What replaces the file's values; see `apply_overrides`.

    Raises:
        InputError: the file cannot be read, or a key or a value of it or of `overrides` is wrong.
    """
    mapping = apply_overrides(read_yaml(path), overrides or ())
    try:
        return from_mapping(cls, mapping)
    except InputError as error:
        raise InputError(f"{path}{' with overrides' if overrides else ''}: {error}") from None


def from_mapping(cls: type[ConfigT], mapping: Mapping[str, Any], *, where: str = "") -> ConfigT:
    """Makes a config of class `cls` from plain values; what `mapping` leaves out keeps its default.

    Args:
        cls: A config class.
        mapping: Values by field name, as YAML or JSON give them.
        where: Key path of `mapping`, which the error messages start with.

    Raises:
        InputError: an unknown or missing key, a value of a wrong type, or one that `cls.validate` refuses.
    """
    return _build(cls, mapping, where=where, base=None)


def to_mapping(config: Any) -> dict[str, Any]:
    """The plain values of a config, which YAML and JSON can hold and `from_mapping` reads back."""
    mapping = {}
    for field in _fields(type(config)):
        value = getattr(config, field.name)
        mapping[field.name] = _to_plain(value)
        if "choose" in field.metadata and value is not None:
            name = _name_of(value, field.metadata["choose"]())
            assert name is not None, f"{type(value).__name__} is not among the choices of {field.name}"
            mapping[field.name] = {"name": name, **mapping[field.name]}
    return mapping


def _build(cls: type, mapping: Any, *, where: str, base: Any) -> Any:
    """A `cls` from `mapping`; what is left out comes from `base`, or from the class where that is None."""
    if not isinstance(mapping, Mapping):
        raise _wrong_type(mapping, cls, where=where)
    fields = {field.name: field for field in _fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in mapping:
        if key not in fields:
            raise InputError(f"{_join(where, key)}: unknown key; {_suggestion(key, fields)}")
    values = {}
    for name, field in fields.items():
        default, path = _default(field, base), _join(where, name)
        if name in mapping:
            values[name] = _convert_field(mapping[name], field, hints[name], where=path, default=default)
        elif default is dataclasses.MISSING:
            raise InputError(f"{path}: missing; expected {_expected(hints[name])}")
        else:
            values[name] = default
    return _validated(cls, values, where=where)


def _validated(cls: type, values: dict[str, Any], *, where: str) -> Any:
    try:
        config = cls(**values)
        if hasattr(config, "validate"):
            config.validate()
    except InputError as error:
        message = str(error)
        names_field = re.split(r"\W", message, maxsplit=1)[0] in values
        raise InputError(f"{where}{'.' if names_field else ': '}{message}" if where else message) from None
    return config


def _convert_field(value: Any, field: dataclasses.Field, hint: Any, *, where: str, default: Any) -> Any:
    if "choose" not in field.metadata or (value is None and types.NoneType in typing.get_args(hint)):
        return _convert(value, hint, where=where, default=default)
    choices = field.metadata["choose"]()
    if not isinstance(value, Mapping):
        wanted = f"a mapping with the key 'name', one of {_listed(choices)}"
        raise InputError(f"{where}: {_given(value)}; expected {wanted}")
    name = value.get("name", _name_of(default, choices))
    if name is None:
        raise InputError(f"{where}.name: missing; expected one of {_listed(choices)}")
    name = _convert(name, Literal[*choices], where=f"{where}.name")
    rest = {key: inner for key, inner in value.items() if key != "name"}
    return _convert(rest, choices[name], where=where, default=default)


def _convert(value: Any, expected: Any, *, where: str, default: Any = None) -> Any:
    """`value` as the annotation `expected` asks.

    A config's missing keys come from `default` where that is of the same class.
    """
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if dataclasses.is_dataclass(expected):
        return _build(expected, value, where=where, base=default if type(default) is expected else None)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, expected, where=where, default=default)
    if origin is Literal:
        return _convert_literal(value, arguments, where=where)
    if origin is tuple and isinstance(value, list | tuple):
        return _convert_tuple(value, arguments, where=where)
    if origin is dict and isinstance(value, Mapping):
        return {
            _convert(key, arguments[0], where=where): _convert(inner, arguments[1], where=_join(where, key))
            for key, inner in value.items()
        }
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected or value != value:
        raise _wrong_type(value, expected, where=where)
    return value


def _convert_union(value: Any, expected: Any, *, where: str, default: Any) -> Any:
    members = [member for member in typing.get_args(expected) if member is not types.NoneType]
    if value is None and len(members) < len(typing.get_args(expected)):
        return None
    if len(members) == 1 and members[0] not in _WORDS:  # its own message knows the path inside it
        return _convert(value, members[0], where=where, default=default)
    for member in members:
        try:
            return _convert(value, member, where=where, default=default)
        except InputError:
            continue
    raise _wrong_type(value, expected, where=where)


def _convert_literal(value: Any, choices: tuple, *, where: str) -> Any:
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    raise InputError(f"{where}: {_shown(value)} is not a choice; {_suggestion(value, choices)}")


def _convert_tuple(values: Sequence[Any], items: tuple, *, where: str) -> tuple:
    if items[-1] is Ellipsis:
        items = items[:1] * len(values)
    if len(values) != len(items):
        raise InputError(f"{where}: a list of {len(values)}; expected a list of {len(items)}")
    return tuple(
        _convert(value, item, where=f"{where}[{index}]")
        for index, (value, item) in enumerate(zip(values, items, strict=True))
    )


def describe(cls: type) -> str:
    """Help for a config class: each key with its default, what it takes, and the string under its field."""
    return "\n".join(_description(cls, where="", base=None, condition=""))


def _description(cls: type, *, where: str, base: Any, condition: str) -> Iterator[str]:
    hints, texts = typing.get_type_hints(cls), _field_docstrings(cls)
    for field in _fields(cls):
        path, hint, default = _join(where, field.name), hints[field.name], _default(field, base)
        choices = field.metadata["choose"]() if "choose" in field.metadata else {}
        key, expected = (f"{path}.name", f"one of {_listed(choices)}") if choices else (path, _expected(hint))
        shown = _name_of(default, choices) or default
        required = ", required" if default is dataclasses.MISSING else ""
        yield f"{key}{_shown_default(shown)}  ({expected}{required}{condition})"
        if field.name in texts:
            yield textwrap.indent(texts[field.name], "    ")
        nested = [member for member in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(member)]
        inner = [(f"; with {key}={name}", config) for name, config in choices.items()]
        for remark, config in inner or [("", member) for member in nested]:
            start = default if type(default) is config else None
            yield from _description(config, where=path, base=start, condition=condition + remark)


def _field_docstrings(cls: type) -> dict[str, str]:
    """The string under each field of a config class and of the config classes that it inherits from."""
    texts = {}
    for base in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        for statement, following in itertools.pairwise(body):
            match statement, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = inspect.cleandoc(text)
    return texts


def _fields(cls: type) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(cls) if field.init]


def _default(field: dataclasses.Field, base: Any) -> Any:
    if base is not None:
        return getattr(base, field.name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _name_of(config: Any, choices: Mapping[str, type]) -> str | None:
    return next((name for name, cls in choices.items() if cls is type(config)), None)


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, tuple):
        return [_to_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    return value


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _wrong_type(value: Any, expected: Any, *, where: str) -> InputError:
    wanted = {expected, *typing.get_args(expected)}
    hint = ""
    if isinstance(value, str) and _NUMBER_TEXT.fullmatch(value) and wanted & {int, float}:
        hint = f"; write {_yaml_number(value) if float in wanted else 'all its digits'}"
    elif str in wanted and not isinstance(value, list | dict):
        hint = "; put it in quotes"
    return InputError(f"{where or 'the config'}: {_given(value)}; expected {_expected(expected)}{hint}")


def _yaml_number(text: str) -> str:
    """`text`, such as 1e-4, as YAML 1.1 knows a number: with a decimal point and a sign in the exponent."""
    mantissa, exponent = text.lower().split("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{'' if exponent[0] in '+-' else '+'}{exponent}"


def _expected(hint: Any) -> str:
    """What a value of the annotation `hint` is, in the words of an error message."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_expected, arguments)))
    if origin is Literal:
        return f"one of {_listed(arguments)}"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list, each {_expected(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}: {', '.join(map(_expected, arguments))}"
    return _WORDS.get(origin or hint, "a mapping")


def _given(value: Any) -> str:
    kind = "not a number" if value != value else _WORDS.get(type(value), f"a {type(value).__name__}")
    return "the value is null" if value is None else f"{_shown(value)} is {kind}"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else reprlib.repr(value)


def _shown_default(value: Any) -> str:
    if value is dataclasses.MISSING or dataclasses.is_dataclass(value):
        return ""
    text = yaml.safe_dump([_to_plain(value)], default_flow_style=True, width=float("inf"))
    return f" = {text.strip()[1:-1]}"


def _listed(options: Iterable[Any]) -> str:
    return ", ".join(map(repr, options))


def _suggestion(given: Any, options: Iterable[Any]) -> str:
    """The option nearest to what was given, or all of them where none is near."""
    near = difflib.get_close_matches(str(given), [str(option) for option in options], n=1)
    return f"did you mean '{near[0]}'?" if near else f"expected one of {_listed(options)}"
