"""`ClusterSource`: the samples of one tenant, wherever in the cluster they are, as the engine wants them.

Recent samples are in ingesters, older ones in blocks that store-gateways read (time_rules.py). With a replication
factor above one, after ingesters came or went, and where a selection reaches into blocks, several hold parts of one
series: those are merged here by time, one sample a timestamp.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mimir_ray.bucket.bucket_index import BucketIndex
from mimir_ray.cluster.quorum import ReadTracker, read_in_threads
from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.cluster.ring.model import READ, InstanceDesc
from mimir_ray.cluster.ring.replication import read_set
from mimir_ray.cluster.transport.base import Pending
from mimir_ray.model.exemplars import SeriesExemplars, merge_exemplars
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.selection import Selection, Shard
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.limits import Cancellation
from mimir_ray.promql.plan.fragment import FragmentRunner
from mimir_ray.roles.api import Page
from mimir_ray.roles.querier.liveness import Liveness
from mimir_ray.roles.querier.store import TenantStore
from mimir_ray.roles.querier.time_rules import TimeRules
from mimir_ray.tsdb.merge import merge_batches

Answer = TypeVar("Answer")
CALL_TIMEOUT_S = 120.0
SAMPLES_PER_MERGE = 8_000_000
"""A selection that has more in blocks is read and merged a part of its series at a time; 128 MB."""


@dataclass(frozen=True, slots=True)
class Ingesters:
    """How to ask the ingesters of a cluster: enough of them, side by side.

    `liveness`: the way to each, and whether it answers at all. `minimize`: as many as must answer are asked at first,
    in a random order, and one more (or one more zone) where one fails or, after `hedge_after_s`, where it takes too
    long. `shard`: the part of the ring in which a tenant's samples may be; None is all of it. `old`: whether the ring
    was last heard of so long ago that nobody may be left out.
    """

    ring: Callable[[], RingView]
    liveness: Liveness
    executor: Executor
    minimize: bool = False
    hedge_after_s: float | None = None
    shard: Callable[[TenantId, RingView], RingView] | None = None
    old: Callable[[], bool] = lambda: False

    def of_tenant(self, tenant: TenantId) -> Ingesters:
        """Those to ask for this tenant's samples."""
        shard = self.shard
        return self if shard is None else replace(self, ring=lambda: shard(tenant, self.ring()), shard=None)

    def ask(self, method: str, *args: Any, timeout_s: float = CALL_TIMEOUT_S) -> list[tuple[InstanceDesc, Any]]:
        """Calls a method of as many ingesters as an exact answer needs; (instance, answer) by instance id.

        Raises what made that impossible: `Unavailable` where too many are missing.
        """
        asked = read_set(self.ring(), READ, old=self.old())
        instances = sorted(asked.instances, key=lambda one: one.id)
        if asked.failures_max == 0 and not asked.zone_aware:
            # All must answer: one thread begins all calls and then waits, which costs no thread hops.
            calls = [(one, self.liveness.begin(one, method, *args, timeout_s=timeout_s)) for one in instances]
            return list(zip(instances, self._all_results(calls), strict=True))
        return self.each(lambda one: self.liveness.call(one, method, *args, timeout_s=timeout_s), timeout_s)

    def each(
        self, call: Callable[[InstanceDesc], Answer], timeout_s: float = CALL_TIMEOUT_S
    ) -> list[tuple[InstanceDesc, Answer]]:
        """The same with a call of one's own, in threads."""
        asked = read_set(self.ring(), READ, old=self.old())
        tracker: ReadTracker[Answer] = ReadTracker(asked, self.minimize)
        if self.minimize:
            tracker.shuffle(random.sample(range(tracker.units), tracker.units), self.liveness.avoid)
        answers = read_in_threads(tracker, call, self.executor, timeout_s, self.hedge_after_s)
        return [(one, answers[one.id]) for one in sorted(asked.instances, key=lambda one: one.id) if one.id in answers]

    def _all_results(self, calls: Sequence[tuple[InstanceDesc, Pending]]) -> list[Any]:
        """Every call's answer; raises the first error once all have ended, so that no answer is left lying about."""
        answers: list[Any] = []
        failure: Exception | None = None
        for one, call in calls:
            try:
                answers.append(self.liveness.answer(one, call))
            except Exception as error:  # noqa: BLE001  (raised below)
                failure = failure or error
        if failure is not None:
            raise failure
        return answers


@dataclass(frozen=True, slots=True)
class Blocks:
    """The part of a source that is in the bucket: by which rules, and how to read it."""

    rules: TimeRules
    store: TenantStore

    def part(self, selection: Selection) -> tuple[Selection, BucketIndex] | None:
        """What to read of which blocks; None where no block is needed."""
        older = self.rules.of_store(selection)
        index = None if older is None else self.store.blocks(older)
        return None if older is None or index is None else (older, index)


class ClusterSource:
    """A `SeriesSource` over ingesters and store-gateways for one tenant and one query."""

    def __init__(
        self,
        tenant: TenantId,
        ingesters: Ingesters,
        cancellation: Cancellation | None = None,
        fragments: FragmentRunner | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        """`fragments`: who runs parts of plans for this source; None has the engine do all by itself. `blocks`: None
        asks ingesters only, for samples of any age."""
        self.fragments = fragments
        self._tenant = tenant
        self._ingesters = ingesters
        self._cancellation = cancellation
        self._blocks = blocks

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        recent, older = self._parts(selection)
        if older is None:
            if recent is not None:
                yield from self._recent(recent)
            return
        assert self._blocks is not None
        store = self._blocks.store
        wanted, index = older
        pieces = 1
        if not selection.labels_only and not selection.limit_series:
            pieces = max(1, -(-store.estimate_samples(index, wanted) // SAMPLES_PER_MERGE))
        for shard in _pieces(selection.shard, pieces):
            holders = store.select(index, replace(wanted, shard=shard))
            if recent is not None:
                # Ingesters first: of two samples of one timestamp theirs stays.
                holders = [*self._recent_holders(replace(recent, shard=shard)), *holders]
            holding = [batches for batches in holders if batches]
            if len(holding) == 1:
                yield from holding[0]
            else:
                yield from merge_batches(holding)

    def _parts(self, selection: Selection) -> tuple[Selection | None, tuple[Selection, BucketIndex] | None]:
        """What to ask of ingesters, and what of store-gateways."""
        if self._blocks is None:
            return selection, None
        return self._blocks.rules.of_ingesters(selection), self._blocks.part(selection)

    def _recent(self, selection: Selection) -> Iterator[SeriesBatch]:
        """From ingesters only."""
        if self._ingesters.ring().failures_max > 0:
            yield from merge_batches(self._recent_holders(selection))
            return
        pages = self._ingesters.ask("select_page", self._tenant, selection, timeout_s=self._timeout_s())
        holding = [(one, page) for one, page in pages if page.batches]
        if len(holding) == 1:
            yield from self._follow(*holding[0])
            return
        yield from merge_batches([list(self._follow(one, page)) for one, page in holding])

    def _recent_holders(self, selection: Selection) -> list[list[SeriesBatch]]:
        """What each ingester that was asked has. An ingester may go away between two pages: an answer counts when it is
        whole, and others stand in for it."""
        answers = self._ingesters.each(lambda one: list(self._read(one, selection)), self._timeout_s())
        return [batches for _, batches in answers]

    def label_names(self, selection: Selection) -> list[str]:
        recent, older = self._parts(selection)
        lists: list[Any] = []
        if recent is not None:
            lists += [answer for _, answer in self._ingesters.ask("label_names", self._tenant, recent)]
        if older is not None and self._blocks is not None:
            wanted, index = older
            lists.append(self._blocks.store.label_names(index, wanted))
        return _union(lists)

    def label_values(self, name: str, selection: Selection) -> list[str]:
        recent, older = self._parts(selection)
        lists: list[Any] = []
        if recent is not None:
            lists += [answer for _, answer in self._ingesters.ask("label_values", self._tenant, name, recent)]
        if older is not None and self._blocks is not None:
            wanted, index = older
            lists.append(self._blocks.store.label_values(index, name, wanted))
        return _union(lists)

    def metadata(self, family: str = "") -> list[Metadata]:
        """Each entry once, in the order in which ingesters know them."""
        entries: dict[Metadata, None] = {}
        for _, answer in self._ingesters.ask("metadata", self._tenant, family):
            entries |= dict.fromkeys(answer)
        return list(entries)

    def exemplars(self, selectors: Sequence[tuple[Matcher, ...]], mint: int, maxt: int) -> list[SeriesExemplars]:
        """Exemplars between two times (ms, both included) of series that satisfy one of the selectors; by labels."""
        answers = self._ingesters.ask(
            "exemplars", self._tenant, list(selectors), mint, maxt, timeout_s=self._timeout_s()
        )
        return merge_exemplars([answer for _, answer in answers])

    def _read(self, instance: InstanceDesc, selection: Selection) -> Iterator[SeriesBatch]:
        liveness, timeout_s = self._ingesters.liveness, self._timeout_s()
        first: Page = liveness.call(instance, "select_page", self._tenant, selection, timeout_s=timeout_s)
        return self._follow(instance, first)

    def _follow(self, instance: InstanceDesc, page: Page) -> Iterator[SeriesBatch]:
        liveness = self._ingesters.liveness
        yield from page.batches
        while page.cursor:
            if self._cancellation is not None:
                self._cancellation.check()
            page = liveness.call(instance, "next_page", page.cursor, timeout_s=self._timeout_s())
            yield from page.batches

    def _timeout_s(self) -> float:
        remaining = self._cancellation.remaining_s() if self._cancellation is not None else None
        return CALL_TIMEOUT_S if remaining is None else min(CALL_TIMEOUT_S, remaining)


def _union(lists: Sequence[list[str] | set[str]]) -> list[str]:
    if len(lists) == 1 and isinstance(lists[0], list):
        return lists[0]
    return sorted(set().union(*lists))


def _pieces(shard: Shard | None, count: int) -> list[Shard | None]:
    """`count` parts of a shard (or of all series) that are shards themselves."""
    if count == 1:
        return [shard]
    whole = shard or Shard(0, 1)
    return [Shard(whole.index + whole.count * piece, whole.count * count) for piece in range(count)]
