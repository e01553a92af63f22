"""When compactors do what, and which of them."""

from __future__ import annotations

from mimir_ray.cluster.ring.model import InstanceId, InstanceState
from mimir_ray.config.units import duration
from mimir_ray.encoding.hashing import fnv1a_32_of
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.compactor.config import CompactorConfig, CompactorRingConfig
from mimir_ray.roles.compactor.ownership import Ownership
from mimir_ray.roles.compactor.schedule import Ended, RingSeen, Schedule, Tick, Work, advance
from mimir_ray.tsdb.compact.plan import Job, SourceBlock
from tests.roles.compactor.world import ring_of

MINUTE = 60_000
TENANT = TenantId("team-a")


def started(config: CompactorConfig | None = None) -> Schedule:
    return advance(Schedule(config or CompactorConfig(), 0), RingSeen(1, True), 0)[0]


def test_nothing_is_begun_before_the_ring_has_the_compactor() -> None:
    state = Schedule(CompactorConfig(), 0)
    assert state.waits == "waits for the ring"
    state, begun = advance(state, Tick(), 10 * MINUTE)
    assert begun == []
    state, _ = advance(state, RingSeen(1, False), 10 * MINUTE)
    assert advance(state, Tick(), 10 * MINUTE)[1] == []


def test_everything_is_begun_at_once_when_the_ring_has_it() -> None:
    state, begun = advance(started(), Tick(), 5)
    assert begun == list(Work) and state.waits == ""
    assert advance(state, Tick(), 6)[1] == []


def test_a_ring_that_changes_is_waited_for_and_not_for_ever() -> None:
    ring = CompactorRingConfig(wait_stability_min_duration=duration("1m"), wait_stability_max_duration=duration("5m"))
    state = started(CompactorConfig(sharding_ring=ring))
    assert state.waits == "waits until the ring is stable"
    assert advance(state, Tick(), MINUTE - 1)[1] == []
    assert advance(state, Tick(), MINUTE)[1] != []
    for minute in range(1, 6):
        state, _ = advance(state, RingSeen(minute + 1, True), minute * MINUTE - 1)
        state, begun = advance(state, Tick(), minute * MINUTE)
        assert bool(begun) == (minute == 5)


def test_works_come_again_after_their_intervals() -> None:
    state, _ = advance(started(), Tick(), 0)
    for work in Work:
        state, _ = advance(state, Ended(work), 1)
    assert advance(state, Tick(), 30_000)[1] == [Work.LOOK_FOR_BLOCKS]
    assert advance(state, Tick(), 15 * MINUTE)[1] == [Work.CLEAN_UP, Work.LOOK_FOR_BLOCKS]
    assert advance(state, Tick(), 60 * MINUTE)[1] == list(Work)


def test_intervals_are_spread() -> None:
    state, _ = advance(started(), Tick(jitter=1.0), 0)
    for work in Work:
        state, _ = advance(state, Ended(work), 1)
    assert Work.COMPACT not in advance(state, Tick(), 63 * MINUTE - 1)[1]
    assert Work.COMPACT in advance(state, Tick(), 63 * MINUTE)[1]


def test_a_work_that_takes_longer_than_its_interval_is_not_begun_twice() -> None:
    state, _ = advance(started(), Tick(), 0)
    state, begun = advance(state, Tick(), 200 * MINUTE)
    assert begun == []
    state, _ = advance(state, Ended(Work.COMPACT), 201 * MINUTE)
    assert advance(state, Tick(), 201 * MINUTE)[1] == [Work.COMPACT]


def job(number: int) -> Job:
    return Job(TENANT, "merge", "", number, number + 1, (SourceBlock("u", number, number + 1),))


def ownerships(*names: str, size: int = 0, unwell: str = "") -> list[Ownership]:
    ring = ring_of(*names)
    if unwell:
        ring = ring_of(*names, state=InstanceState.LEAVING)
    return [Ownership(InstanceId(name), lambda: ring, lambda _: size) for name in names]


def test_every_job_and_tenant_has_one_owner() -> None:
    compactors = ownerships("a", "b", "c")
    owners = [[one.owns(job(number)) for one in compactors] for number in range(60)]
    assert all(sum(row) == 1 for row in owners) and all(any(column) for column in zip(*owners, strict=True))
    for number in range(30):
        assert sum(one.cleans(TenantId(f"t{number}")) for one in compactors) == 1


def test_a_tenants_shard_has_as_many_compactors_as_are_set() -> None:
    compactors = ownerships("a", "b", "c", "d", size=2)
    inside = [one.plans_for(TENANT) for one in compactors]
    assert sum(inside) == 2
    for number in range(40):
        (owner,) = [at for at, one in enumerate(compactors) if one.owns(job(number))]
        assert inside[owner]


def test_jobs_of_a_compactor_that_is_not_well_wait() -> None:
    compactors = ownerships("a", "b", unwell="a")
    assert not any(one.owns(job(number)) for one in compactors for number in range(10))
    assert compactors[0].owner(TENANT, fnv1a_32_of(b"x")) is None


def test_nobody_owns_anything_in_an_empty_ring() -> None:
    (alone,) = ownerships("a")
    empty = Ownership(InstanceId("a"), ring_of, lambda _: 0)
    assert alone.owns(job(1)) and not empty.owns(job(1)) and not empty.plans_for(TENANT)
