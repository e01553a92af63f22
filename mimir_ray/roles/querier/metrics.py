"""What queriers tell about reads of blocks, under Mimir's names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


class QuerierMetrics:
    """Families of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(f"cortex_querier_{name}", text, registry=registry)

        self.blocks_found = counter("blocks_found_total", "Blocks that queries wanted, by the bucket index.")
        self.blocks_queried = counter("blocks_queried_total", "Blocks that store-gateways answered for.")
        self.incompatible_shards = counter(
            "blocks_with_compactor_shard_but_incompatible_query_shard_total",
            "Blocks that sharded queries had to read though they may have nothing for them.",
        )
        self.checks = counter("blocks_consistency_checks_total", "Answers that were checked for missing blocks.")
        self.checks_failed = counter("blocks_consistency_checks_failed_total", "Answers that missed blocks.")
        self.instances_hit = Histogram(
            "cortex_querier_storegateway_instances_hit_per_query",
            "Store-gateways that one read asked.",
            buckets=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 50),
            registry=registry,
        )
        self.refetches = Histogram(
            "cortex_querier_storegateway_refetches_per_query",
            "How often one read had to ask others for blocks that were missing.",
            buckets=(0, 1, 2),
            registry=registry,
        )
