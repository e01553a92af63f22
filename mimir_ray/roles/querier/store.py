"""`Store`: reads of blocks, by way of the store-gateways that have them, whole or not at all.

The bucket index says which blocks a tenant has; the ring, which store-gateways have each. A store-gateway says which of
the blocks its answer covers; the rest is asked of others, `ATTEMPTS` in all. A block that nobody covered is an error.
Upstream: pkg/querier/blocks_store_queryable.go, blocks_consistency_checker.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from mimir_ray.bucket.bucket_index import BucketIndex, IndexedBlock
from mimir_ray.bucket.sharding import may_hold, owners, shard_is_compatible
from mimir_ray.bucket.store_config import BucketStoreConfig
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import InstanceDesc, InstanceId
from mimir_ray.cluster.transport.base import Pending
from mimir_ray.errors import ClientError, Corruption, MimirRayError
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.limits import Cancellation, QueryCancelled, QueryTimeout
from mimir_ray.roles.api import BlocksNames, BlocksPage
from mimir_ray.roles.querier.liveness import InstanceHangs, Liveness
from mimir_ray.roles.querier.metrics import QuerierMetrics

log = structlog.get_logger(__name__)

ATTEMPTS = 3
UPLOAD_GRACE_SYNCS = 3
"""For so many sync intervals after its upload a block may be unknown to store-gateways: ingesters have its samples.
Upstream: pkg/storage/tsdb/config.go NewBlockDiscoveryDelayMultiplier."""
CALL_TIMEOUT_S = 120.0


@dataclass(eq=False)
class StoreConsistencyCheckFailed(Corruption):
    """Blocks that a query needs, and that no store-gateway answered for; a 500, as in Mimir."""

    id = "store-consistency-check-failed"
    blocks: tuple[str, ...]

    def describe(self) -> str:
        return f"failed to fetch some blocks. The failed blocks are: {' '.join(self.blocks)}"


@dataclass(frozen=True, slots=True)
class Store:
    """How to ask the store-gateways of a cluster. One a process.

    `index`: a tenant's bucket index; raises where it is too old to be trusted. `shard`: the store-gateways that have
    the tenant's blocks.
    """

    index: Callable[[TenantId], BucketIndex]
    shard: Callable[[TenantId], RingView]
    liveness: Liveness
    executor: Executor
    config: BucketStoreConfig
    metrics: QuerierMetrics


@dataclass(slots=True)
class _Answers:
    """Of one read so far."""

    given: list[Any] = field(default_factory=list)
    queried: set[str] = field(default_factory=set)
    tried: dict[str, set[InstanceId]] = field(default_factory=dict)
    hit: set[InstanceId] = field(default_factory=set)
    failure: MimirRayError | None = None


@dataclass(frozen=True, slots=True)
class TenantStore:
    """The same for one tenant and one query. `now_ms`: the query's."""

    store: Store
    tenant: TenantId
    now_ms: int
    cancellation: Cancellation | None = None

    def blocks(self, selection: Selection) -> BucketIndex | None:
        """The part of the bucket index that the selection needs; None where no block can have anything for it.

        Raises `BucketIndexTooOld`, `BucketUnavailable`, `DamagedIndex`.
        """
        index = self.store.index(self.tenant)
        ignored_s = (self.now_ms - self.store.config.ignore_deletion_marks_while_querying_delay.ms) / 1000
        marks = index.deletion_marks
        found = [
            one
            for one in index.blocks
            if one.overlaps(selection.mint, selection.maxt) and marks.get(one.ulid, self.now_ms) >= ignored_s
        ]
        self.store.metrics.blocks_found.inc(len(found))
        kept = tuple(one for one in found if may_hold(one.compactor_shard, selection.shard))
        mismatched = sum(not shard_is_compatible(one.compactor_shard, selection.shard) for one in kept)
        self.store.metrics.incompatible_shards.inc(mismatched)
        if not kept:
            return None
        named = {one.ulid for one in kept}
        return replace(index, blocks=kept, deletion_marks={ulid: at for ulid, at in marks.items() if ulid in named})

    def select(self, index: BucketIndex, selection: Selection) -> list[list[SeriesBatch]]:
        """The selected samples in these blocks, as each store-gateway that was asked has them.

        Raises `StoreConsistencyCheckFailed`, and what ends a query wherever it is read.
        """
        return self._ask(index, "select_blocks", (selection,), self._follow)

    def estimate_samples(self, index: BucketIndex, selection: Selection) -> int:
        """About how many samples the selection has there; blocks that nobody answers for now count nothing."""
        groups = self._groups(index.blocks, _Answers())
        total = 0
        for one, call in self._begin_all(groups, "estimate_block_samples", (selection,)):
            try:
                total += self._result(one, call)
            except (ClientError, QueryCancelled, QueryTimeout):
                raise
            except MimirRayError as error:
                log.warning("no estimate from a store-gateway", user=self.tenant, error=str(error))
        return total

    def label_names(self, index: BucketIndex, selection: Selection) -> set[str]:
        return set().union(*self._ask(index, "block_label_names", (selection,), _names))

    def label_values(self, index: BucketIndex, name: str, selection: Selection) -> set[str]:
        return set().union(*self._ask(index, "block_label_values", (name, selection), _names))

    # One read

    def _ask(
        self,
        index: BucketIndex,
        method: str,
        arguments: tuple[Any, ...],
        rest: Callable[[InstanceDesc, Any], Any],
    ) -> list[Any]:
        """What store-gateways answer, so that every block is in one of the answers."""
        answers = _Answers()
        attempts = 0
        while attempts < ATTEMPTS:
            remaining = [one for one in index.blocks if one.ulid not in answers.queried]
            groups = self._groups(remaining, answers)
            if not groups:
                break
            if self.cancellation is not None:
                self.cancellation.check()
            self._round(groups, method, arguments, rest, answers)
            attempts += 1
        metrics = self.store.metrics
        metrics.instances_hit.observe(len(answers.hit))
        metrics.refetches.observe(max(0, attempts - 1))
        metrics.blocks_queried.inc(len(answers.queried))
        self._check(index, answers)
        return answers.given

    def _groups(self, blocks: Sequence[IndexedBlock], answers: _Answers) -> list[tuple[InstanceDesc, tuple[str, ...]]]:
        """Whom to ask for which blocks: of each, the first owner that was not asked for it yet.

        So a block is always asked of the same store-gateway, whose caches know it, and the blocks of a tenant are
        spread over all.
        """
        shard = self.store.shard(self.tenant)
        groups: dict[InstanceId, tuple[InstanceDesc, list[str]]] = {}
        for block in blocks:
            tried = answers.tried.get(block.ulid, ())
            for one in owners(shard, block.ulid):
                if one.id not in tried:
                    groups.setdefault(one.id, (one, []))[1].append(block.ulid)
                    break
        return [(one, tuple(ulids)) for _, (one, ulids) in sorted(groups.items())]

    def _begin_all(
        self, groups: Sequence[tuple[InstanceDesc, tuple[str, ...]]], method: str, arguments: tuple[Any, ...]
    ) -> list[tuple[InstanceDesc, Pending | InstanceHangs]]:
        """Calls to all of them, side by side; in place of a call, that there is nobody to answer it."""
        begun: list[tuple[InstanceDesc, Pending | InstanceHangs]] = []
        for one, ulids in groups:
            try:
                call = self.store.liveness.begin(
                    one, method, self.tenant, ulids, *arguments, timeout_s=self._timeout_s()
                )
                begun.append((one, call))
            except InstanceHangs as error:
                begun.append((one, error))
        return begun

    def _result(self, one: InstanceDesc, call: Pending | InstanceHangs) -> Any:
        if isinstance(call, InstanceHangs):
            raise call
        return self.store.liveness.answer(one, call)

    def _round(
        self,
        groups: Sequence[tuple[InstanceDesc, tuple[str, ...]]],
        method: str,
        arguments: tuple[Any, ...],
        rest: Callable[[InstanceDesc, Any], Any],
        answers: _Answers,
    ) -> None:
        """Asks all of them once, side by side; whoever fails is left for the next round."""
        begun = self._begin_all(groups, method, arguments)
        firsts: list[tuple[InstanceDesc, Any]] = []
        ending: MimirRayError | None = None
        for (one, ulids), (_, call) in zip(groups, begun, strict=True):
            answers.hit.add(one.id)
            for ulid in ulids:
                answers.tried.setdefault(ulid, set()).add(one.id)
            try:
                firsts.append((one, self._result(one, call)))
            except (ClientError, QueryCancelled, QueryTimeout) as error:
                ending = ending or error  # the others are waited for, so that no answer is left lying about
            except MimirRayError as error:
                self._failed(one, error, answers)
        if ending is not None:
            raise ending

        def whole(first: tuple[InstanceDesc, Any]) -> Any:
            try:
                return rest(*first)
            except (ClientError, QueryCancelled, QueryTimeout):
                raise
            except MimirRayError as error:
                return error

        several = sum(bool(getattr(answer, "cursor", "")) for _, answer in firsts) > 1
        wholes = self.store.executor.map(whole, firsts) if several else map(whole, firsts)
        for (one, first), answer in zip(firsts, wholes, strict=True):
            if isinstance(answer, MimirRayError):
                self._failed(one, answer, answers)
                continue
            answers.queried.update(first.queried)
            answers.given.append(answer)

    def _failed(self, one: InstanceDesc, error: MimirRayError, answers: _Answers) -> None:
        log.warning("a store-gateway did not answer", user=self.tenant, instance=one.id, error=str(error))
        if answers.failure is None or isinstance(error, Corruption):
            answers.failure = error

    def _follow(self, one: InstanceDesc, page: BlocksPage) -> list[SeriesBatch]:
        """All batches of an answer."""
        batches = list(page.batches)
        while page.cursor:
            if self.cancellation is not None:
                self.cancellation.check()
            page = self.store.liveness.call(one, "next_blocks_page", page.cursor, timeout_s=self._timeout_s())
            batches += page.batches
        return batches

    def _check(self, index: BucketIndex, answers: _Answers) -> None:
        """Raises where a block is missing that store-gateways must have."""
        metrics, config = self.store.metrics, self.store.config
        metrics.checks.inc()
        now_s = self.now_ms / 1000
        uploaded_s = now_s - UPLOAD_GRACE_SYNCS * config.sync_interval.seconds
        # For a merged block its sources stand in; they are left out so long after they were marked, and that was later.
        # Differs: upstream has one grace for all, and a hole where that is longer than marked blocks are read.
        merged_s = max(uploaded_s, now_s - config.ignore_deletion_marks_while_querying_delay.seconds)
        # Store-gateways may let a block go a while before queries leave it out.
        marked_s = now_s - config.ignore_deletion_marks_delay.seconds / 2
        missing = [
            one.ulid
            for one in index.blocks
            if one.ulid not in answers.queried
            and one.uploaded_at <= (merged_s if one.level > 1 else uploaded_s)
            and index.deletion_marks.get(one.ulid, now_s) >= marked_s
        ]
        if not missing:
            return
        metrics.checks_failed.inc()
        log.warning("blocks were missed", user=self.tenant, blocks=missing, error=str(answers.failure or ""))
        if isinstance(answers.failure, Corruption):
            raise answers.failure
        raise StoreConsistencyCheckFailed(tuple(missing))

    def _timeout_s(self) -> float:
        remaining = self.cancellation.remaining_s() if self.cancellation is not None else None
        return CALL_TIMEOUT_S if remaining is None else min(CALL_TIMEOUT_S, remaining)


def _names(_one: InstanceDesc, answer: BlocksNames) -> list[str]:
    return answer.names
