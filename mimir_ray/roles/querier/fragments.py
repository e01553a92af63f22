"""Runs fragments of plans where the samples are, or spreads them over Ray tasks.

Where each selected series is whole in exactly one ingester, the ingesters run the fragment on their own series
(steps travel instead of samples). Otherwise the samples come here, or, where they are many, to tasks that
each take one shard of the series.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from mimir_ray.cluster.ring.lookup import RingView
from mimir_ray.model.tenant import TenantId
from mimir_ray.promql.limits import Cancellation
from mimir_ray.promql.operators.fragment import execute_fragment
from mimir_ray.promql.plan.fragment import Fragment, FragmentPart
from mimir_ray.promql.plan.nodes import selections
from mimir_ray.promql.source import Selection
from mimir_ray.roles.api import NotSoleOwner
from mimir_ray.roles.querier.config import QuerierConfig
from mimir_ray.roles.querier.source import CALL_TIMEOUT_S, ClusterSource, Ingesters


class ShardTasks(Protocol):
    """Somebody who runs a fragment once a shard, side by side, in other processes."""

    def run(
        self, tenant: TenantId, fragment: Fragment, shards: int, view: RingView, cancellation: Cancellation
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

    def run(self, fragment: Fragment) -> Iterator[FragmentPart]:
        view = self.ingesters.ring()
        if view.replication_factor == 1:
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
        if self.tasks is not None and self._samples(fragment) > self.config.wide_query_samples:
            yield from self.tasks.run(self.tenant, fragment, self.config.shards, view, self.cancellation)
            return
        source = ClusterSource(self.tenant, self.ingesters, self.cancellation)
        yield from execute_fragment(fragment, source, self.cancellation)

    def _samples(self, fragment: Fragment) -> int:
        """How many samples the fragment reads, as the ingesters estimate it; replicas count once."""
        reads = [Selection(node.matchers, mint, maxt) for node, mint, maxt in selections(fragment.node, fragment.steps)]
        found = [
            sum(estimate for _, estimate in self.ingesters.ask("estimate_samples", self.tenant, selection))
            for selection in reads
        ]
        return sum(found) // self.ingesters.ring().replication_factor

    def _timeout_s(self) -> float:
        remaining = self.cancellation.remaining_s()
        return CALL_TIMEOUT_S if remaining is None else min(CALL_TIMEOUT_S, remaining)
