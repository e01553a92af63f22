"""Influx line protocol: lines of text become series with one sample each.

    measurement,tag=value,... field=number,... timestamp

A field becomes the series `<measurement>_<field>` (the field `value` just `<measurement>`) with the tags as labels.
Integers and booleans become floats, strings are passed over.
Specification: https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/.
Upstream: pkg/distributor/influxpush/parser.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mimir_ray.errors import ClientError

SOURCE_LABEL = ("__mimir_source__", "influx")
_NANOSECONDS = {
    "": 1, "n": 1, "ns": 1, "u": 1_000, "us": 1_000, "µ": 1_000, "ms": 1_000_000, "s": 1_000_000_000,
    "m": 60_000_000_000, "h": 3_600_000_000_000,
}  # fmt: skip
_TRUE, _FALSE = frozenset(("t", "T", "true", "True", "TRUE")), frozenset(("f", "F", "false", "False", "FALSE"))
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_ESCAPED = re.compile(r"\\([,= ])")
_ESCAPED_PAIR = re.compile(r"\\.", re.DOTALL)
_NO_NAME_CHARACTER = re.compile("[^a-zA-Z0-9_]")
_LINE_MAX = 1 << 20

Series = tuple[tuple[tuple[str, str], ...], list[tuple[int, float]]]
"""Labels sorted by name, and (ms, value)."""


class InvalidPrecision(ClientError):
    """The parameter `precision` is none that we know."""


@dataclass(eq=False)
class InvalidLine(ClientError):
    """A line that is not line protocol."""

    line: str
    reason: str

    def describe(self) -> str:
        return f"unable to parse '{self.line[:200]}': {self.reason}"


def parse_lines(body: bytes, precision: str, now_ms: int) -> list[Series]:
    """(labels sorted by name, [(ms, value)]) of every number in the body. Raises `InvalidLine`, `InvalidPrecision`.

    `precision`: the unit of timestamps; lines without one are of `now_ms`.
    """
    unit_ns = _NANOSECONDS.get(precision)
    if unit_ns is None:
        raise InvalidPrecision(f"precision supplied is not valid: {precision}")
    found: list[Series] = []
    for line in _lines(body.decode("utf-8", "replace")):
        found += _parse_line(line, unit_ns, now_ms)
    return found


def _lines(text: str) -> Iterator[str]:
    """Lines that are neither empty nor comments; a line goes on where a quoted string does."""
    pieces: list[str] = []
    size, quoted = 0, False
    for line in text.split("\n"):
        if not pieces and line.lstrip().startswith("#"):
            continue
        # Quotes have no meaning before the fields; a line that goes on is inside of them.
        fields = line if pieces else _split_first(line.lstrip(), " ")[1]
        quoted ^= len(_ESCAPED_PAIR.sub("", fields).split('"')) % 2 == 0
        pieces.append(line)
        size += len(line)
        if size > _LINE_MAX:
            raise InvalidLine(pieces[0], "the line is too long")
        if quoted:
            continue
        if stripped := "\n".join(pieces).strip():
            yield stripped
        pieces, size = [], 0
    if pieces:
        raise InvalidLine(pieces[0], "unbalanced quotes")


def _split_first(text: str, mark: str) -> tuple[str, str]:
    """(before, after) the first mark that has no backslash in front; after is "" if there is none."""
    at = 0
    while (at := text.find(mark, at)) >= 0:
        if at == 0 or text[at - 1] != "\\":
            return text[:at], text[at + 1 :]
        at += 1
    return text, ""


def _split(text: str, mark: str) -> list[str]:
    return re.split(rf"(?<!\\){mark}", text)


def _split_fields(text: str) -> tuple[list[str], str]:
    """(fields, what follows them): commas and spaces inside of quotes divide nothing."""
    parts: list[str] = []
    start = at = 0
    quoted = False
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif letter == '"':
            quoted = not quoted
        elif not quoted and letter == ",":
            parts.append(text[start:at])
            start = at + 1
        elif not quoted and letter == " ":
            break
        at += 1
    parts.append(text[start:at])
    return parts, text[at:].strip()


def _parse_line(line: str, unit_ns: int, now_ms: int) -> Iterator[Series]:
    head, rest = _split_first(line, " ")
    if not rest.strip():
        raise InvalidLine(line, "missing fields")
    fields, stamp = _split_fields(rest.lstrip())
    measurement, *tags = _split(head, ",")
    if not measurement:
        raise InvalidLine(line, "missing measurement")
    labels = {SOURCE_LABEL[0]: SOURCE_LABEL[1]}
    seen = set()
    for tag in tags:
        key, value = _split_first(tag, "=")
        if not key or not value:
            raise InvalidLine(line, "missing tag key" if not key else "missing tag value")
        if key in seen:
            raise InvalidLine(line, "duplicate tags")
        seen.add(key)
        if key != "__name__":
            labels[_name(_unescaped(key))] = _unescaped(value)
    time_ms = _time_ms(line, stamp, unit_ns, now_ms)
    for field in fields:
        key, text = _split_first(field, "=")
        if not key or not text:
            raise InvalidLine(line, "missing field key" if not key else "missing field value")
        number = _value(line, text)
        if number is None:
            continue
        key = _unescaped(key)
        metric = _unescaped(measurement) if key == "value" else f"{_unescaped(measurement)}_{key}"
        yield tuple(sorted((labels | {"__name__": _name(metric)}).items())), [(time_ms, number)]


def _time_ms(line: str, stamp: str, unit_ns: int, now_ms: int) -> int:
    if not stamp:
        return now_ms
    if not re.fullmatch(r"-?\d{1,19}", stamp):
        raise InvalidLine(line, "bad timestamp")
    time_ns = int(stamp) * unit_ns
    if not -(1 << 63) <= time_ns < 1 << 63:
        raise InvalidLine(line, "time outside range")
    return time_ns // 1_000_000


def _value(line: str, text: str) -> float | None:
    """A number, or None for a string."""
    if text.startswith('"'):
        if len(text) < 2 or not text.endswith('"') or not re.fullmatch(r'"(?:\\.|[^"\\])*"', text, re.DOTALL):
            raise InvalidLine(line, "unbalanced quotes")
        return None
    if text in _TRUE or text in _FALSE:
        return float(text in _TRUE)
    number = text
    if text[-1] in "iu" and re.fullmatch(r"[+-]?\d+", text[:-1]):
        number = text[:-1]
        least, end = (0, 1 << 64) if text[-1] == "u" else (-(1 << 63), 1 << 63)
        if not least <= int(number) < end:
            raise InvalidLine(line, "integer out of range")
    elif not _NUMBER.fullmatch(text):
        raise InvalidLine(line, "invalid number")
    return float(number)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def _name(text: str) -> str:
    name = _NO_NAME_CHARACTER.sub("_", text)
    return f"_{name}" if name[:1].isdigit() else name
