"""Groups over a function that answers from a table and one that collects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mimir_ray.errors import ClientError
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.rules import Rule, RuleGroup
from mimir_ray.model.series import STALE_NAN_BITS
from mimir_ray.promql.limits import EvaluationError
from mimir_ray.roles.ruler.evaluation import GroupContext, Notification, RuleState, evaluate_group
from mimir_ray.roles.ruler.sample import Sample

MINUTE = 60_000


class Refused(ClientError):
    """The storage does not take it."""


class World:
    """`answers`: by expression, (labels, value) pairs; an error is raised. `written`: in order."""

    def __init__(self, **answers: object) -> None:
        self.answers: dict[str, object] = dict(answers)
        self.asked: list[tuple[str, int]] = []
        self.written: list[Sample] = []
        self.refuse = ""

    def query(self, expr: str, time_ms: int) -> list[Sample]:
        self.asked.append((expr, time_ms))
        answer = self.answers.get(expr, [])
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, list)
        return [Sample(labels_of(labels), time_ms, value) for labels, value in answer]

    def write(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            if self.refuse and dict(sample.labels).get("__name__") == self.refuse:
                raise Refused("duplicate sample for timestamp")
        self.written += samples


class Run:
    def __init__(self, world: World, group: RuleGroup, context: GroupContext | None = None) -> None:
        self.world, self.group, self.context = world, group, context or GroupContext()
        self.states = [RuleState() for _ in group.rules]
        self.sent: list[Notification] = []

    def at(self, now_ms: int) -> dict[Labels, float]:
        """What was written: stale markers as "stale" are NaN."""
        self.world.written = []
        self.states, self.sent = evaluate_group(
            self.group, self.states, self.context, now_ms, self.world.query, self.world.write
        )
        return {sample.labels: sample.value for sample in self.world.written}  # type: ignore[misc]


def is_stale(value: float) -> bool:
    return int(np.float64(value).view(np.uint64)) == STALE_NAN_BITS


def test_a_recording_rule_renames_adds_labels_and_removes_those_set_to_nothing() -> None:
    world = World(e=[({"__name__": "up", "a": "1", "b": "2"}, 3.0)])
    rule = Rule(record="r", expr="e", labels={"b": "", "c": "own"})
    found = Run(world, RuleGroup("g", (rule,), labels={"c": "group", "d": "4"})).at(0)
    assert found == {labels_of({"__name__": "r", "a": "1", "c": "own", "d": "4"}): 3.0}


def test_series_that_vanish_are_marked_stale_once() -> None:
    world = World(e=[({"a": "1"}, 1.0), ({"a": "2"}, 2.0)])
    run = Run(world, RuleGroup("g", (Rule(record="r", expr="e"),)))
    run.at(0)
    world.answers["e"] = [({"a": "2"}, 2.0)]
    gone = labels_of({"__name__": "r", "a": "1"})
    assert is_stale(run.at(MINUTE)[gone])
    assert gone not in run.at(2 * MINUTE)


def test_rules_are_evaluated_at_the_offset_in_their_order_and_write_there() -> None:
    world = World(a=[({}, 1.0)], b=[({}, 2.0)])
    group = RuleGroup("g", (Rule(record="y", expr="b"), Rule(record="x", expr="a")), query_offset_ms=5_000)
    Run(world, group, GroupContext(query_offset_ms=1)).at(MINUTE)
    assert world.asked == [("b", 55_000), ("a", 55_000)]
    assert [sample.time_ms for sample in world.written] == [55_000, 55_000]


def test_a_rule_that_fails_says_so_and_keeps_what_it_knew_while_the_rest_goes_on() -> None:
    world = World(a=[({"x": "1"}, 1.0)], b=[({}, 2.0)])
    group = RuleGroup("g", (Rule(alert="A", expr="a"), Rule(record="r", expr="b")))
    run = Run(world, group)
    run.at(0)
    world.answers["a"] = EvaluationError("boom")
    found = run.at(MINUTE)
    assert run.states[0].error == "boom" and len(run.states[0].active) == 1
    assert list(found) == [labels_of({"__name__": "r"})]
    world.answers["a"] = [({"x": "1"}, 1.0)]
    run.at(2 * MINUTE)
    assert run.states[0].error == ""


def test_results_that_cannot_be_told_apart_are_errors() -> None:
    world = World(e=[({"a": "1"}, 1.0), ({"a": "2"}, 2.0)])
    rules = Rule(record="r", expr="e", labels={"a": "x"}), Rule(alert="A", expr="e", labels={"a": ""})
    run = Run(world, RuleGroup("g", rules))
    run.at(0)
    assert [state.error for state in run.states] == [
        f"vector contains metrics with the same labelset after applying {kind} labels" for kind in ("rule", "alert")
    ]


def test_the_limit_of_a_group_holds_for_each_rule_and_forgets_its_alerts() -> None:
    world = World(e=[({"a": "1"}, 1.0)])
    run = Run(world, RuleGroup("g", (Rule(record="r", expr="e"), Rule(alert="A", expr="e")), limit=1))
    assert len(run.at(0)) == 3
    world.answers["e"] = [({"a": "1"}, 1.0), ({"a": "2"}, 2.0)]
    run.at(MINUTE)
    assert [state.error for state in run.states] == [
        "exceeded limit of 1 with 2 series",
        "exceeded limit of 1 with 2 alerts",
    ]
    assert run.states[1].active == {}


def test_an_alert_writes_its_state_and_since_when_it_is_active() -> None:
    world = World(e=[({"__name__": "up", "a": "1"}, 5.0)])
    rule = Rule(alert="A", expr="e", for_ms=MINUTE, labels={"s": "{{ $value }}"}, annotations={"t": "{{ .Labels.a }}"})
    run = Run(world, RuleGroup("g", (rule,)))
    own = {"alertname": "A", "a": "1", "s": "5"}
    since = labels_of({**own, "__name__": "ALERTS_FOR_STATE"})
    pending = labels_of({**own, "__name__": "ALERTS", "alertstate": "pending"})
    firing = labels_of({**own, "__name__": "ALERTS", "alertstate": "firing"})
    assert run.at(2 * MINUTE) == {pending: 1.0, since: 120.0}
    found = run.at(3 * MINUTE)
    assert found[firing] == 1.0 and found[since] == 120.0 and is_stale(found[pending])
    (alert,) = run.states[0].active.values()
    assert alert.annotations == (("t", "1"),)
    assert [alert.labels for alert in run.sent[0].alerts] == [labels_of(own)]


def test_alerts_write_nothing_before_their_states_are_restored() -> None:
    run = Run(World(e=[({}, 1.0)]), RuleGroup("g", (Rule(alert="A", expr="e"),)))
    run.states = [replace(run.states[0], restored=False)]
    assert run.at(0) == {}
    assert len(run.states[0].active) == 1


def test_a_write_that_is_refused_is_the_rules_error() -> None:
    world = World(e=[({}, 1.0)])
    world.refuse = "r"
    run = Run(world, RuleGroup("g", (Rule(record="r", expr="e"), Rule(record="q", expr="e"))))
    assert run.at(0) == {labels_of({"__name__": "q"}): 1.0}
    assert [state.error for state in run.states] == ["duplicate sample for timestamp", ""]


def test_the_order_of_answers_does_not_matter() -> None:
    series = [({"a": str(number)}, float(number)) for number in range(5)]
    rules = Rule(record="r", expr="e"), Rule(alert="A", expr="e")
    written = []
    for answer in (series, series[::-1]):
        run = Run(World(e=list(answer)), RuleGroup("g", rules))
        run.at(0)
        written.append(run.world.written)
    assert written[0] == written[1]
    assert not any(math.isnan(sample.value) for sample in written[0])  # type: ignore[arg-type]
