"""What the query-frontend tells about itself, under Mimir's names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


class QueryFrontendMetrics:
    """Upstream: pkg/frontend/transport/handler.go."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queries = Counter(
            "cortex_query_frontend_queries_total", "Queries received.", ("op", "user"), registry=registry
        )
        self.seconds = Counter(
            "cortex_query_seconds_total", "Wall time spent on queries.", ("user",), registry=registry
        )
        self.samples = Counter(
            "cortex_query_samples_processed_total", "Samples that queries looked at.", ("user",), registry=registry
        )
        self.duration = Histogram(
            "cortex_frontend_query_range_duration_seconds", "Time that queries took.", ("method",), registry=registry
        )
