"""Runs fragments of plans where the samples are, or spreads them over Ray tasks.

Where each selected series is whole in exactly one ingester, and the bucket has nothing for it, the ingesters run the
fragment on their own series (steps travel instead of samples). Otherwise the samples come here, or, where they are
many, to tasks that each take one shard of the series.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mimir_ray.bucket.bucket_index import BucketIndex
from mimir_ray.bucket.store_config import BucketStoreConfig
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.limits import Cancellation
from mimir_ray.promql.operators.fragment import execute_fragment
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.plan.nodes import selections
from mimir_ray.promql.source import Selection
from mimir_ray.roles.api import NotSoleOwner
from mimir_ray.roles.querier.config import QuerierConfig
from mimir_ray.roles.querier.source import CALL_TIMEOUT_S, Blocks, ClusterSource, Ingesters
from mimir_ray.roles.querier.time_rules import TimeRules


@dataclass(frozen=True, slots=True)
class QueryScope:
    """What a task needs in order to read as the query that it belongs to does; plain data, so that it can travel.

    `ingesters`: their ring. `minimize`, `hedge_after_s`, `old`: how they are asked. `rules`, `store_shard` (the
    store-gateways that have the tenant's blocks), `index` (the blocks that the query needs), `store`: None where it
    reads ingesters only.
    """

    ingesters: RingView
    rules: TimeRules | None = None
    store_shard: RingView | None = None
    index: BucketIndex | None = None
    store: BucketStoreConfig | None = None
    minimize: bool = False
    hedge_after_s: float | None = None
    old: bool = False


class ShardTasks(Protocol):
    """Somebody who runs a fragment once a shard, side by side, in other processes."""

    def run(
        self, tenant: TenantId, fragment: Fragment, shards: int, scope: QueryScope, cancellation: Cancellation
    ) -> Iterator[FragmentPart]:
        """The parts of all shards; `shards` 0 leaves the number to the cluster's size."""


@dataclass(frozen=True, slots=True)
class ClusterFragments:
    """A `FragmentRunner` for one tenant and one query."""

    tenant: TenantId
    ingesters: Ingesters
    config: QuerierConfig
    cancellation: Cancellation
    tasks: ShardTasks | None = None
    blocks: Blocks | None = None

    def run(self, fragment: Fragment) -> Iterator[FragmentPart]:
        view = self.ingesters.ring()
        reads = [Selection(node.matchers, mint, maxt) for node, mint, maxt in selections(fragment.node, fragment.steps)]
        older = [] if self.blocks is None else [part for read in reads if (part := self.blocks.part(read)) is not None]
        if view.replication_factor == 1 and not older and self._are_recent(reads):
            try:
                # Every ingester checks that it is the one owner, by the same state of the ring, of what it has.
                answers = self.ingesters.ask(
                    "evaluate", self.tenant, fragment, view.version, timeout_s=self._timeout_s()
                )
            except NotSoleOwner:
                pass  # the ring changed while these series had samples; their parts have to be put together
            else:
                for _, parts in answers:
                    yield from parts
                return
        if self.tasks is not None and self._samples(reads, older) > self.config.wide_query_samples:
            scope = self._scope(view, [index for _, index in older])
            yield from self.tasks.run(self.tenant, fragment, self.config.shards, scope, self.cancellation)
            return
        source = ClusterSource(self.tenant, self.ingesters, self.cancellation, blocks=self.blocks)
        yield from execute_fragment(fragment, source, self.cancellation)

    def _are_recent(self, reads: Sequence[Selection]) -> bool:
        """Whether ingesters are to be read as they are: what is older than the rules allow must not be seen."""
        return self.blocks is None or all(self.blocks.rules.of_ingesters(read) is read for read in reads)

    def _scope(self, view: RingView, indexes: Sequence[BucketIndex]) -> QueryScope:
        asked = self.ingesters
        scope = QueryScope(view, minimize=asked.minimize, hedge_after_s=asked.hedge_after_s, old=asked.old())
        if self.blocks is None:
            return scope
        store = self.blocks.store.store
        blocks = {block.ulid: block for index in indexes for block in index.blocks}
        marks = {ulid: at for index in indexes for ulid, at in index.deletion_marks.items()}
        index = BucketIndex(tuple(blocks.values()), marks, max((one.updated_at for one in indexes), default=0))
        return replace(
            scope, rules=self.blocks.rules, store_shard=store.shard(self.tenant), index=index, store=store.config
        )

    def _samples(self, reads: Sequence[Selection], older: Sequence[tuple[Selection, BucketIndex]]) -> int:
        """About how many samples the fragment reads; replicas count once."""
        recent = reads if self.blocks is None else [self.blocks.rules.of_ingesters(read) for read in reads]
        found = sum(
            estimate
            for read in recent
            if read is not None
            for _, estimate in self.ingesters.ask("estimate_samples", self.tenant, read)
        )
        total = found // self.ingesters.ring().replication_factor
        if self.blocks is not None:
            total += sum(self.blocks.store.estimate_samples(index, read) for read, index in older)
        return total

    def _timeout_s(self) -> float:
        remaining = self.cancellation.remaining_s()
        return CALL_TIMEOUT_S if remaining is None else min(CALL_TIMEOUT_S, remaining)
