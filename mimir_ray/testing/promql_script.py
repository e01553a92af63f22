"""Prometheus' PromQL test language: text → commands.

`load`, `load_with_nhcb`, `clear`, `eval instant`, `eval range`, with every form of expectation, old and new.
What the commands do is in promql_script_run.py. Upstream: promql/promqltest/README.md, test.go.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import re2

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.durations import parse_duration
from mimir_ray.model.labels import Labels
from mimir_ray.model.series import STALE_NAN
from mimir_ray.promql.syntax.literals import parse_number, unquote
from mimir_ray.promql.syntax.parser import parse_metric


@dataclass(eq=False)
class ScriptError(InvalidArgument):
    """A script that is not in the language."""

    file: str
    line: int
    reason: str

    def describe(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class HistogramLiteral:
    """A float histogram as `{{...}}` says it: counts of buckets, not their differences.

    `offset`, `n_offset`: index of the first bucket listed. `counter_reset_hint` is None where the script
    says nothing, and then it does not matter in a comparison.
    """

    schema: int = 0
    sum: float = 0.0
    count: float = 0.0
    z_bucket: float = 0.0
    z_bucket_w: float = 0.0
    buckets: tuple[float, ...] = ()
    offset: int = 0
    n_buckets: tuple[float, ...] = ()
    n_offset: int = 0
    custom_values: tuple[float, ...] = ()
    counter_reset_hint: str | None = None


@dataclass(frozen=True, slots=True)
class HistogramValue:
    """One histogram sample: `base` with `step` added `times` times (subtracted, if negative)."""

    base: HistogramLiteral
    step: HistogramLiteral | None = None
    times: int = 0


SequenceValue = float | HistogramValue | None
"""What stands at one step; None: nothing."""


@dataclass(frozen=True, slots=True)
class LoadSeries:
    """Values from time 0 on, one each step. `starts`: start timestamps in ms relative to their samples."""

    labels: Labels
    values: tuple[SequenceValue, ...]
    starts: tuple[int | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Load:
    line: int
    step_ms: int
    series: tuple[LoadSeries, ...]
    with_nhcb: bool = False


@dataclass(frozen=True, slots=True)
class Clear:
    line: int


@dataclass(frozen=True, slots=True)
class Expectation:
    """Of an error or annotation: just this text, a pattern found in it, or (neither) anything."""

    message: str | None = None
    pattern: str | None = None

    def accepts(self, text: str) -> bool:
        if self.message is not None:
            return text == self.message
        return self.pattern is None or re2.search(self.pattern, text) is not None

    def __str__(self) -> str:
        return self.message if self.message is not None else f"/{self.pattern or '.*'}/"


@dataclass(slots=True)
class Eval:
    """One query and its answer. `step_ms` None: an instant query at `end_ms`.

    `start_ms`, `end_ms`, `points_step_ms` say where the listed values stand. `exactly`: kinds of annotation
    (`warn`, `info`) with the expectations that each of that kind must satisfy one of; `some`: kinds of which
    there must be one; `none`: kinds of which there must be none. `fail`: all that the error must satisfy.
    """

    line: int
    query: str
    start_ms: int
    end_ms: int
    step_ms: int | None
    points_step_ms: int = 0
    expected: dict[Labels, tuple[SequenceValue, ...]] = field(default_factory=dict)
    positions: dict[Labels, int] = field(default_factory=dict)
    scalar: float | None = None
    string: str | None = None
    range_vector: bool = False
    ordered: bool = False
    fail: list[Expectation] = field(default_factory=list)
    exactly: dict[str, list[Expectation]] = field(default_factory=dict)
    some: set[str] = field(default_factory=set)
    none: set[str] = field(default_factory=set)


Command = Load | Clear | Eval

_LOAD = re.compile(r"load(_with_nhcb)?\s+(.+?)\Z")
_EVAL_INSTANT = re.compile(r"eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)\Z")
_EVAL_RANGE = re.compile(r"eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)\Z")
_EXPECT = re.compile(r"expect\s+(ordered|fail|warn|no_warn|info|no_info)(?:\s+(regex|msg):(.+))?\Z")
_EXPECT_RANGE = re.compile(r"expect range vector\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+)\Z")
_NUMBER = r"(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|[iI][nN][fF]|[nN][aA][nN])"
_ITEM = re.compile(
    rf"""\s*(?:
        (?P<blank>_)(?:x(?P<blanks>\d+))?
      | (?P<histogram>\{{\{{.*?\}}\}})(?:(?P<sign>[+-])(?P<step>\{{\{{.*?\}}\}}))?(?:x(?P<histograms>\d+))?
      | (?P<stale>stale)
      | (?P<value>[+-]?{_NUMBER})(?P<delta>[+-]{_NUMBER})?(?:x(?P<repeats>\d+))?
    )(?=\s|\Z)""",
    re.VERBOSE,
)
_DESCRIPTOR = re.compile(r"\s*([a-z_]+):(\[[^\]]*\]|[^\s\]]+)(?=\s|\Z)")
_START = re.compile(r"([+-]?\d+[a-z]*?)(?:([+-])(\d+[a-z]*?))?(?:x(\d+))?\Z")
_LISTS = frozenset({"buckets", "n_buckets", "custom_values"})
_INTEGERS = frozenset({"schema", "offset", "n_offset"})
_HINTS = frozenset({"unknown", "reset", "not_reset", "gauge"})


def parse_script(text: str, file: str = "script") -> list[Command]:
    """The commands of a script in order. Raises `ScriptError`."""
    lines = _Lines(text, file)
    commands: list[Command] = []
    while lines.more():
        line = lines.take()
        word = line.split(None, 1)[0].lower() if line else ""
        if not line:
            continue
        if word == "clear":
            commands.append(Clear(lines.number))
        elif word.startswith("load"):
            commands.append(_load(lines, line))
        elif word.startswith("eval"):
            commands.append(_eval(lines, line))
        else:
            raise lines.error(f"invalid command {line!r}")
    return commands


class _Lines:
    """The script line by line; comments are empty lines, and those end a command."""

    def __init__(self, text: str, file: str) -> None:
        stripped = (line.strip() for line in text.split("\n"))
        self.lines = ["" if line.startswith("#") else line for line in stripped]
        self.file = file
        self.number = 0

    def more(self) -> bool:
        return self.number < len(self.lines)

    def take(self) -> str:
        self.number += 1
        return self.lines[self.number - 1]

    def block(self) -> Iterator[str]:
        """The lines up to the next empty one."""
        while self.more() and self.lines[self.number]:
            yield self.take()

    def error(self, reason: str) -> ScriptError:
        return ScriptError(self.file, self.number, reason)

    def duration(self, text: str) -> int:
        try:
            return parse_duration(text.strip())
        except InvalidArgument as error:
            raise self.error(str(error)) from None


def _load(lines: _Lines, line: str) -> Load:
    found = _LOAD.match(line)
    if found is None:
        raise lines.error("invalid load command. (load[_with_nhcb] <step:duration>)")
    number, step_ms = lines.number, lines.duration(found[2])
    series: dict[Labels, LoadSeries] = {}
    starts: tuple[Labels, tuple[int | None, ...]] | None = None
    for each in lines.block():
        head, _, rest = each.partition(" ")
        if head.endswith("@st") and rest:
            if starts is not None:
                raise lines.error("@st line has no following sample line")
            starts = _metric(lines, head.removesuffix("@st")), _starts(lines, rest)
            continue
        labels, values = parse_series(lines, each)
        if starts is not None and starts[0] != labels:
            raise lines.error("@st metric does not match the following sample line metric")
        if starts is not None and len(starts[1]) != len(values):
            raise lines.error(f"@st line has {len(starts[1])} values but sample line has {len(values)}")
        series[labels] = LoadSeries(labels, values, starts[1] if starts else None)
        starts = None
    if starts is not None:
        raise lines.error("@st line has no following sample line")
    return Load(number, step_ms, tuple(series.values()), found[1] is not None)


def _starts(lines: _Lines, text: str) -> tuple[int | None, ...]:
    out: list[int | None] = []
    for item in text.split():
        if blank := re.fullmatch(r"_(?:x(\d+))?", item):
            out += [None] * int(blank[1] or 1)
            continue
        found = _START.match(item)
        if found is None:
            raise lines.error(f"invalid @st sequence: invalid ST item {item!r}")
        offset = _signed(lines, found[1])
        change = _signed(lines, (found[2] or "") + (found[3] or "0"))
        out += [offset + change * index for index in range(int(found[4] or 0) + 1)]
    return tuple(out)


def _signed(lines: _Lines, text: str) -> int:
    size = lines.duration(text.lstrip("+-"))
    return -size if text.startswith("-") else size


_ANY_ERROR = Expectation()
"""What `eval_fail` expects, whatever lines below it say more."""


def _eval(lines: _Lines, line: str) -> Eval:
    instant, ranged = _EVAL_INSTANT.match(line), _EVAL_RANGE.match(line)
    if instant is not None:
        mode, at, query = instant.groups()
        time_ms = lines.duration(at or "")
        command = Eval(lines.number, query, time_ms, time_ms, None)
    elif ranged is not None:
        mode, start, end, step, query = ranged.groups()
        step_ms = lines.duration(step)
        command = Eval(lines.number, query, lines.duration(start), lines.duration(end), step_ms, step_ms)
        if command.end_ms < command.start_ms:
            raise lines.error(f"end timestamp ({end}) is before start timestamp ({start})")
    else:
        raise lines.error("invalid evaluation command")
    if mode == "ordered":
        command.ordered = True
    elif mode == "fail":
        command.fail.append(_ANY_ERROR)
    elif mode:
        command.some.add(mode)
    position = 0
    for each in lines.block():
        position += 1
        if command.fail and each.startswith("expected_fail_message"):
            command.fail.append(Expectation(message=each.removeprefix("expected_fail_message").strip()))
            break
        if command.fail and each.startswith("expected_fail_regexp"):
            command.fail.append(Expectation(pattern=each.removeprefix("expected_fail_regexp").strip()))
            break
        if each.startswith("expect range vector"):
            _expect_range(lines, command, each)
        elif each.startswith("expect string"):
            command.string = _go_string(lines, each.removeprefix("expect string").strip())
        elif each.split(" ", 1)[0] == "expect":
            _expect(lines, command, each)
            position -= 1
        elif (scalar := _number(each)) is not None:
            command.scalar = scalar
            break
        else:
            labels, values = parse_series(lines, each)
            if len(values) > 1 and command.step_ms is None and not command.range_vector:
                raise lines.error("expecting multiple values in instant evaluation not allowed")
            command.expected[labels] = values
            command.positions[labels] = position
    return command


def _expect(lines: _Lines, command: Eval, line: str) -> None:
    found = _EXPECT.match(line)
    if found is None:
        raise lines.error("invalid expect statement, must match `expect <type> <match_type>: <string>` format")
    kind, how, text = found.groups()
    expectation = Expectation()
    if how == "msg":
        expectation = Expectation(message=text.strip())
    elif how == "regex":
        expectation = Expectation(pattern=text.strip())
    if kind == "ordered":
        command.ordered = True
    elif kind == "fail":
        if any(one is not _ANY_ERROR for one in command.fail):
            raise lines.error("invalid expect lines, multiple expect fail lines are not allowed")
        command.fail.append(expectation)
    elif kind.startswith("no_"):
        command.none.add(kind.removeprefix("no_"))
    else:
        command.exactly.setdefault(kind, []).append(expectation)
    for both in ("warn", "info"):
        if both in command.none and both in command.exactly:
            raise lines.error(f"invalid expect lines, {both} and no_{both} cannot be used together")


def _expect_range(lines: _Lines, command: Eval, line: str) -> None:
    found = _EXPECT_RANGE.match(line)
    if found is None:
        raise lines.error(f"invalid range vector definition {line!r}")
    command.range_vector = True
    command.start_ms, command.end_ms, command.points_step_ms = (lines.duration(part) for part in found.groups())


def _go_string(lines: _Lines, text: str) -> str:
    if not re.fullmatch(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`', text):
        raise lines.error("expected string literal not valid - check that the string is correctly quoted")
    return unquote(text)


def _number(text: str) -> float | None:
    sign = -1 if text.startswith("-") else 1
    try:
        return sign * parse_number(text.lstrip("+-") if text[1:2] not in "+-" else text)
    except InvalidArgument:
        return None


def parse_series(lines: _Lines, line: str) -> tuple[Labels, tuple[SequenceValue, ...]]:
    """A metric and its values. Upstream: ParseSeriesDesc."""
    end = _metric_end(line)
    if end < len(line) and not line[end].isspace():
        raise lines.error(f"unexpected {line[end:]!r} in series values")
    values: list[SequenceValue] = []
    at = end
    rest = line.rstrip()
    while at < len(rest):
        found = _ITEM.match(rest, at)
        if found is None:
            raise lines.error(f"invalid value in series: {rest[at:].strip()!r}")
        values += _values(lines, found.groupdict())
        at = found.end()
    return _metric(lines, line[:end]), tuple(values)


def _metric(lines: _Lines, text: str) -> Labels:
    try:
        return parse_metric(text)
    except InvalidArgument as error:
        raise lines.error(str(error)) from None


def _metric_end(line: str) -> int:
    """Where the metric ends: behind its closing brace, or at the first space."""
    quote_mark = ""
    braces = False
    at = 0
    while at < len(line):
        char = line[at]
        if quote_mark:
            if char == "\\" and quote_mark != "`":
                at += 1
            elif char == quote_mark:
                quote_mark = ""
        elif char in "\"'`":
            quote_mark = char
        elif char == "{":
            braces = True
        elif char == "}":
            return at + 1
        elif char.isspace() and not braces:
            return at
        at += 1
    return at


def _values(lines: _Lines, item: dict[str, Any]) -> list[SequenceValue]:
    if item["blank"]:
        return [None] * int(item["blanks"] or 1)
    if item["stale"]:
        return [STALE_NAN]
    if item["histogram"]:
        base = _histogram(lines, item["histogram"])
        step = _histogram(lines, item["step"]) if item["step"] else None
        sign = -1 if item["sign"] == "-" else 1
        count = int(item["histograms"] or 0) + 1
        return [HistogramValue(base, step if index else None, sign * index if step else 0) for index in range(count)]
    value = _float(item["value"])
    change = _float(item["delta"]) if item["delta"] else 0.0
    out: list[SequenceValue] = []
    for _ in range(int(item["repeats"] or 0) + 1):
        out.append(value)
        # Added up step by step, as upstream does, so that the same rounding comes out.
        value += change
    return out


def _float(text: str) -> float:
    value = float(text)
    return math.nan if math.isnan(value) else value


def _histogram(lines: _Lines, text: str) -> HistogramLiteral:
    body = text[2:-2].rstrip()
    said: dict[str, Any] = {}
    at = 0
    while at < len(body):
        found = _DESCRIPTOR.match(body, at)
        if found is None or found[1] not in HistogramLiteral.__dataclass_fields__:
            raise lines.error(f"bad histogram descriptor found: {body[at:].strip()!r}")
        name, value = found[1], found[2]
        if name in said:
            raise lines.error(f"duplicate key {name!r} in histogram")
        try:
            if name in _LISTS:
                said[name] = tuple(float(part) for part in value[1:-1].split())
            elif name in _INTEGERS:
                said[name] = int(value)
            elif name == "counter_reset_hint":
                said[name] = {hint: hint for hint in _HINTS}[value]
            else:
                said[name] = _float(value)
        except (ValueError, KeyError):
            raise lines.error(f"bad value in histogram: {found[0].strip()!r}") from None
        at = found.end()
    return HistogramLiteral(**said)
