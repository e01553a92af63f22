"""YAML into plain values by a declared shape, with the errors of Go's yaml packages: files that Prometheus' tools read
are refused here for the same reasons, in the same words, with the same lines.

Upstream: go.yaml.in/yaml v2 and v3, decode.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from mimir_ray.errors import InvalidArgument

from .durations import parse_duration


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Kind


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping from strings."""

    item: Kind
    go_type: str = "map[string]string"


@dataclass(frozen=True, slots=True)
class Shape:
    """A mapping with known keys. `name`: the Go type in messages."""

    name: str
    fields: Mapping[str, Kind] = field(default_factory=dict)


Kind = str | ListOf | MapOf | Shape
"""A word is one of: string, int, float64, bool, duration (in ms), time (as text)."""


@dataclass(slots=True)
class Decoded:
    """A mapping of a `Shape`: values of the keys that were there, where each value stands, where the whole stands.

    Lines and columns count from 1.
    """

    line: int
    column: int
    values: dict[str, Any] = field(default_factory=dict)
    positions: dict[str, tuple[int, int]] = field(default_factory=dict)

    def get(self, key: str, default: Any) -> Any:
        found = self.values.get(key)
        return default if found is None else found


class YamlError(InvalidArgument):
    """A document that is no YAML, or not of the shape."""


_TAG_PREFIX = "tag:yaml.org,2002:"
_GO_TYPES = {"string": "string", "int": "int", "float64": "float64", "bool": "bool", "duration": "string"}
_TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"})
_FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"})
_SPECIAL_FLOATS = {"inf": float("inf"), "nan": float("nan")}


def decode(text: str, shape: Shape, *, strict: bool) -> Decoded:
    """The first document of a text; an empty one has no values.

    `strict`: unknown and repeated keys are errors. Raises `YamlError`, and `InvalidArgument` with the text of a
    duration that is none.
    """
    node = compose(text)
    if node is None:
        return Decoded(1, 1)
    decoder = _Decoder(strict)
    value = decoder.value(node, shape)
    if decoder.problems:
        raise YamlError("\n  ".join(["yaml: unmarshal errors:", *decoder.problems]))
    return value if isinstance(value, Decoded) else Decoded(1, 1)


def compose(text: str) -> yaml.Node | None:
    """The first document's nodes. Raises `YamlError` where the text is no YAML."""
    try:
        documents: Iterator[yaml.Node] = yaml.compose_all(text, Loader=yaml.SafeLoader)
        return next(documents, None)
    except yaml.MarkedYAMLError as error:
        mark = error.context_mark if error.context_mark and error.context_mark.line else error.problem_mark
        # The scanner reports the line before the one it stands on.
        line = (mark.line if mark else 0) + isinstance(error, yaml.scanner.ScannerError)
        where = f"line {line}: " if line else ""
        raise YamlError(f"yaml: {where}{error.problem}") from None
    except yaml.YAMLError as error:
        raise YamlError(f"yaml: {error}") from None
    except RecursionError:
        raise YamlError("yaml: exceeded max depth") from None


class _Decoder:
    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.problems: list[str] = []
        self.visits = 0

    def problem(self, node: yaml.Node, reason: str) -> None:
        self.problems.append(f"line {node.start_mark.line + 1}: {reason}")

    def value(self, node: yaml.Node, kind: Kind) -> Any:
        """None where the node is null or not of the kind (then a problem is noted)."""
        self.visits += 1
        if self.visits > 1_000_000:
            raise YamlError("yaml: document contains excessive aliasing")
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG_PREFIX + "null":
            return None
        match kind:
            case Shape():
                return self.shape(node, kind)
            case ListOf():
                if isinstance(node, yaml.SequenceNode):
                    return [self.value(each, kind.item) for each in node.value]
                return self.mismatch(node, f"[]{_name(kind.item)}")
            case MapOf():
                if isinstance(node, yaml.MappingNode):
                    return self.map(node, kind)
                return self.mismatch(node, kind.go_type)
        if not isinstance(node, yaml.ScalarNode):
            return self.mismatch(node, _GO_TYPES.get(kind, "string"))
        return self.scalar(node, kind)

    def mismatch(self, node: yaml.Node, wanted: str) -> None:
        tag = node.tag.replace(_TAG_PREFIX, "!!")
        shown = ""
        if isinstance(node, yaml.ScalarNode):
            text = node.value if len(node.value) <= 10 else f"{node.value[:7]}..."
            shown = f" `{text}`"
        self.problem(node, f"cannot unmarshal {tag}{shown} into {wanted}")

    def shape(self, node: yaml.Node, kind: Shape) -> Decoded | None:
        if not isinstance(node, yaml.MappingNode):
            self.mismatch(node, kind.name)
            return None
        found = Decoded(node.start_mark.line + 1, node.start_mark.column + 1)
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name not in kind.fields:
                if self.strict:
                    self.problem(key, f"field {name} not found in type {kind.name}")
                continue
            if name in found.positions:
                if self.strict:
                    self.problem(key, f"field {name} already set in type {kind.name}")
                continue
            found.positions[name] = value.start_mark.line + 1, value.start_mark.column + 1
            found.values[name] = self.value(value, kind.fields[name])
        return found

    def map(self, node: yaml.MappingNode, kind: MapOf) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in node.value:
            name = self.value(key, "string")
            read = self.value(value, kind.item)
            if name in out and self.strict:
                self.problem(key, f'key "{name}" already set in map')
            out[name or ""] = "" if read is None and kind.item == "string" else read
        return out

    def scalar(self, node: yaml.ScalarNode, kind: str) -> Any:
        text = node.value
        plain = node.style is None
        if kind in ("string", "time"):
            return text
        if kind == "duration":
            return parse_duration(text)
        if kind == "bool" and plain and text in _TRUE | _FALSE:
            return text in _TRUE
        if kind in ("int", "float64") and plain:
            number = _number(text)
            if isinstance(number, int):
                return number if kind == "int" else float(number)
            if number is not None and kind == "float64":
                return number
            if number is not None and number.is_integer():
                return int(number)
        return self.mismatch(node, _GO_TYPES[kind])


def _number(text: str) -> int | float | None:
    bare = text.replace("_", "")
    try:
        if len(bare) > 1 and bare.lstrip("+-")[:1] == "0" and bare.lstrip("+-").isdigit():
            return int(bare, 8)
        return int(bare, 0)
    except ValueError:
        pass  # not an integer; it may be a float
    special = bare.lower().lstrip("+-")
    if special.startswith(".") and special[1:] in _SPECIAL_FLOATS:
        return -_SPECIAL_FLOATS[special[1:]] if bare.startswith("-") else _SPECIAL_FLOATS[special[1:]]
    if not bare.lower().islower() or "e" in bare.lower():
        try:
            return float(bare)
        except ValueError:
            return None
    return None


def _name(kind: Kind) -> str:
    match kind:
        case Shape():
            return kind.name
        case ListOf():
            return f"[]{_name(kind.item)}"
        case MapOf():
            return kind.go_type
    return _GO_TYPES.get(kind, "string")
