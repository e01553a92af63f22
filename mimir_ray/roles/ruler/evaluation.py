"""Evaluates rules and groups over a function that queries and one that writes. Pure but for these two.

Everything is in one order, whatever order the answers have: rules as written, series by their labels.
Upstream: rules/group.go Eval, alerting.go Eval, recording.go Eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from mimir_ray.errors import ClientError, MimirRayError
from mimir_ray.model.labels import METRIC_NAME, Labels, labels_of
from mimir_ray.model.rules import Rule, RuleGroup
from mimir_ray.model.series import STALE_NAN

from .alerts import Alert, AlertState, Holding, advance, alert_value, notify
from .sample import Query, Sample, Write
from .templates import AlertData, TemplateContext, alert_functions, expand

ALERT_NAME = "alertname"
ALERT_STATE = "alertstate"
ALERTS, ALERTS_FOR_STATE = "ALERTS", "ALERTS_FOR_STATE"


class RuleFailed(ClientError):
    """An evaluation whose result cannot be used."""


@dataclass(frozen=True, slots=True)
class RuleState:
    """Of one rule between evaluations. `series`: what it wrote last; `error`: of its last evaluation, "" if none.

    `restored`: whether the alerts' states are known from before a restart; samples of alerts are written from then on.
    """

    active: Mapping[Labels, Alert] = field(default_factory=dict)
    series: frozenset[Labels] = frozenset()
    error: str = ""
    restored: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one evaluation of a rule: what to write, and its alerts (of a recording rule: none)."""

    samples: tuple[Sample, ...] = ()
    active: Mapping[Labels, Alert] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notification:
    """Alerts of one rule that are to be sent to Alertmanagers."""

    expr: str
    alerts: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class GroupContext:
    """What holds for all rules of a group. Times in ms."""

    templates: TemplateContext = field(default_factory=TemplateContext)
    interval_ms: int = 60_000
    query_offset_ms: int = 0
    resend_delay_ms: int = 60_000


def evaluate_group(
    group: RuleGroup,
    states: Sequence[RuleState],
    context: GroupContext,
    now_ms: int,
    query: Query,
    write: Write,
) -> tuple[list[RuleState], list[Notification]]:
    """One evaluation of all rules, one after the other, each seeing what those before it wrote.

    A rule that fails keeps its alerts and series, and says so in its state; the rest goes on. `group.query_offset_ms`
    wins over the context's.
    """
    if group.query_offset_ms is not None:
        context = replace(context, query_offset_ms=group.query_offset_ms)
    out: list[RuleState] = []
    notifications: list[Notification] = []
    for rule, state in zip(group.rules, states, strict=True):
        try:
            outcome = evaluate_rule(group, rule, state, context, now_ms, query)
        except MimirRayError as error:
            active = {} if isinstance(error, TooManyAlerts) else state.active
            out.append(replace(state, active=active, error=error.describe()))
            continue
        if rule.alert:
            outcome, notification = _notifications(rule, outcome, context, now_ms)
            notifications += notification
        out.append(_written(state, outcome, now_ms - context.query_offset_ms, write))
    return out, notifications


def _notifications(
    rule: Rule, outcome: Outcome, context: GroupContext, now_ms: int
) -> tuple[Outcome, list[Notification]]:
    due = {}
    for labels, alert in outcome.active.items():
        sent = notify(alert, now_ms, context.resend_delay_ms, context.interval_ms)
        if sent is not None:
            due[labels] = sent
    if not due:
        return outcome, []
    return replace(outcome, active={**outcome.active, **due}), [Notification(rule.expr, tuple(due.values()))]


def _written(state: RuleState, outcome: Outcome, time_ms: int, write: Write) -> RuleState:
    """The state after the samples were stored, and those series marked stale that are there no more."""
    try:
        write(outcome.samples)
    except MimirRayError as error:
        return replace(state, active=outcome.active, error=error.describe())
    series = frozenset(sample.labels for sample in outcome.samples)
    gone = sorted(state.series - series)
    if gone:
        # A refusal is none: then another rule writes that series at this very time. Upstream ignores it too.
        with suppress(ClientError):
            write([Sample(labels, time_ms, STALE_NAN) for labels in gone])
    return replace(state, active=outcome.active, series=series, error="")


def evaluate_rule(
    group: RuleGroup, rule: Rule, state: RuleState, context: GroupContext, now_ms: int, query: Query
) -> Outcome:
    """What a rule comes to now. Raises what the query raises, and `RuleFailed`."""
    found = query(rule.expr, now_ms - context.query_offset_ms)
    labels = group.labels_of(rule)
    if rule.alert:
        return _alerting(rule, labels, state, context, now_ms, query, found, group.limit)
    return _recording(rule, labels, found, group.limit)


def _recording(rule: Rule, labels: Mapping[str, str], found: Sequence[Sample], limit: int) -> Outcome:
    samples = [
        Sample(labels_of({**dict(one.labels), METRIC_NAME: rule.record, **labels}), one.time_ms, one.value)
        for one in found
    ]
    if len({sample.labels for sample in samples}) < len(samples):
        raise RuleFailed("vector contains metrics with the same labelset after applying rule labels")
    if 0 < limit < len(samples):
        raise RuleFailed(f"exceeded limit of {limit} with {len(samples)} series")
    return Outcome(tuple(sorted(samples, key=lambda sample: sample.labels)))


class TooManyAlerts(RuleFailed):
    """More alerts than the group's limit: all of the rule's are forgotten."""


def _alerting(
    rule: Rule,
    labels: Mapping[str, str],
    state: RuleState,
    context: GroupContext,
    now_ms: int,
    query: Query,
    found: Sequence[Sample],
    limit: int,
) -> Outcome:
    seen = _instances(rule, labels, context.templates, now_ms, query, found)
    holding = Holding(rule.for_ms, rule.keep_firing_for_ms)
    active: dict[Labels, Alert] = {}
    for key in sorted({*state.active, *seen}):
        alert = advance(state.active.get(key), seen.get(key), holding, now_ms)
        if alert is not None:
            active[key] = alert
    holds = [alert for alert in active.values() if alert.state is not AlertState.INACTIVE]
    if 0 < limit < len(holds):
        raise TooManyAlerts(f"exceeded limit of {limit} with {len(holds)} alerts")
    samples: list[Sample] = []
    if state.restored:
        at = now_ms - context.query_offset_ms
        for alert in holds:
            samples += alert_samples(rule.alert, labels, alert, at)
    return Outcome(tuple(samples), active)


def _instances(
    rule: Rule,
    labels: Mapping[str, str],
    context: TemplateContext,
    now_ms: int,
    query: Query,
    found: Sequence[Sample],
) -> dict[Labels, Alert]:
    """An alert for each sample, pending since now, its labels and annotations filled in."""
    functions = alert_functions(query, now_ms, context.server_url)
    out: dict[Labels, Alert] = {}
    for sample in found:
        data = AlertData(sample.labels, context.external_labels, context.external_url, sample.value)
        mine = {name: value for name, value in sample.labels if name != METRIC_NAME}
        for name, text in sorted(labels.items()):
            mine[name] = expand(rule.alert, text, data, functions)
        mine[ALERT_NAME] = rule.alert
        annotations = tuple(
            (name, expand(rule.alert, text, data, functions)) for name, text in sorted(rule.annotations.items())
        )
        key = labels_of(mine)
        if key in out:
            raise RuleFailed("vector contains metrics with the same labelset after applying alert labels")
        out[key] = Alert(key, annotations, alert_value(sample.value), now_ms)
    return out


def alert_samples(name: str, labels: Mapping[str, str], alert: Alert, time_ms: int) -> list[Sample]:
    """ALERTS and ALERTS_FOR_STATE of an alert; the latter says since when it is active, in seconds."""
    shared = {**labels, **dict(alert.labels), ALERT_NAME: name}
    state = labels_of({**shared, METRIC_NAME: ALERTS, ALERT_STATE: alert.state.value})
    since = labels_of({**shared, METRIC_NAME: ALERTS_FOR_STATE})
    return [Sample(state, time_ms, 1.0), Sample(since, time_ms, float(alert.active_at_ms // 1000))]
