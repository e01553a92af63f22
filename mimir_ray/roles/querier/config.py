"""Settings of queries: the block `querier`."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.config.setting import setting
from mimir_ray.config.units import Duration, duration


@dataclass(frozen=True, slots=True)
class QuerierConfig:
    """The `querier` block."""

    max_concurrent: int = setting(
        20, flag="querier.max-concurrent", minimum=1, help="Queries that one gateway evaluates at once; more wait."
    )
    timeout: Duration = setting(
        duration("2m"), flag="querier.timeout", minimum=1, help="A query may run for this long."
    )
    max_samples: int = setting(
        50_000_000,
        flag="querier.max-samples",
        category="advanced",
        minimum=1,
        unit="samples",
        help="Points that one query may hold in memory at once.",
    )
    query_store_after: Duration = setting(
        duration("12h"),
        flag="querier.query-store-after",
        category="advanced",
        minimum=0,
        help="Blocks in the bucket are read for what is older than this; 0 reads them always.",
    )
    lookback_delta: Duration = setting(
        duration("5m"),
        flag="querier.lookback-delta",
        category="advanced",
        minimum=1,
        help="How far back an instant selector looks for a sample.",
    )
    default_evaluation_interval: Duration = setting(
        duration("1m"),
        flag="querier.default-evaluation-interval",
        category="advanced",
        minimum=1,
        help="The step of subqueries that name none.",
    )
    shuffle_sharding_ingesters_enabled: bool = setting(
        True,
        flag="querier.shuffle-sharding-ingesters-enabled",
        category="advanced",
        help="Whether queries ask only those ingesters that a tenant's samples may be in: those of its shard at any "
        "time since ingesters keep samples.",
    )
    minimize_ingester_requests: bool = setting(
        True,
        flag="querier.minimize-ingester-requests",
        category="advanced",
        help="Whether as many ingesters, or zones, are asked at first as must answer; others where one fails or is "
        "slow. Else all are asked, and the first answers count.",
    )
    minimize_ingester_requests_hedging_delay: Duration = setting(
        duration("3s"),
        flag="querier.minimize-ingester-requests-hedging-delay",
        category="advanced",
        minimum=0,
        help="Another ingester, or zone, is asked where answers take longer than this; 0 waits for a failure.",
    )
    wide_query_samples: int = setting(
        5_000_000,
        flag="querier.wide-query-samples",
        category="advanced",
        minimum=0,
        unit="samples",
        help="A query that reads more samples than this is spread over Ray tasks, one a shard, where it cannot "
        "run inside the ingesters. Ours.",
    )
    shards: int = setting(
        0,
        flag="querier.shards",
        category="advanced",
        minimum=0,
        help="Shards of a wide query; 0 is one a CPU of the cluster. Ours.",
    )
