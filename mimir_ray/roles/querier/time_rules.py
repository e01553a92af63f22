"""Where samples of which times are read: recent ones from ingesters, older ones from the bucket. Pure.

Upstream: pkg/querier/querier.go ShouldQueryIngesters, ShouldQueryBlockStore; distributor_queryable.go and
blocks_store_queryable.go for the clamps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mimir_ray.model.selection import Selection


@dataclass(frozen=True, slots=True)
class TimeRules:
    """`now_ms`: the query's, the same for all its selectors. The others: ms, 0 turns the rule off.

    `ingesters_within`: ingesters have what is not older. `store_after`: the bucket has what is older.
    """

    now_ms: int
    ingesters_within_ms: int = 0
    store_after_ms: int = 0

    def of_ingesters(self, selection: Selection) -> Selection | None:
        """What to ask of ingesters."""
        oldest = self.now_ms - self.ingesters_within_ms
        if self.ingesters_within_ms <= 0 or selection.mint >= oldest:
            return selection
        return replace(selection, mint=oldest) if selection.maxt >= oldest else None

    def of_store(self, selection: Selection) -> Selection | None:
        """What to ask of store-gateways."""
        newest = self.now_ms - self.store_after_ms
        if self.store_after_ms <= 0 or selection.maxt <= newest:
            return selection
        return replace(selection, maxt=newest) if selection.mint <= newest else None
