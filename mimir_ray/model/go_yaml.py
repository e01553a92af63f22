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
"""A word is one of: string, int, float64, bool, duration (in ms), anything (not looked at)."""


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
_NULL = _TAG_PREFIX + "null"
_VISITS_MAX = 1_000_000
"""Nodes looked at; aliases can make a small document a large one."""

_GO_TYPES = {"string": "string", "int": "int", "float64": "float64", "bool": "bool", "duration": "string"}
_TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"})
_FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"})
_SPECIAL_FLOATS = {"inf": float("inf"), "nan": float("nan")}


def decode(text: str, shape: Shape, *, strict: bool, version: int = 3) -> Decoded:
    """The first document of a text; an empty one has no values.

    `strict`: unknown keys are errors. `version`: of Go's package, of which 2 calls some faults otherwise.
    Raises `YamlError`, and `InvalidArgument` with the text of a
    duration that is none.
    """
    node = compose(text)
    if node is None:
        return Decoded(1, 1)
    decoder = _Decoder(strict, version)
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
        raise YamlError(f"yaml: {where}{_problem(error)}") from None
    except yaml.reader.ReaderError as error:
        broken = isinstance(error.character, int) and 0xDC80 <= error.character <= 0xDCFF
        reason = "invalid leading UTF-8 octet" if broken else "control characters are not allowed"
        raise YamlError(f"yaml: {reason}") from None
    except yaml.YAMLError as error:
        raise YamlError(f"yaml: {error}") from None
    except RecursionError:
        raise YamlError("yaml: exceeded max depth") from None


# What libyaml, which Go's packages were made from, says where PyYAML says this.
_PROBLEMS = (
    ("expected <block end>, but found", "did not find expected key"),
    ("expected the node content, but found", "did not find expected node content"),
    ("expected ',' or ']', but got", "did not find expected ',' or ']'"),
    ("expected ',' or '}', but got", "did not find expected ',' or '}'"),
    ("expected '<document start>', but found", "did not find expected <document start>"),
    ("mapping values are not allowed here", "mapping values are not allowed in this context"),
)


def _problem(error: yaml.MarkedYAMLError) -> str:
    said = error.problem or ""
    if said.endswith("that cannot start any token"):
        return "found character that cannot start any token"
    if said.startswith("found undefined alias"):
        return f"unknown anchor {said.removeprefix('found undefined alias ')} referenced"
    if error.context == "while parsing a block collection":
        return "did not find expected '-' indicator"
    return next((text for start, text in _PROBLEMS if said.startswith(start)), said)


class _Decoder:
    def __init__(self, strict: bool, version: int) -> None:
        self.strict = strict
        self.version = version
        self.problems: list[str] = []
        self.visits = 0

    def problem(self, node: yaml.Node, reason: str) -> None:
        self.problems.append(f"line {node.start_mark.line + 1}: {reason}")

    def value(self, node: yaml.Node, kind: Kind) -> Any:
        """None where the node is null or not of the kind (then a problem is noted)."""
        self.visits += 1
        if self.visits > _VISITS_MAX:
            raise YamlError("yaml: document contains excessive aliasing")
        if isinstance(node, yaml.ScalarNode) and node.tag == _NULL:
            return None
        match kind:
            case Shape():
                return self.shape(node, kind)
            case ListOf():
                if isinstance(node, yaml.SequenceNode):
                    # Nulls, and what is not of the kind, leave no gap.
                    return [each for each in (self.value(one, kind.item) for one in node.value) if each is not None]
                return self.mismatch(node, f"[]{_name(kind.item)}")
            case MapOf():
                if isinstance(node, yaml.MappingNode):
                    return self.map(node, kind)
                return self.mismatch(node, kind.go_type)
        if kind == "anything":
            return node.value
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
        for key, value in self.entries(node):
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name not in kind.fields:
                if self.strict:
                    self.problem(key, f"field {name} not found in type {kind.name}")
                continue
            if name in found.positions:
                if self.strict and self.version == 2:
                    self.problem(key, f"field {name} already set in type {kind.name}")
                continue
            found.positions[name] = value.start_mark.line + 1, value.start_mark.column + 1
            found.values[name] = self.value(value, kind.fields[name])
        return found

    def map(self, node: yaml.MappingNode, kind: MapOf) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in self.entries(node):
            name = self.value(key, "string") or ""
            read = self.value(value, kind.item)
            if name in out and self.strict and self.version == 2:
                self.problem(key, f'key "{name}" already set in map')
            if read is not None:
                out[name] = read
            elif self.version == 3 and kind.item == "string" and value.tag == _NULL:
                out.setdefault(name, "")
        return out

    def entries(self, node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
        """Keys with values, those that `<<` merges in behind them unless they are there already."""
        own: dict[str, int] = {}
        entries: list[tuple[yaml.Node, yaml.Node]] = []
        merged: list[tuple[yaml.Node, yaml.Node]] = []
        for key, value in node.value:
            if key.tag == _TAG_PREFIX + "merge":
                for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    self.visits += 1
                    if self.visits > _VISITS_MAX or not isinstance(each, yaml.MappingNode):
                        raise YamlError("yaml: map merge requires map or sequence of maps as the value")
                    merged += self.entries(each)
                continue
            entries.append((key, value))
            name = str(key.value)
            if name in own and self.version == 3:
                self.problem(key, f'mapping key "{name}" already defined at line {own[name]}')
            own.setdefault(name, key.start_mark.line + 1)
        for key, value in merged:
            if str(key.value) not in own:
                own[str(key.value)] = 0
                entries.append((key, value))
        return entries

    def scalar(self, node: yaml.ScalarNode, kind: str) -> Any:
        text = node.value
        plain = node.style is None
        if kind == "string":
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
            if number is not None and abs(number) < 1 << 63:
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
