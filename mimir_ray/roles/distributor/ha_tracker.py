"""`HaTracker`: whether samples of one replica of an HA pair of senders are taken here.

Records of who is elected are kept by one process of the cluster (cluster/ring/elections.py), which is asked when a pair
is not known, when the elected replica's record is due to be refreshed, and when another replica may take over; `judge`
says so. Everything between is decided by what was heard last. Upstream: pkg/distributor/ha_tracker.go.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from mimir_ray.clock import Clock
from mimir_ray.cluster.ring.elections import Elected, TooManyHaClusters
from mimir_ray.config.limits import Limits
from mimir_ray.errors import Unavailable
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.distributor.errors import ReplicasDidNotMatch
from mimir_ray.roles.distributor.metrics import HaTrackerMetrics

Claim = Callable[[str, str, str, int, int], Awaitable[Elected]]
"""Elections.claim: (tenant, cluster, replica, failover timeout in ms, most clusters)."""

PAIRS_MAX = 100_000
REFUSED_MS = 10_000
"""For so long a cluster that is one too many is refused without asking."""
ASK_AGAIN_MS = 1_000
"""After a refresh that failed."""


class Verdict(Enum):
    TAKE = "take"
    REFUSE = "refuse"
    ASK = "ask"


def judge(record: Elected | None, replica: str, now_ms: int, refresh_ms: int, failover_ms: int) -> Verdict:
    """What to do with samples of `replica`, going by the record heard last. `refresh_ms` < `failover_ms`."""
    if record is None:
        return Verdict.ASK
    age = now_ms - record.received_ms
    if record.replica == replica:
        return Verdict.TAKE if age < refresh_ms else Verdict.ASK
    return Verdict.REFUSE if age < failover_ms else Verdict.ASK


@dataclass(slots=True)
class _Pair:
    record: Elected | None
    jitter: float
    ask_from_ms: int = 0
    refused: TooManyHaClusters | None = None
    refused_until_ms: int = 0


class HaTracker:
    """Belongs to one event loop."""

    def __init__(
        self,
        claim: Claim,
        clock: Clock,
        metrics: HaTrackerMetrics,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`jitter`: in [0, 1), how much of the largest jitter a pair gets."""
        self._claim = claim
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._pairs: OrderedDict[tuple[TenantId, str], _Pair] = OrderedDict()
        self._asking: dict[tuple[TenantId, str, str], asyncio.Task[Elected]] = {}

    async def check(self, tenant: TenantId, cluster: str, replica: str, limits: Limits) -> None:
        """Returns if samples of this replica are to be taken.

        Raises `ReplicasDidNotMatch`, `TooManyHaClusters`, and `Unavailable` where nobody can say who is elected.
        """
        pair = self._pair(tenant, cluster)
        now_ms, failover_ms = self._clock.now_ms(), limits.ha_tracker_failover_timeout.ms
        if pair.refused is not None and now_ms < pair.refused_until_ms:
            raise pair.refused
        refresh_ms = limits.ha_tracker_update_timeout.ms + int(
            pair.jitter * limits.ha_tracker_update_timeout_jitter_max.ms
        )
        known = pair.record
        verdict = judge(known, replica, now_ms, refresh_ms, failover_ms)
        if verdict is Verdict.ASK:
            mine = known is not None and known.replica == replica
            if not (mine and now_ms < pair.ask_from_ms):
                try:
                    self._learn(tenant, cluster, pair, await self._ask(tenant, cluster, replica, limits))
                except TooManyHaClusters as error:
                    pair.refused, pair.refused_until_ms = error, now_ms + REFUSED_MS
                    raise
                except Unavailable:
                    # While nobody can be asked, nobody else is elected either.
                    if not mine:
                        raise
                    pair.ask_from_ms = now_ms + ASK_AGAIN_MS
        record = pair.record
        assert record is not None
        if record.replica != replica:
            raise ReplicasDidNotMatch(replica, record.replica)

    async def _ask(self, tenant: TenantId, cluster: str, replica: str, limits: Limits) -> Elected:
        """All who want to know the same at the same time ask once."""
        key = tenant, cluster, replica
        task = self._asking.get(key)
        if task is None:
            self._metrics.claims.labels(tenant, cluster).inc()
            most, failover_ms = limits.ha_max_clusters, limits.ha_tracker_failover_timeout.ms
            task = asyncio.ensure_future(self._claim(tenant, cluster, replica, failover_ms, most))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    def _pair(self, tenant: TenantId, cluster: str) -> _Pair:
        key = tenant, cluster
        pair = self._pairs.get(key)
        if pair is None:
            if len(self._pairs) >= PAIRS_MAX:
                (old_tenant, old_cluster), _ = self._pairs.popitem(last=False)
                self._metrics.forget(old_tenant, old_cluster)
            pair = self._pairs[key] = _Pair(None, self._jitter())
        self._pairs.move_to_end(key)
        return pair

    def _learn(self, tenant: TenantId, cluster: str, pair: _Pair, record: Elected) -> None:
        before = pair.record
        if before is not None and (record.elected_ms, record.received_ms) < (before.elected_ms, before.received_ms):
            return  # an older answer that came later
        pair.record, pair.refused = record, None
        if before is None or before.replica != record.replica:
            self._metrics.changes.labels(tenant, cluster).inc()
        self._metrics.timestamp.labels(tenant, cluster).set(record.received_ms / 1000)
