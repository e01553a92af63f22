"""Unit tests of rules: promtool's file format.

Upstream: cmd/promtool/unittest.go; docs/configuration/unit_testing_rules.md.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mimir_ray.errors import InvalidArgument
from mimir_ray.gotemplate.floats import parse_float
from mimir_ray.model.go_yaml import Decoded, ListOf, MapOf, Shape, decode
from mimir_ray.model.matchers import quote


@dataclass(frozen=True, slots=True)
class InputSeries:
    series: str
    values: str


@dataclass(frozen=True, slots=True)
class ExpectedAlert:
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AlertTest:
    eval_time_ms: int
    alertname: str
    expected: tuple[ExpectedAlert, ...]


@dataclass(frozen=True, slots=True)
class ExpectedSample:
    """`histogram`, where it is given, counts instead of `value`."""

    labels: str
    value: float
    histogram: str


@dataclass(frozen=True, slots=True)
class ExprTest:
    expr: str
    eval_time_ms: int
    expected: tuple[ExpectedSample, ...]


@dataclass(frozen=True, slots=True)
class TestGroup:
    """Input series and what is to come of them. `interval_ms`: between the values of a series."""

    __test__ = False  # of no interest to pytest

    name: str = ""
    interval_ms: int = 0
    input_series: tuple[InputSeries, ...] = ()
    alert_tests: tuple[AlertTest, ...] = ()
    expr_tests: tuple[ExprTest, ...] = ()
    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""
    start_ms: int = 0

    @property
    def last_eval_time_ms(self) -> int:
        times = [test.eval_time_ms for test in self.alert_tests] + [test.eval_time_ms for test in self.expr_tests]
        return max(times, default=0)


@dataclass(frozen=True, slots=True)
class TestFile:
    """`rule_files`: paths after globbing. `group_order`: groups that are named in it are evaluated in its order."""

    __test__ = False

    rule_files: tuple[str, ...]
    evaluation_interval_ms: int
    group_order: Mapping[str, int]
    fuzzy_compare: bool
    groups: tuple[TestGroup, ...]


_STRINGS = MapOf("string")
_SERIES = Shape("main.series", {"series": "string", "values": "string"})
_ALERT = Shape("main.alert", {"exp_labels": _STRINGS, "exp_annotations": _STRINGS})
_ALERT_TEST = Shape(
    "main.alertTestCase", {"eval_time": "duration", "alertname": "string", "exp_alerts": ListOf(_ALERT)}
)
_SAMPLE = Shape("main.sample", {"labels": "string", "value": "float64", "histogram": "string"})
_EXPR_TEST = Shape("main.promqlTestCase", {"expr": "string", "eval_time": "duration", "exp_samples": ListOf(_SAMPLE)})
_GROUP = Shape(
    "main.testGroup",
    {
        "interval": "duration",
        "input_series": ListOf(_SERIES),
        "alert_rule_test": ListOf(_ALERT_TEST),
        "promql_expr_test": ListOf(_EXPR_TEST),
        "external_labels": _STRINGS,
        "external_url": "string",
        "name": "string",
        "start_timestamp": "string",
    },
)
_FILE = Shape(
    "main.unitTestFile",
    {
        "rule_files": ListOf("string"),
        "evaluation_interval": "duration",
        "group_eval_order": ListOf("string"),
        "tests": ListOf(_GROUP),
        "fuzzy_compare": "bool",
    },
)
_MINUTE_MS = 60_000


def read_test_file(path: str, warn: Callable[[str], None]) -> TestFile:
    """A test file. `warn` hears of patterns that match no file. Raises `InvalidArgument` and `OSError`."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        read = decode(file.read(), _FILE, strict=True, version=2)
    rule_files: list[str] = []
    for pattern in read.get("rule_files", []):
        full = os.path.normpath(os.path.join(os.path.dirname(path), pattern)) if pattern else ""
        found = sorted(glob.glob(full)) if full else []
        if not found:
            warn(f"no file match pattern {full}")
        rule_files += found
    order: dict[str, int] = {}
    for at, name in enumerate(read.get("group_eval_order", [])):
        if name in order:
            raise InvalidArgument(f"group name repeated in evaluation order: {name}")
        order[name] = at
    interval_ms = read.get("evaluation_interval", 0) or _MINUTE_MS
    return TestFile(
        tuple(rule_files),
        interval_ms,
        order,
        read.get("fuzzy_compare", False),
        tuple(_group(one, interval_ms) for one in read.get("tests", [])),
    )


def _group(read: Decoded, interval_ms: int) -> TestGroup:
    start = read.values.get("start_timestamp")
    return TestGroup(
        name=read.get("name", ""),
        interval_ms=read.get("interval", 0) or interval_ms,
        input_series=tuple(
            InputSeries(one.get("series", ""), one.get("values", "")) for one in read.get("input_series", [])
        ),
        alert_tests=tuple(
            AlertTest(
                one.get("eval_time", 0),
                one.get("alertname", ""),
                tuple(
                    ExpectedAlert(alert.get("exp_labels", {}), alert.get("exp_annotations", {}))
                    for alert in one.get("exp_alerts", [])
                ),
            )
            for one in read.get("alert_rule_test", [])
        ),
        expr_tests=tuple(
            ExprTest(
                one.get("expr", ""),
                one.get("eval_time", 0),
                tuple(
                    ExpectedSample(
                        sample.get("labels", ""), float(sample.get("value", 0.0)), sample.get("histogram", "")
                    )
                    for sample in one.get("exp_samples", [])
                ),
            )
            for one in read.get("promql_expr_test", [])
        ),
        external_labels=read.get("external_labels", {}),
        external_url=read.get("external_url", ""),
        start_ms=0 if start is None else _time(start),
    )


_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)\Z")


def _time(text: str) -> int:
    """Seconds since 1970 or RFC 3339, in ms. Upstream: cmd/promtool parseTime."""
    seconds = parse_float(text)
    if seconds is not None:
        return round(seconds * 1000)
    found = _RFC3339.match(text)
    if found is None:
        raise InvalidArgument(f"cannot parse {quote(text)} to a valid timestamp")
    try:
        date = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    except ValueError:
        raise InvalidArgument(f"cannot parse {quote(text)} to a valid timestamp") from None
    return round((date.timestamp() + float(found[2] or 0)) * 1000)
