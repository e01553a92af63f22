from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.selection import Selection
from mimir_ray.roles.querier.time_rules import TimeRules

NOW = 100_000


def test_ingesters_are_asked_for_what_they_have() -> None:
    rules = TimeRules(NOW, ingesters_within_ms=1000)
    assert rules.of_ingesters(Selection((), 0, NOW - 1001)) is None
    assert rules.of_ingesters(Selection((), 0, NOW - 1000)) == Selection((), NOW - 1000, NOW - 1000)
    recent = Selection((), NOW - 1000, NOW)
    assert rules.of_ingesters(recent) is recent


def test_the_bucket_is_asked_for_what_is_old_enough() -> None:
    rules = TimeRules(NOW, store_after_ms=1000)
    assert rules.of_store(Selection((), NOW - 999, NOW)) is None
    assert rules.of_store(Selection((), NOW - 1000, NOW)) == Selection((), NOW - 1000, NOW - 1000)
    old = Selection((), 0, NOW - 1000)
    assert rules.of_store(old) is old


def test_a_rule_that_is_off_asks_always() -> None:
    everything = Selection((), -NOW, 2 * NOW)
    assert TimeRules(NOW).of_ingesters(everything) is everything
    assert TimeRules(NOW).of_store(everything) is everything


@given(st.integers(0, NOW), st.integers(0, NOW), st.integers(0, 5000), st.integers(0, 5000))
def test_every_time_is_asked_of_somebody_where_the_two_overlap(mint: int, span: int, after: int, more: int) -> None:
    rules = TimeRules(NOW, after + more if after else 0, after)
    selection = Selection((), mint, mint + span)
    parts = [one for one in (rules.of_ingesters(selection), rules.of_store(selection)) if one is not None]
    assert parts
    for time in (mint, mint + span, mint + span // 2, NOW - after, NOW - after - more):
        if mint <= time <= mint + span:
            assert any(one.mint <= time <= one.maxt for one in parts)
