"""Changes a running deployment: more or fewer ingesters, or all of them started again, without a gap for anybody.

One instance at a time, and the next only when the last change has arrived everywhere, so that with a replication
factor above one a quorum is there throughout. An ingester leaves in steps that can be interrupted and repeated:
read-only (no writes, still read) → its samples are cut into blocks and uploaded → those are read from the bucket by
every query → out of the ring. Upstream: Mimir's "Scaling down ingesters", by its prepare-… endpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mimir_ray.bucket.bucket_index import read_bucket_index
from mimir_ray.bucket.store import Bucket
from mimir_ray.clock import Clock
from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceId, InstanceState, RingDesc, RingName
from mimir_ray.cluster.transport.base import RING, Address, Transport
from mimir_ray.config.units import Duration
from mimir_ray.errors import Unavailable
from mimir_ray.model.tenant import TenantId

CALL_TIMEOUT_S = 10.0
FLUSH_TIMEOUT_S = 3600.0
STATE_TIMEOUT_S = 900.0
POLL_S = 0.2


class Actors(Protocol):
    """Who makes and ends processes: deploy/ray_actors.py."""

    def create(self, index: int) -> None:
        """An ingester; nothing where there is one of this index."""

    def end(self, address: Address) -> None:
        """Stops an ingester in an orderly way, for good."""

    def restart(self, address: Address) -> None:
        """Stops it in an orderly way and has it started again, with what is on its disk."""

    def gateways(self) -> list[Address]: ...


@dataclass(eq=False)
class TooSlow(Unavailable):
    """A step did not come to its end; the same command goes on from there."""

    what: str
    waited_s: float

    def describe(self) -> str:
        return f"{self.what}: not within {self.waited_s:g} s; the same command again goes on from here"


@dataclass(frozen=True, slots=True)
class BucketDelay:
    """When samples that were uploaded are read from the bucket by every query.

    `store_after`: `querier.query_store_after`; `sync`: how old an index in memory may get; `tenants`: lists them.
    """

    bucket: Bucket
    tenants: Callable[[], list[TenantId]]
    store_after: Duration
    sync: Duration


class Scaling:
    """`say`: told of every step in a sentence."""

    def __init__(
        self,
        transport: Transport,
        actors: Actors,
        delay: BucketDelay,
        clock: Clock,
        say: Callable[[str], None],
        write_timeout_s: float = 2.0,
        min_ready_s: float = 0.0,
    ) -> None:
        """`write_timeout_s`: how long a write that is under way may take: `distributor.remote_timeout`.

        `min_ready_s`: how long an ingester must have been back before the next one is started again.
        """
        self._transport = transport
        self._ring = transport.client(RING)
        self._actors = actors
        self._delay = delay
        self._clock = clock
        self._say = say
        self._write_timeout_s = write_timeout_s
        self._min_ready_s = min_ready_s

    def to(self, count: int) -> None:
        """Ingesters 0 to `count` - 1, and no others. Raises `TooSlow`, and what calls raise."""
        ring = self._ingesters()
        there = {_index(one.id) for one in ring.instances.values()}
        leaving = ring.replication.leaving if ring.replication is not None else frozenset()
        for one in ring.instances.values():
            if _index(one.id) < count and (one.read_only or one.id in leaving):
                self._say(f"{one.address} takes writes again")  # a removal was begun and given up
                self._ring.call("set_read_only", INGESTER, one.id, False, timeout_s=CALL_TIMEOUT_S)
        for index in sorted(set(range(count)) - there):
            self.add(index)
        for index in sorted((index for index in there if index >= count), reverse=True):
            self.remove(index)

    def add(self, index: int) -> None:
        self._say(f"starting ingester/{index}")
        self._actors.create(index)
        self._wait_active(_id(index))
        self._wait_seen()

    def remove(self, index: int) -> None:
        """What it has is in the bucket, and read from there, before it leaves."""
        name = _id(index)
        address = Address("ingester", str(index))
        # With fewer machines there may be fewer copies of a sample: readers hear of that first, then writers.
        self._ring.call("plan_removal", INGESTER, name, timeout_s=CALL_TIMEOUT_S)
        self._wait("writes need one ingester less", self._settled, STATE_TIMEOUT_S)
        self._wait_seen()
        self._say(f"{address.actor_name} takes no more writes")
        self._ring.call("set_read_only", INGESTER, name, True, timeout_s=CALL_TIMEOUT_S)
        self._wait_seen()
        self._clock.sleep(self._write_timeout_s)  # what was under way has arrived, or failed
        self._say(f"{address.actor_name} uploads its samples")
        self._transport.client(address).call("flush", (), True, timeout_s=FLUSH_TIMEOUT_S)
        self._wait_read_from_bucket(self._clock.now_ms())
        self._ring.call("set_drained", INGESTER, name, timeout_s=CALL_TIMEOUT_S)
        self._say(f"{address.actor_name} leaves")
        self._actors.end(address)
        desc = self._ingesters().instances.get(name)
        if desc is not None:
            self._ring.call("unregister", INGESTER, name, desc.incarnation, timeout_s=CALL_TIMEOUT_S)
        self._wait_seen()

    def roll(self) -> None:
        """Starts all ingesters again, one after the other."""
        for one in sorted(self._ingesters().instances.values(), key=lambda one: _index(one.id)):
            self._say(f"starting {one.address} again")
            self._actors.restart(Address.parse(one.address))
            self._wait_active(one.id, one.incarnation)
            self._wait_seen()
            self._clock.sleep(self._min_ready_s)

    def _ingesters(self) -> RingDesc:
        answer: RingDesc = self._ring.call("snapshot", INGESTER, timeout_s=CALL_TIMEOUT_S)
        return answer

    def _settled(self) -> bool:
        """Whether the replication factor is what the ingesters that stay allow."""
        known = self._ingesters().replication
        return known is None or (not known.announced and known.settled_ms <= self._clock.now_ms())

    def _wait_active(self, instance: InstanceId, after_incarnation: int = -1) -> None:
        def active() -> bool:
            one: InstanceDesc | None = self._ingesters().instances.get(instance)
            return one is not None and one.state is InstanceState.ACTIVE and one.incarnation > after_incarnation

        self._wait(f"{instance} takes writes", active, STATE_TIMEOUT_S)

    def _wait_seen(self) -> None:
        """Until every gateway acts on the ring as it now is."""

        def seen() -> bool:
            version = self._ingesters().version
            views: list[dict[RingName, int]] = [
                self._transport.client(one).call("ring_versions", timeout_s=CALL_TIMEOUT_S)
                for one in self._actors.gateways()
            ]
            return all(view[INGESTER] == version for view in views)

        self._wait("all gateways see the change", seen, STATE_TIMEOUT_S)

    def _wait_read_from_bucket(self, uploaded_ms: int) -> None:
        """`uploaded_ms`: when the last block was there."""

        def indexed() -> bool:
            indexes = [read_bucket_index(self._delay.bucket, tenant) for tenant in self._delay.tenants()]
            return all(index is not None and index.updated_at * 1000 > uploaded_ms for index in indexes)

        self._say("waiting until the bucket index has the blocks")
        self._wait("the bucket index is written", indexed, STATE_TIMEOUT_S * 4)
        # An index in memory may be one interval old, and whoever is asked for a block may have an older one.
        read_at = self._clock.now_ms() + 2 * self._delay.sync.ms
        read_at = max(read_at, uploaded_ms + self._delay.store_after.ms + self._delay.sync.ms)
        left = max(0, read_at - self._clock.now_ms()) / 1000
        self._say(f"waiting {left:g} s until queries read these blocks")
        self._clock.sleep(left)

    def _wait(self, what: str, done: Callable[[], bool], timeout_s: float) -> None:
        deadline = self._clock.monotonic_s() + timeout_s
        while True:
            try:
                if done():
                    return
            except Unavailable:
                pass  # a process that is coming up; the deadline bounds it
            if self._clock.monotonic_s() > deadline:
                raise TooSlow(what, timeout_s)
            self._clock.sleep(POLL_S)


def _id(index: int) -> InstanceId:
    return InstanceId(f"ingester-{index}")


def _index(instance: InstanceId) -> int:
    return int(instance.rpartition("-")[2])
