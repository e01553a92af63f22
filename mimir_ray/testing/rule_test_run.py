"""Runs unit tests of rules: evaluates the groups step by step over the input series, then compares.

Upstream: cmd/promtool/unittest.go testGroup.test.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from mimir_ray.errors import InvalidArgument, MimirRayError
from mimir_ray.gotemplate.times import format_duration as format_go_duration
from mimir_ray.model.durations import format_duration
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.labels import labels_of
from mimir_ray.model.matchers import quote
from mimir_ray.model.result import Matrix
from mimir_ray.model.rules import RuleFileError, RuleGroup, parse_rule_file
from mimir_ray.promql.engine import Engine, EngineOptions
from mimir_ray.promql.syntax.cursor import ParserOptions
from mimir_ray.promql.syntax.parser import parse, parse_metric
from mimir_ray.promql.syntax.printer import format_expr, format_number
from mimir_ray.roles.ruler.alerts import AlertState
from mimir_ray.roles.ruler.evaluation import ALERT_NAME, GroupContext, RuleState, evaluate_group
from mimir_ray.roles.ruler.sample import Sample, samples_of
from mimir_ray.roles.ruler.templates import TemplateContext, format_histogram
from mimir_ray.roles.ruler.validation import check_groups

from .rule_test_diff import diff_alerts
from .rule_test_file import AlertTest, ExprTest, TestFile, TestGroup
from .rule_test_report import (
    LabelsAndAnnotations,
    ParsedSample,
    format_alerts,
    format_pairs,
    format_samples,
    histogram_expression,
    indent,
)
from .rule_test_storage import InputData, RuleTestStorage, parse_input, plain_values


@dataclass(frozen=True, slots=True)
class TestOptions:
    """`diff`: show alerts that differ as a coloured difference. `ignore_unknown_fields`: in rule files."""

    __test__ = False

    diff: bool = False
    ignore_unknown_fields: bool = False
    parser: ParserOptions = ParserOptions(experimental_functions=False)
    delayed_name_removal: bool = False


class RulesBroken(InvalidArgument):
    """Rule files that cannot be loaded; `args`: every problem."""


def load_groups(paths: Sequence[str], options: TestOptions) -> list[RuleGroup]:
    """The groups of all files, their expressions in standard form. Raises `RulesBroken`."""
    groups: dict[tuple[str, str], RuleGroup] = {}
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
            read = parse_rule_file(text, strict=not options.ignore_unknown_fields)
        except OSError as error:
            raise RulesBroken(f"{path}: open {path}: {(error.strerror or '').lower()}") from None
        except RuleFileError as error:
            raise RulesBroken(*(f"{path}: {problem}" for problem in error.problems)) from None
        if problems := check_groups(read, lambda expr: parse(expr, options.parser)):
            raise RulesBroken(*(f"{path}: {problem}" for problem in problems))
        for group in read:
            # As the rule manager asks them: error texts show this form.
            rules = tuple(replace(rule, expr=format_expr(parse(rule.expr, options.parser))) for rule in group.rules)
            groups[path, group.name] = replace(group, rules=rules)
    return list(groups.values())


class GroupRun:
    """One test group over a storage of its own."""

    def __init__(self, file: TestFile, group: TestGroup, options: TestOptions, storage: RuleTestStorage) -> None:
        self._file = file
        self._group = group
        self._options = options
        self._storage = storage
        self._engine = Engine(
            EngineOptions(
                default_step_ms=file.evaluation_interval_ms,
                timeout_s=100.0,
                enable_delayed_name_removal=options.delayed_name_removal,
            ),
            parse_query=lambda query: parse(query, options.parser),
        )
        self.errors: list[str] = []

    def query(self, expr: str, time_ms: int) -> list[Sample]:
        return samples_of(self._engine.instant(expr, self._storage.head, time_ms))

    def run(self) -> None:
        """Fills `errors`."""
        group, file = self._group, self._file
        try:
            data = InputData(group.input_series, group.interval_ms, group.start_ms)
            rules = load_groups(file.rule_files, self._options)
        except RulesBroken as error:
            self.errors += map(str, error.args)
            return
        except InvalidArgument as error:
            self.errors.append(error.describe())
            return
        for test in group.alert_tests:
            if not test.alertname:
                where = f" (in TestGroup {group.name})" if group.name else ""
                self.errors.append(
                    "an item under alert_rule_test misses required attribute alertname at eval_time "
                    f"{format_duration(test.eval_time_ms)}{where}"
                )
                return
        rules.sort(key=lambda one: file.group_order.get(one.name, 0))
        if not self._evaluate(rules, data):
            return
        for expr_test in group.expr_tests:
            self._check_expr(expr_test)

    def _evaluate(self, rules: Sequence[RuleGroup], data: InputData) -> bool:
        """Whether the expressions can be looked at: no rule failed."""
        group, interval_ms = self._group, self._file.evaluation_interval_ms
        states = [[RuleState() for _ in one.rules] for one in rules]
        context = GroupContext(
            TemplateContext(group.external_labels, group.external_url), interval_ms=group.interval_ms
        )
        pending = sorted({test.eval_time_ms for test in group.alert_tests}, reverse=True)
        for since_ms in range(0, group.last_eval_time_ms + 1, interval_ms):
            now_ms = group.start_ms + since_ms
            failed = []
            try:
                self._storage.write(data.until(now_ms))
                for at, one in enumerate(rules):
                    states[at], _ = evaluate_group(one, states[at], context, now_ms, self.query, self._storage.write)
                    failed += [
                        f"    rule: {rule.name}, time: {format_go_duration(now_ms * 1_000_000)}, err: {state.error}"
                        for rule, state in zip(one.rules, states[at], strict=True)
                        if state.error
                    ]
            except MimirRayError as error:
                self.errors.append(error.describe())
            self.errors += failed
            if failed:
                return False
            while pending and since_ms <= pending[-1] < since_ms + interval_ms:
                time_ms = pending.pop()
                for test in group.alert_tests:
                    if test.eval_time_ms == time_ms:
                        self._check_alerts(test, rules, states)
        return True

    def _check_alerts(self, test: AlertTest, rules: Sequence[RuleGroup], states: Sequence[Sequence[RuleState]]) -> None:
        got: list[LabelsAndAnnotations] = sorted(
            (alert.labels, alert.annotations)
            for group, group_states in zip(rules, states, strict=True)
            for rule, state in zip(group.rules, group_states, strict=True)
            if rule.alert == test.alertname
            for alert in state.active.values()
            if alert.state is AlertState.FIRING and alert.is_active
        )
        expected: list[LabelsAndAnnotations] = sorted(
            (
                tuple(sorted({**alert.labels, ALERT_NAME: test.alertname}.items())),
                tuple(sorted(alert.annotations.items())),
            )
            for alert in test.expected
        )
        if got == expected:
            return
        name = f"    name: {self._group.name},\n" if self._group.name else ""
        start = f"{name}    alertname: {test.alertname}, time: {format_duration(test.eval_time_ms)}, \n"
        by = " " * 12
        if self._options.diff:
            if difference := diff_alerts(expected, got):
                self.errors.append(f"{start}        diff: {indent(difference, by)}")
            return
        self.errors.append(
            f"{start}        exp:{indent(format_alerts(expected), by)}, \n        got:{indent(format_alerts(got), by)}"
        )

    def _check_expr(self, test: ExprTest) -> None:
        start = f"    expr: {quote(test.expr)}, time: {format_duration(test.eval_time_ms)},"
        try:
            found = self.query(test.expr, self._group.start_ms + test.eval_time_ms)
        except MimirRayError as error:
            self.errors.append(f"{start} err: {error.describe()}")
            return
        expected = []
        for sample in test.expected:
            try:
                expected.append(_expected(sample.labels, sample.value, sample.histogram))
            except InvalidArgument as error:
                self.errors.append(f"{start} err: labels {quote(sample.labels)}: {error.describe()}")
                return
        got = [_parsed(sample) for sample in found]
        expected.sort(key=lambda sample: sample.labels)
        got.sort(key=lambda sample: sample.labels)
        if not self._same(expected, got):
            self.errors.append(f"{start}\n        exp: {format_samples(expected)}\n        got: {format_samples(got)}")

    def _same(self, expected: Sequence[ParsedSample], got: Sequence[ParsedSample]) -> bool:
        return len(expected) == len(got) and all(
            wanted.labels == found.labels
            and wanted.histogram == found.histogram
            and self._equal(wanted.value, found.value)
            for wanted, found in zip(expected, got, strict=True)
        )

    def _equal(self, wanted: float, found: float) -> bool:
        """NaN equals nothing, as in promtool."""
        if wanted == found:
            return True
        return self._file.fuzzy_compare and found in (
            math.nextafter(wanted, -math.inf),
            math.nextafter(wanted, math.inf),
        )

    def dump(self) -> list[str]:
        """All samples at the end, for --debug."""
        until_ms = (self._group.last_eval_time_ms + 1000) // 1000 * 1000
        expr = f'{{__name__=~".+"}}[{format_go_duration(until_ms * 1_000_000)}]'
        try:
            value = self._engine.instant(expr, self._storage.head, self._group.start_ms + until_ms).value
        except MimirRayError as error:
            return [f"DEBUG: Failed query exec, expr: {quote(expr)}, err: {error.describe()}"]
        lines = [f"DEBUG: Dump of all data (input_series and rules) at {format_go_duration(until_ms * 1_000_000)}:"]
        assert isinstance(value, Matrix)
        if not len(value):
            lines.append("")
        for labels, points in value.items():
            lines.append(f"{format_pairs(labels)} =>")
            for time_ms, one in points:
                text = format_histogram(one) if isinstance(one, FloatHistogram) else format_number(one)
                lines.append(f"{text} @[{time_ms}]")
        return lines


def _expected(labels: str, value: float, histogram: str) -> ParsedSample:
    metric = parse_metric(labels)
    if not histogram:
        return ParsedSample(metric, value)
    _, values = parse_input("{} " + histogram, 1)
    made = plain_values(values)
    if len(made) != 1:
        raise InvalidArgument(f"expected 1 value, got {len(made)}")
    if not isinstance(made[0], FloatHistogram):
        raise InvalidArgument(
            f"expected histogram, got {made[0]:f}" if made[0] is not None else "expected histogram, got _"
        )
    return ParsedSample(metric, value, histogram_expression(made[0]))


def _parsed(sample: Sample) -> ParsedSample:
    labels = labels_of(sample.labels)
    if isinstance(sample.value, FloatHistogram):
        return ParsedSample(labels, 0.0, histogram_expression(sample.value))
    return ParsedSample(labels, sample.value)


def run_test_group(file: TestFile, group: TestGroup, options: TestOptions) -> tuple[list[str], list[str]]:
    """(errors, dump of all data) of one test group; no errors: it passed."""
    with tempfile.TemporaryDirectory() as folder, closing(RuleTestStorage(Path(folder))) as storage:
        run = GroupRun(file, group, options, storage)
        run.run()
        return run.errors, run.dump()
