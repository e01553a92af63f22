"""What is wrong with rule groups, in Prometheus' words. Pure.

Upstream: model/rulefmt/rulefmt.go Validate; cmd/promtool/main.go checkDuplicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.labels import METRIC_NAME, Labels, is_utf8, labels_of
from mimir_ray.model.matchers import quote
from mimir_ray.model.rules import Rule, RuleGroup
from mimir_ray.promql.syntax.ast import Node

from .templates import check_template

Parse = Callable[[str], Node]
"""The PromQL parser; raises `InvalidArgument`."""


def check_groups(groups: Sequence[RuleGroup], parse: Parse) -> list[str]:
    """Every problem, with its place in the file where Prometheus says it (of groups it knows none)."""
    problems: list[str] = []
    seen: set[str] = set()
    for group in groups:
        if not group.name:
            problems.append("0:0: Groupname must not be empty")
        if group.name in seen:
            problems.append(f'0:0: groupname: "{group.name}" is repeated in the same file')
        seen.add(group.name)
        problems += _check_labels(group.labels.items())
        for number, rule in enumerate(group.rules, 1):
            for places, reason in check_rule(rule, parse):
                where = "".join("{}:{}: ".format(*rule.position(place)) for place in places)
                problems.append(f"{where}group {quote(group.name)}, rule {number}, {quote(rule.name)}: {reason}")
    return problems


Problem = tuple[tuple[str, ...], str]
"""(keys of the rule that it is about, what is wrong)."""


def check_rule(rule: Rule, parse: Parse) -> Iterator[Problem]:
    """Problems of one rule."""
    if rule.record and rule.alert:
        yield ("record", "alert"), "only one of 'record' and 'alert' must be set"
    if not rule.record and not rule.alert:
        yield ("record", "alert"), "one of 'record' or 'alert' must be set"
    if not rule.expr:
        yield ("expr",), "field 'expr' must be set in rule"
    else:
        try:
            parse(rule.expr)
        except InvalidArgument as error:
            yield ("expr",), f"could not parse expression: {error.describe()}"
    if rule.record:
        yield from _check_recording(rule)
    for reason in _check_labels(rule.labels.items()):
        yield (), reason
    for name in sorted(rule.annotations):
        if not name or not is_utf8(name):
            yield (), f"invalid annotation name: {name}"
    if rule.alert:
        for kind, texts in (("label", rule.labels), ("annotation", rule.annotations)):
            for name, text in sorted(texts.items()):
                try:
                    check_template(rule.alert, text)
                except InvalidArgument as error:
                    yield (), f"{kind} {quote(name)}: {error.describe()}"


def _check_recording(rule: Rule) -> Iterator[Problem]:
    at = ("record",)
    if rule.annotations:
        yield at, "invalid field 'annotations' in recording rule"
    if rule.for_ms:
        yield at, "invalid field 'for' in recording rule"
    if rule.keep_firing_for_ms:
        yield at, "invalid field 'keep_firing_for' in recording rule"
    if not is_utf8(rule.record):
        yield at, f"invalid recording rule name: {rule.record}"
    if "{" in rule.record or "}" in rule.record:
        yield at, f"braces present in the recording rule name; should it be in expr?: {rule.record}"


def _check_labels(labels: Iterable[tuple[str, str]]) -> list[str]:
    problems = []
    for name, value in sorted(labels):
        if not name or not is_utf8(name) or name == METRIC_NAME:
            problems.append(f"invalid label name: {name}")
        if not is_utf8(value):
            problems.append(f"invalid label value: {value}")
    return problems


def duplicates(groups: Sequence[RuleGroup]) -> list[tuple[str, Labels]]:
    """(name, labels) that several rules share, each once, in order."""
    rules = sorted((rule.name, labels_of(group.labels_of(rule))) for group in groups for rule in group.rules)
    found: list[tuple[str, Labels]] = []
    for before, rule in pairwise(rules):
        if before == rule and (not found or found[-1] != rule):
            found.append(rule)
    return found
