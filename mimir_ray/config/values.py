"""One value between YAML or a flag's text and the type that its setting declares."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
from typing import Any, Literal, Union, get_args, get_origin

from mimir_ray.config.units import Bytes, Duration

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INTEGER = re.compile(r"[+-]?\d+")


class BadValue(ValueError):
    """A value that does not fit. `path`: where inside a list or map, as `[2].name`."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


def describe(kind: Any) -> str:
    """The type as the reference page and error messages call it."""
    if kind is Duration:
        return "duration"
    if kind is Bytes:
        return "size"
    if kind is bool:
        return "boolean"
    if kind is str:
        return "string"
    if kind in (int, float):
        return "integer" if kind is int else "number"
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(json.dumps(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return describe(_without_none(arguments))
    if origin is tuple:
        return f"list of {describe(arguments[0])}"
    if origin is dict:
        return f"map of string to {describe(arguments[1])}"
    if kind is Any:
        return "any value"
    return "map" if dataclasses.is_dataclass(kind) else getattr(kind, "yaml_type", "value")


def is_boolean(kind: Any) -> bool:
    return kind is bool


def from_yaml(kind: Any, value: Any) -> Any:
    """The value of a YAML document as `kind`; BadValue names the expected type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else from_yaml(_without_none(arguments), value)
    if origin is tuple:
        return _list_from_yaml(arguments[0], kind, value)
    if origin is dict:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise _unexpected(kind, value)
        return {str(key): _inside(f".{key}", arguments[1], one) for key, one in value.items()}
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise _unexpected(kind, value)
        return value
    if hasattr(kind, "from_yaml"):
        try:
            return kind.from_yaml(value)
        except ValueError as error:
            raise BadValue(str(error)) from error
    if dataclasses.is_dataclass(kind):
        return _dataclass_from_yaml(kind, value)
    return _scalar(kind, value)


def from_text(kind: Any, text: str) -> Any:
    """The text behind a flag as `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return from_text(_without_none(arguments), text)
    if kind is str or origin is Literal:
        return from_yaml(kind, text)
    if kind is bool:
        if text not in _TRUE | _FALSE:
            raise BadValue(f"expected boolean, got {text!r}")
        return text in _TRUE
    if origin is tuple and not dataclasses.is_dataclass(arguments[0]):
        return tuple(from_text(arguments[0], part) for part in text.split(",") if part)
    if origin in (dict, tuple) or dataclasses.is_dataclass(kind) or kind is Any:
        try:
            return from_yaml(kind, json.loads(text))
        except json.JSONDecodeError as error:
            raise BadValue(f"expected JSON for a {describe(kind)}: {error}") from error
    return from_yaml(kind, text)


def to_yaml(value: Any) -> Any:
    """The value as plain YAML data, durations and sizes in the form that is read back."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Duration):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if hasattr(value, "to_yaml"):
        return value.to_yaml()
    if isinstance(value, dict):
        return {key: to_yaml(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_yaml(one) for one in value]
    if dataclasses.is_dataclass(value):
        from mimir_ray.config.render import tree  # noqa: PLC0415  (a block inside a list or map)

        return tree(value)
    raise TypeError(f"no YAML form for {type(value).__name__}")


def out_of_bounds(value: Any, minimum: float | None, maximum: float | None) -> str:
    """Why a number is not allowed; "" if it is (or is no number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    shown = str(value)
    if math.isnan(value):
        return "must be a number, got NaN"
    if minimum is not None and value < minimum:
        return f"must be at least {_like(value, minimum)}, got {shown}"
    if maximum is not None and value > maximum:
        return f"must be at most {_like(value, maximum)}, got {shown}"
    return ""


def _like(value: Any, bound: float) -> str:
    return str(Duration(bound)) if isinstance(value, Duration) else f"{bound:g}"


def _without_none(arguments: tuple[Any, ...]) -> Any:
    (only,) = (one for one in arguments if one is not type(None))
    return only


def _inside(where: str, kind: Any, value: Any) -> Any:
    try:
        return from_yaml(kind, value)
    except BadValue as error:
        raise BadValue(str(error), where + error.path) from error


def _list_from_yaml(item: Any, kind: Any, value: Any) -> Any:
    if value is None:
        return ()
    if isinstance(value, str) and not dataclasses.is_dataclass(item):
        return tuple(from_text(item, part) for part in value.split(",") if part)
    if not isinstance(value, list):
        raise _unexpected(kind, value)
    return tuple(_inside(f"[{index}]", item, one) for index, one in enumerate(value))


def _dataclass_from_yaml(kind: Any, value: Any) -> Any:
    from mimir_ray.config.tree import build  # noqa: PLC0415  (blocks inside lists: the other half of a recursion)

    if value is None:
        value = {}
    built, problems = build(kind(), value)
    if problems:
        where, reason = problems[0]
        raise BadValue(reason, f".{where}" if where else "")
    return built


def _scalar(kind: Any, value: Any) -> Any:
    if kind is bool:
        if not isinstance(value, bool):
            raise _unexpected(kind, value)
        return value
    if kind is str:
        if value is None:
            return ""
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return value if isinstance(value, str) else str(value)
        raise _unexpected(kind, value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _unexpected(kind, value)
    if kind in (Duration, Bytes):
        try:
            return kind.parse(str(value))
        except ValueError as error:
            raise BadValue(str(error)) from error
    if kind is int:
        return _integer(value)
    if kind is float:
        if isinstance(value, str) and not _NUMBER.fullmatch(value):
            raise _unexpected(kind, value)
        try:
            return float(value)
        except OverflowError as error:
            raise BadValue("the number is too large") from error
    raise TypeError(f"a setting cannot have the type {kind!r}")


def _integer(value: str | float) -> int:
    """A whole number of 64 bits, whichever way YAML read it."""
    number = value
    if isinstance(number, str) and _INTEGER.fullmatch(number):
        number = int(number) if len(number) < 32 else math.inf
    elif isinstance(number, str) and _NUMBER.fullmatch(number):
        number = float(number)  # YAML 1.1 leaves 1e6 a string; Go's reader takes it for a number
    if isinstance(number, str) or not (isinstance(number, int) or number.is_integer() or math.isinf(number)):
        raise _unexpected(int, value)
    if not -(2**63) <= number < 2**63:
        raise BadValue("the number does not fit into 64 bits")
    return int(number)


def _unexpected(kind: Any, value: Any) -> BadValue:
    shown = {dict: "a map", list: "a list", type(None): "nothing"}.get(type(value)) or repr(value)
    return BadValue(f"expected {describe(kind)}, got {shown}")
