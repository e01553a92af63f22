"""Elections among the replicas of HA pairs: lists of events, restarts, limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from mimir_ray.clock import ManualClock
from mimir_ray.cluster.ring.elections import (
    FORGET_AFTER_MS,
    Elected,
    Elections,
    TooManyHaClusters,
    claim,
    decode,
    encode,
)
from mimir_ray.cluster.ring.ring import MemoryStore
from mimir_ray.errors import Corruption

NOW_MS = 1_700_000_000_000
FAILOVER_MS = 30_000


class Broken(MemoryStore):
    """Cannot be written to, for as long as told."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = True

    def save(self, state: bytes) -> None:
        if self.broken:
            raise OSError("no space left on device")
        super().save(state)


def after(*events: tuple[int, str]) -> Elected | None:
    """The record after samples at these seconds from these replicas."""
    record: Elected | None = None
    for second, replica in events:
        record = claim(record, replica, second * 1000, FAILOVER_MS)
    return record


@pytest.mark.parametrize(
    ("events", "elected"),
    [
        ([(0, "a")], Elected("a", 0, 0)),
        ([(0, "a"), (1, "b")], Elected("a", 0, 0)),
        ([(0, "a"), (15, "a")], Elected("a", 15_000, 0)),
        ([(0, "a"), (29, "b")], Elected("a", 0, 0)),
        ([(0, "a"), (30, "b")], Elected("b", 30_000, 30_000, 1)),
        ([(0, "a"), (15, "a"), (44, "b")], Elected("a", 15_000, 0)),
        ([(0, "a"), (15, "a"), (45, "b"), (46, "a")], Elected("b", 45_000, 45_000, 1)),
        ([(0, "a"), (300, "a")], Elected("a", 300_000, 0)),
        ([(20, "a"), (10, "a")], Elected("a", 20_000, 20_000)),
    ],
)
def test_the_first_is_elected_and_stays_until_it_was_silent_for_the_failover_timeout(
    events: list[tuple[int, str]], elected: Elected
) -> None:
    assert after(*events) == elected


@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abc")), min_size=1, max_size=40))
def test_nobody_is_elected_while_another_one_was_heard_within_the_timeout(steps: list[tuple[int, str]]) -> None:
    second, record = 0, None
    for pause, replica in steps:
        second += pause
        before, record = record, claim(record, replica, second * 1000, FAILOVER_MS)
        if before is not None and before.replica != record.replica:
            assert second * 1000 - before.received_ms >= FAILOVER_MS
            assert (record.replica, record.changes) == (replica, before.changes + 1)


def test_what_was_elected_outlives_a_restart_and_has_a_whole_timeout_to_speak_up() -> None:
    clock, store = ManualClock(NOW_MS), MemoryStore()
    Elections(clock, store).claim("t", "c", "a", FAILOVER_MS, 0)
    clock.advance_ms(60_000)
    again = Elections(clock, store)
    assert again.claim("t", "c", "b", FAILOVER_MS, 0) == Elected("a", NOW_MS + 60_000, NOW_MS)
    clock.advance_ms(FAILOVER_MS)
    assert again.claim("t", "c", "b", FAILOVER_MS, 0).replica == "b"
    assert Elections(clock, store).records()["t"]["c"].replica == "b"


def test_refreshes_are_saved_by_the_sweep_and_elections_at_once() -> None:
    clock, store = ManualClock(NOW_MS), MemoryStore()
    one = Elections(clock, store)
    one.claim("t", "c", "a", FAILOVER_MS, 0)
    saved = store.load()
    assert saved is not None and decode(saved, 0)["t"]["c"].replica == "a"
    clock.advance_ms(15_000)
    one.claim("t", "c", "a", FAILOVER_MS, 0)
    assert store.load() == saved
    one.sweep()
    assert store.load() != saved


def test_a_store_that_fails_is_tried_again() -> None:
    clock, store, registry = ManualClock(NOW_MS), Broken(), CollectorRegistry()
    one = Elections(clock, store, registry)
    assert one.claim("t", "c", "a", FAILOVER_MS, 0).replica == "a"
    assert registry.get_sample_value("cortex_ha_tracker_store_failures_total") == 1
    store.broken = False
    one.sweep()
    assert Elections(clock, store).records()["t"]["c"].replica == "a"


def test_a_tenant_has_so_many_pairs_and_no_more() -> None:
    one = Elections(ManualClock(NOW_MS))
    one.claim("t", "first", "a", FAILOVER_MS, 1)
    with pytest.raises(TooManyHaClusters) as refused:
        one.claim("t", "second", "a", FAILOVER_MS, 1)
    assert str(refused.value) == (
        "the write request has been rejected because the maximum number of high-availability (HA) clusters has been "
        "reached for this tenant (limit: 1) (err-mimir-tenant-too-many-ha-clusters). To adjust the related per-tenant "
        "limit, configure -distributor.ha-tracker.max-clusters, or contact your service administrator."
    )
    assert one.claim("t", "first", "a", FAILOVER_MS, 1).replica == "a"
    assert one.claim("other", "second", "a", FAILOVER_MS, 1).replica == "a"
    assert one.claim("t", "second", "a", FAILOVER_MS, 0).replica == "a"


def test_pairs_that_went_silent_are_forgotten() -> None:
    clock, registry = ManualClock(NOW_MS), CollectorRegistry()
    one = Elections(clock, None, registry)
    one.claim("t", "c", "a", FAILOVER_MS, 0)
    clock.advance_ms(FORGET_AFTER_MS)
    one.sweep()
    assert "t" in one.records()
    clock.advance_ms(1)
    one.sweep()
    assert one.records() == {}
    assert registry.get_sample_value("cortex_ha_tracker_replicas_cleanup_deleted_total") == 1


def test_what_cannot_be_read_is_said_to_be_corrupt() -> None:
    whole = encode({"t": {"c": Elected("a", 1, 2, 3)}})
    assert decode(whole, 7) == {"t": {"c": Elected("a", 7, 2, 3)}}
    for broken in (b"", b"[]", b'{"format": 2}', whole.replace(b"elected_ms", b"x"), whole[:-1]):
        with pytest.raises(Corruption):
            decode(broken, 0)
