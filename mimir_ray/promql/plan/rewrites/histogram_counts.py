"""Tells selectors whose histograms are only asked for their count and sum to leave the buckets behind.

As their buckets can no longer tell, the samples then say themselves where a counter was reset; so the rewrite also
decides which conflicts of counter resets an aggregation sees. Upstream: promql/engine.go detectHistogramStatsDecoding.
"""

from __future__ import annotations

import dataclasses

from mimir_ray.promql.plan import nodes

_COUNTS = frozenset(("histogram_count", "histogram_sum", "histogram_avg"))
_BUCKETS = frozenset(("histogram_quantile", "histogram_quantiles", "histogram_fraction"))


def leave_buckets(node: nodes.PlanNode, asked: bool = False) -> nodes.PlanNode:
    """The plan with `counts_only` set; `asked`: something above only reads counts and sums."""
    if isinstance(node, nodes.Select | nodes.RangeSelect):
        return dataclasses.replace(node, counts_only=True) if asked else node
    if isinstance(node, nodes.Subquery):
        return node
    if isinstance(node, nodes.FunctionCall):
        if node.name in _BUCKETS:
            return node
        asked |= node.name in _COUNTS
    if isinstance(node, nodes.VectorScalar | nodes.Join) and node.op in ("</", ">/"):
        return node
    return node.map_children(lambda child: leave_buckets(child, asked))
