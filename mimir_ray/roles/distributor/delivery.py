"""`Delivery`: brings a write to the replicas of its series and waits until enough have it.

Samples of series that an ingester has named go under their references. Where the ingester has lost those (it
was started again, it cleaned up), the samples go a second time with the labels, which the request still holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mimir_ray.cluster.ring.lookup import NOBODY, RingView
from mimir_ray.cluster.ring.model import WRITE
from mimir_ray.cluster.ring.replication import live_owners, write_quorum
from mimir_ray.errors import ClientError, MimirRayError
from mimir_ray.roles.api import WriteBatch, WriteResult
from mimir_ray.roles.distributor import errors
from mimir_ray.roles.distributor.config import DistributorConfig
from mimir_ray.roles.distributor.ingester_queue import IngesterClient, IngesterQueue
from mimir_ray.roles.distributor.metrics import DistributorMetrics
from mimir_ray.roles.distributor.replication import WriteQuorum
from mimir_ray.roles.distributor.request import (
    Leg,
    PreparedWrite,
    exemplar_columns,
    first_batch,
    labelled_batch,
    make_legs,
)
from mimir_ray.roles.distributor.series_cache import SeriesCache
from mimir_ray.roles.distributor.tally import Tally
from mimir_ray.roles.distributor.validation import metadata_token


class Delivery:
    """Belongs to one event loop."""

    def __init__(
        self, config: DistributorConfig, clients: Callable[[str], IngesterClient], metrics: DistributorMetrics
    ) -> None:
        """`clients`: how to reach the ingester of this id."""
        self._config = config
        self._clients = clients
        self._metrics = metrics
        self._queues: dict[str, IngesterQueue] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._healthy: tuple[RingView, NDArray[np.bool_], bool] | None = None

    async def write(
        self, write: PreparedWrite, cache: SeriesCache, view: RingView, tally: Tally
    ) -> MimirRayError | None:
        """The error that decided, or None once every series and family has its quorum; the rest goes on behind.

        `tally` hears what ingesters refuse. Raises `EmptyRing`, `TooFewLiveReplicas`: then nothing was sent.
        """
        owners = self._live(view, cache.owners[write.ids])
        families = [metadata_token(write.tenant, one.family) for one in write.metadata]
        metadata_owners = self._live(view, view.owners(np.array(families, np.uint32)))
        instances = tuple(one.id for one in view.instances)
        legs = make_legs(write, owners, cache.references[write.ids], metadata_owners, instances)
        # Made before anything else runs: references and incarnation must be of one moment.
        batches = [first_batch(write, leg, cache) for leg in legs]
        if len(legs) == 1:
            return await self._deliver(write, cache, legs[0], *batches[0], tally)
        tally.tolerated = view.replication_factor - write_quorum(view.replication_factor)
        replicas = _live_counts(np.concatenate((owners, metadata_owners)))
        quorum = WriteQuorum(replicas, write_quorum(view.replication_factor))
        for leg, (batch, labelled) in zip(legs, batches, strict=True):
            task = asyncio.get_running_loop().create_task(self._vote(quorum, write, cache, leg, batch, labelled, tally))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return await quorum.done

    async def drain(self) -> None:
        """Returns when nothing is under way any more."""
        while self._background:
            await asyncio.wait(self._background)

    def prune(self, ingesters: set[str]) -> None:
        """Lets go of idle ways to ingesters other than these."""
        for name in [name for name, queue in self._queues.items() if queue.idle and name not in ingesters]:
            del self._queues[name]
            for family in (self._metrics.calls_inflight, self._metrics.queue_batches, self._metrics.queue_bytes):
                family.remove_by_labels({"ingester": name})

    def _live(self, view: RingView, owners: NDArray[np.int16]) -> NDArray[np.int16]:
        """`owners` (int16[N, RF]) without those that must not be written to."""
        if self._healthy is None or self._healthy[0] is not view:
            healthy = view.healthy(WRITE)
            self._healthy = (view, healthy, bool(healthy.all()))
        if len(owners) == 0 or (self._healthy[2] and int(owners.min()) >= 0):
            return owners
        return live_owners(view, owners, self._healthy[1])

    async def _vote(
        self,
        quorum: WriteQuorum,
        write: PreparedWrite,
        cache: SeriesCache,
        leg: Leg,
        batch: WriteBatch,
        labelled: NDArray[np.int32],
        tally: Tally,
    ) -> None:
        quorum.record(leg.items, await self._deliver(write, cache, leg, batch, labelled, tally))

    async def _deliver(
        self,
        write: PreparedWrite,
        cache: SeriesCache,
        leg: Leg,
        batch: WriteBatch,
        labelled: NDArray[np.int32],
        tally: Tally,
    ) -> MimirRayError | None:
        """Brings one ingester its part, within the remote time-out."""
        self._metrics.appends.labels(leg.name, "samples").inc()
        error: MimirRayError | None
        try:
            error = await self._exchange(write, cache, leg, batch, labelled, tally)
        except (errors.IngesterFailed, errors.IngesterTimedOut) as failure:
            error = failure
        if error is not None:
            self._metrics.append_failures.labels(leg.name, "samples").inc()
        return error

    async def _exchange(
        self,
        write: PreparedWrite,
        cache: SeriesCache,
        leg: Leg,
        batch: WriteBatch,
        labelled: NDArray[np.int32],
        tally: Tally,
    ) -> MimirRayError | None:
        queue = self._queue(leg.name)
        deadline = asyncio.get_running_loop().time() + self._config.remote_timeout.seconds
        result = await queue.submit(batch, deadline)
        error = self._take_result(write, cache, leg, labelled, result)
        if len(result.refused):
            tally.refuse_samples(leg.sample_of(result.refused))
        exemplars = leg.exemplars_of(write)
        if len(result.refused_exemplars):
            tally.refuse_exemplars(exemplars[result.refused_exemplars])
        lost = np.arange(len(batch.references)) if result.stale else result.unknown
        if result.error is not None or not len(lost):
            return error
        samples = lost.astype(np.int64) if leg.known is None else leg.known[lost]
        again, labelled = labelled_batch(write, samples, result.incarnation)
        # The ingester did not look at them the first time; see `WriteBatch`.
        again.exemplars = exemplar_columns(write, exemplars)
        if not result.stale:
            cache.forget_references(write.generation, write.ring_version, leg.ingester, write.ids[labelled])
        result = await queue.submit(again, deadline)
        if len(result.refused):
            tally.refuse_samples(samples[result.refused])
        if len(result.refused_exemplars):
            tally.refuse_exemplars(exemplars[result.refused_exemplars])
        return self._take_result(write, cache, leg, labelled, result) or error

    def _take_result(
        self, write: PreparedWrite, cache: SeriesCache, leg: Leg, labelled: NDArray[np.int32], result: WriteResult
    ) -> MimirRayError | None:
        """Remembers references (of the series `labelled`, int32[R]); whether the ingester is content."""
        if isinstance(result.error, ClientError):
            return errors.IngesterRejected(leg.name, write.tenant, str(result.error))
        if result.error is not None:
            return errors.IngesterFailed(leg.name, f"user={write.tenant}: {result.error}")
        cache.learn(
            write.generation,
            write.ring_version,
            leg.ingester,
            result.incarnation,
            write.ids[labelled],
            result.new_references,
        )
        return errors.IngesterRefused(leg.name, write.tenant, result.refusals[0]) if result.refusals else None

    def _queue(self, ingester: str) -> IngesterQueue:
        queue = self._queues.get(ingester)
        if queue is None:
            config = self._config
            queue = self._queues[ingester] = IngesterQueue(
                ingester,
                self._clients(ingester),
                config.ingester_calls_in_flight,
                config.ingester_call_bytes_max,
                config.ingester_queue_bytes_max,
                config.ingester_queue_batches_max,
                self._metrics.calls.labels(ingester).inc,
            )
            fresh = queue
            self._metrics.calls_inflight.labels(ingester).set_function(lambda: fresh.calls)
            self._metrics.queue_batches.labels(ingester).set_function(lambda: fresh.waiting[0])
            self._metrics.queue_bytes.labels(ingester).set_function(lambda: fresh.waiting[1])
        return queue


def _live_counts(owners: NDArray[np.int16]) -> NDArray[np.int8]:
    """int8[N]: how many replicas each row has."""
    if len(owners) == 0 or int(owners.min()) >= 0:
        return np.full(len(owners), owners.shape[1], np.int8)
    return (owners != NOBODY).sum(axis=1).astype(np.int8)
