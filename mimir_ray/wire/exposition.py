"""What scrape targets answer: the text exposition format 0.0.4 and OpenMetrics 1.0, as columns.

A sample's series stays the text it was (`http_requests_total{code="200"}`): targets repeat the same texts scrape
after scrape, so whoever scrapes keeps a table from text to labels and calls `parse_series` for new ones only.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/, https://prometheus.io/docs/specs/om/.
Upstream: model/textparse promparse.go, openmetricsparse.go. Exemplars are passed over.
# Differs: the order of OpenMetrics families and suffixes is not checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.errors import ClientError
from mimir_ray.model.labels import METRIC_NAME, Labels, labels_of
from mimir_ray.model.metadata import METRIC_TYPES, Metadata
from mimir_ray.model.series import NORMAL_NAN_BITS

NO_TIMESTAMP = -(1 << 63)
"""The sample has none: it is of the time of the scrape."""

OPENMETRICS = "application/openmetrics-text"

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_SAMPLE = re.compile(
    # The name (which may stand among the labels), the labels, the value, a timestamp, an exemplar.
    r"[ \t]*((?:[a-zA-Z_:][a-zA-Z0-9_:]*(?=[ \t{]))?(?:[ \t]*\{(?:[^\"{}]|" + _QUOTED + r")*\})?)"
    r"[ \t]*([^ \t\n{}#\"]+)(?:[ \t]+([^ \t\n#]+))?[ \t]*(?:#[^\n]*)?(?:\n|\Z)",
    re.DOTALL,
)
_COMMENT = re.compile(r"[ \t]*#([^\n]*)(?:\n|\Z)")
_BLANK = re.compile(r"[ \t]*(?:\n|\Z)")
_DESCRIPTION = re.compile(r"[ \t]*(HELP|TYPE|UNIT)[ \t]+(" + _QUOTED + r"|[^ \t\"]+)(?:[ \t](.*))?\Z", re.DOTALL)
_LABEL = re.compile(
    r"[ \t\n]*(?:([a-zA-Z_][a-zA-Z0-9_]*|"
    + _QUOTED
    + r")[ \t]*=[ \t]*("
    + _QUOTED
    + r")|("
    + _QUOTED
    + r"))[ \t\n]*(,|\Z)"
)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}
_INTEGER = re.compile(r"[+-]?[0-9]+\Z")


@dataclass(eq=False)
class InvalidExposition(ClientError):
    """A target's answer that cannot be read; nothing of it counts."""

    line: int
    problem: str

    def describe(self) -> str:
        return f"line {self.line}: {self.problem}"


@dataclass(slots=True)
class Exposition:
    """N samples as they stand in the text.

    `series`: N texts for `parse_series`. `timestamps`: int64[N], ms, or `NO_TIMESTAMP`. `values`: float64[N], every NaN
    is the normal one.
    """

    series: list[str]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
    metadata: tuple[Metadata, ...]

    def __len__(self) -> int:
        return len(self.series)


def parse_exposition(body: bytes, content_type: str = "") -> Exposition:
    """Reads a whole answer; `content_type` is its header. Raises `InvalidExposition`."""
    openmetrics = content_type.split(";", 1)[0].strip().lower() == OPENMETRICS
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidExposition(body.count(b"\n", 0, error.start) + 1, "invalid UTF-8") from None
    series: list[str] = []
    values: list[str] = []
    begins: list[int] = []
    stamped: list[tuple[int, str, int]] = []
    descriptions: dict[str, list[str]] = {}
    at, size, ended = 0, len(text), False
    match_sample = _SAMPLE.match
    while at < size:
        if ended:
            raise _invalid(text, at, "unexpected data after # EOF")
        found = match_sample(text, at)
        if found is not None:
            name, value, stamp = found.groups()
            if not name:
                raise _invalid(text, at, "sample without a name")
            if stamp is not None:
                stamped.append((len(series), stamp, at))
            series.append(name)
            values.append(value)
            begins.append(at)
        elif (found := _COMMENT.match(text, at)) is not None:
            if openmetrics and found.group(1) == " EOF":
                ended = True
            else:
                _describe(found.group(1), text, at, descriptions, openmetrics)
        elif (found := _BLANK.match(text, at)) is None:
            raise _invalid(text, at, f"cannot be understood: {text[at : at + 60].split(chr(10))[0]!r}")
        at = found.end()
    if openmetrics and not ended:
        raise _invalid(text, size, "data does not end with # EOF")
    timestamps = np.full(len(series), NO_TIMESTAMP, np.int64)
    for place, stamp, position in stamped:
        timestamps[place] = _timestamp(stamp, text, position, openmetrics)
    metadata = tuple(
        Metadata(family, kind or "unknown", about, unit) for family, (kind, about, unit) in descriptions.items()
    )
    return Exposition(series, timestamps, _numbers(values, text, begins), metadata)


def parse_series(text: str) -> Labels:
    """The labels of one sample: sorted, without empty values. Raises `InvalidExposition` (of line 1)."""
    name, _, rest = text.partition("{")
    pairs: dict[str, str] = {}
    if name.strip():
        pairs[METRIC_NAME] = name.strip()
    inside = rest.rstrip()[:-1]
    at = 0
    while at < len(inside) and inside[at:].strip():
        found = _LABEL.match(inside, at)
        if found is None:
            raise InvalidExposition(1, f"cannot be understood as labels: {inside[at:]!r}")
        label, value, bare = found.group(1, 2, 3)
        if bare is not None:
            label, value = METRIC_NAME, bare
        elif label.startswith('"'):
            label = _unquote(label)
        if label in pairs:
            raise InvalidExposition(1, f"label {label!r} is there twice")
        pairs[label] = _unquote(value)
        at = found.end()
    if not pairs.get(METRIC_NAME):
        raise InvalidExposition(1, "sample without a name")
    return labels_of(pairs)


def _unquote(quoted: str) -> str:
    inner = quoted[1:-1]
    return _unescape(inner) if "\\" in inner else inner


def _unescape(text: str) -> str:
    # An unknown escape stays as it is. Upstream: model/textparse/promparse.go lvalReplacer
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found.group(1), found.group()), text)


def _numbers(texts: list[str], text: str, begins: list[int]) -> NDArray[np.float64]:
    """The values; `begins`: where in `text` each sample is, for errors."""
    try:
        numbers = np.array(list(map(float, texts)), np.float64)
        if "_" in "".join(texts):
            raise ValueError
    except ValueError:
        numbers = np.empty(len(texts), np.float64)
        for place, one in enumerate(texts):
            found = _number(one)
            if found is None:
                raise _invalid(text, begins[place], f"not a number: {one!r}") from None
            numbers[place] = found
    numbers.view(np.uint64)[np.isnan(numbers)] = NORMAL_NAN_BITS
    return numbers


def _number(text: str) -> float | None:
    """As Go's strconv.ParseFloat: hexadecimal too, but no underscores. None if it is not a number."""
    if "_" in text:
        return None
    try:
        return float.fromhex(text) if text.lstrip("+-")[:2] in ("0x", "0X") else float(text)
    except (ValueError, OverflowError):
        return None


def _timestamp(stamp: str, text: str, at: int, openmetrics: bool) -> int:
    moment = None
    if openmetrics:
        seconds = _number(stamp)
        if seconds is not None and abs(seconds) < 1e15:
            moment = int(seconds * 1000)
    elif _INTEGER.match(stamp):
        moment = int(stamp)
    if moment is None or not -(1 << 63) < moment < 1 << 63:
        raise _invalid(text, at, f"not a timestamp: {stamp!r}")
    return moment


def _describe(comment: str, text: str, at: int, descriptions: dict[str, list[str]], openmetrics: bool) -> None:
    """Takes `HELP name text`, `TYPE name type`, `UNIT name unit`; other comments mean nothing."""
    found = _DESCRIPTION.match(comment)
    if found is None:
        return
    what, family, rest = found.groups()
    if family.startswith('"'):
        family = _unquote(family)
    elif not _NAME.fullmatch(family):
        raise _invalid(text, at, f"not a metric name: {family!r}")
    rest = rest or ""
    entry = descriptions.setdefault(family, ["", "", ""])
    if what == "TYPE":
        kind = rest.strip()
        kind = "unknown" if kind == "untyped" and not openmetrics else kind
        if kind not in METRIC_TYPES:
            raise _invalid(text, at, f"invalid metric type {rest.strip()!r}")
        entry[0] = kind
    elif what == "HELP":
        entry[1] = _unescape(rest) if "\\" in rest else rest
    elif openmetrics:
        entry[2] = rest.strip()


def _invalid(text: str, at: int, problem: str) -> InvalidExposition:
    return InvalidExposition(text.count("\n", 0, at) + 1, problem)
