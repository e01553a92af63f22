"""Growing, shrinking and rolling a deployment, with processes that only exist in the ring."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mimir_ray.bucket.bucket_index import BucketIndex, write_bucket_index
from mimir_ray.bucket.filesystem import FilesystemBucket
from mimir_ray.clock import ManualClock
from mimir_ray.cluster.ring.actor import RingActor
from mimir_ray.cluster.ring.factor import AutomaticFactor
from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceId, InstanceState
from mimir_ray.cluster.ring.ring import RingPolicy
from mimir_ray.cluster.transport.base import RING, Address
from mimir_ray.cluster.transport.in_process import InProcessTransport
from mimir_ray.config.units import duration
from mimir_ray.deploy.scale import BucketDelay, Scaling, TooSlow
from mimir_ray.model.tenant import TenantId

TENANT = TenantId("team-a")


class Clock(ManualClock):
    """Time passes when somebody waits; things happen meanwhile."""

    def __init__(self) -> None:
        super().__init__(1_700_000_000_000)
        self.due: list[tuple[int, Any]] = []

    def sleep(self, seconds: float) -> None:
        self.advance_ms(max(1, int(seconds * 1000)))
        for at, what in list(self.due):
            if at <= self.now_ms():
                self.due.remove((at, what))
                what()


@dataclass
class Fake:
    """Actors, gateways and ingesters in one: keeps a diary."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    diary: list[str] = field(default_factory=list)
    starts_s: float = 5.0
    indexes: bool = True
    automatic: bool = False

    def __post_init__(self) -> None:
        self.transport = InProcessTransport(self.clock)
        policy = RingPolicy(automatic={INGESTER: AutomaticFactor(2)} if self.automatic else {})
        self.ring = RingActor(policy=policy, clock=self.clock, sweep_period_s=0)
        self.transport.serve(RING, lambda: self.ring)
        self.transport.serve(Address("gateway", "0"), lambda: self)
        self.bucket = FilesystemBucket(self.folder)
        self.index()
        delay = BucketDelay(self.bucket, lambda: [TENANT], duration("0s"), duration("1m"))
        self.scaling = Scaling(self.transport, self, delay, self.clock, self.diary.append, min_ready_s=7.0)

    def index(self) -> None:
        write_bucket_index(self.bucket, TENANT, BucketIndex(updated_at=self.clock.now_ms() // 1000))

    def ring_versions(self) -> dict[str, int]:
        self.ring.sweep()
        return {INGESTER: self.ring.snapshot(INGESTER).version}

    def states(self) -> dict[str, str]:
        instances = self.ring.snapshot(INGESTER).instances.values()
        return {one.id: f"{one.state.value}{' read-only' if one.read_only else ''}" for one in instances}

    def register(self, index: int, state: InstanceState) -> None:
        name = InstanceId(f"ingester-{index}")
        address = Address("ingester", str(index))
        self.ring.register(
            INGESTER,
            InstanceDesc(
                name,
                address.actor_name,
                state=state,
                incarnation=self.clock.now_ms(),
                machine=f"machine-{index}",
                empty=True,
            ),
        )
        self.transport.serve(address, lambda: self)

    def create(self, index: int) -> None:
        assert set(self.states().values()) <= {"ACTIVE"}, "one at a time"
        self.register(index, InstanceState.JOINING)
        ready = self.clock.now_ms() + int(self.starts_s * 1000)
        self.clock.due.append((ready, lambda: self.register(index, InstanceState.ACTIVE)))

    def flush(self, tenants: tuple[TenantId, ...], wait: bool) -> None:
        assert wait
        assert "ACTIVE read-only" in self.states().values(), "nothing comes in after the flush"
        self.diary.append("flushed")
        if self.indexes:
            self.clock.due.append((self.clock.now_ms() + 20_000, self.index))

    def end(self, address: Address) -> None:
        index = self.bucket.get(f"{TENANT}/bucket-index.json.gz")
        assert index
        self.diary.append(f"ended at {self.clock.now_ms() - 1_700_000_000_000} ms")

    def restart(self, address: Address) -> None:
        assert set(self.states().values()) == {"ACTIVE"}, "the one before is back"
        self.diary.append(f"stopped {address.actor_name}")
        self.create(int(address.instance))

    def gateways(self) -> list[Address]:
        return [Address("gateway", "0")]


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def test_new_ones_join_one_after_the_other(fake: Fake) -> None:
    fake.scaling.to(3)
    assert fake.states() == {f"ingester-{at}": "ACTIVE" for at in range(3)}


def test_nothing_changes_where_all_are_there(fake: Fake) -> None:
    fake.scaling.to(2)
    fake.diary.clear()
    fake.scaling.to(2)
    assert fake.diary == []


def test_one_leaves_only_when_the_bucket_is_read_for_what_it_had(fake: Fake) -> None:
    fake.scaling.to(2)
    began = fake.clock.now_ms() - 1_700_000_000_000
    fake.scaling.to(1)
    assert fake.states() == {"ingester-0": "ACTIVE"}
    (ended,) = [line for line in fake.diary if line.startswith("ended")]
    assert fake.diary.index("flushed") < fake.diary.index(ended)
    waited_ms = int(ended.split()[2]) - began
    assert waited_ms >= 20_000 + 2 * 60_000, "the index was written, and read by everybody"


def test_an_interrupted_removal_goes_on_where_it_was(fake: Fake) -> None:
    fake.scaling.to(2)
    fake.indexes = False
    with pytest.raises(TooSlow, match="the bucket index is written"):
        fake.scaling.to(1)
    assert fake.states()["ingester-1"] == "ACTIVE read-only"
    fake.indexes = True
    fake.scaling.to(1)
    assert fake.states() == {"ingester-0": "ACTIVE"}


def test_a_roll_waits_for_each_and_a_while_longer(fake: Fake) -> None:
    fake.scaling.to(3)
    began = fake.clock.now_ms()
    fake.diary.clear()
    fake.scaling.roll()
    stopped = [line for line in fake.diary if line.startswith("stopped")]
    assert stopped == [f"stopped ingester/{at}" for at in range(3)]
    assert fake.clock.now_ms() - began >= 3 * (5_000 + 7_000)


def test_one_that_does_not_come_up_ends_the_roll(fake: Fake) -> None:
    fake.scaling.to(2)
    fake.starts_s = 1e6
    with pytest.raises(TooSlow, match="ingester-0 takes writes"):
        fake.scaling.roll()
    assert fake.states() == {"ingester-0": "JOINING", "ingester-1": "ACTIVE"}


def test_the_last_but_one_leaves_when_every_reader_has_heard_that_there_will_be_one_copy(tmp_path: Path) -> None:
    fake = Fake(tmp_path, automatic=True)
    fake.scaling.to(2)
    began = fake.clock.now_ms()
    factors: list[int] = []

    def say(sentence: str) -> None:
        known = fake.ring.snapshot(INGESTER).replication
        assert known is not None
        factors.append(known.factor)

    fake.scaling._say = say
    fake.clock.due.append((began + 76_000, fake.ring.sweep))
    fake.scaling.to(1)
    assert set(factors) == {1}, "writes need one ingester only, before the other takes no more"
    known = fake.ring.snapshot(INGESTER).replication
    assert known is not None
    assert not known.lost
    assert not known.leaving


def test_one_that_was_to_leave_and_stays_takes_writes_again(fake: Fake) -> None:
    fake.scaling.to(2)
    fake.indexes = False
    with pytest.raises(TooSlow):
        fake.scaling.to(1)
    fake.scaling.to(2)
    assert fake.states() == {"ingester-0": "ACTIVE", "ingester-1": "ACTIVE"}


def test_a_removal_that_was_only_planned_is_taken_back(tmp_path: Path) -> None:
    fake = Fake(tmp_path, automatic=True)
    fake.scaling.to(2)
    fake.ring.plan_removal(INGESTER, InstanceId("ingester-1"))
    fake.scaling.to(2)
    known = fake.ring.snapshot(INGESTER).replication
    assert known is not None
    assert (known.factor, known.announced, known.leaving) == (2, 0, frozenset())
