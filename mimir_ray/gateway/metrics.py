"""What the HTTP server tells about itself, under Mimir's names (dskit/server)."""

from __future__ import annotations

import re
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram

_PARAMETER = re.compile(r"<(\w+)[^>]*>")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)


class GatewayMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._duration = Histogram(
            "cortex_request_duration_seconds",
            "Time spent serving HTTP requests.",
            ("method", "route", "status_code", "ws"),
            buckets=BUCKETS,
            registry=registry,
        )
        self.inflight = Gauge("cortex_inflight_requests", "HTTP requests under way.", registry=registry)
        self._children: dict[tuple[str, str, int], Any] = {}

    def observe(self, method: str, template: str, status: int, seconds: float) -> None:
        """Counts an answered request; `template` is the route's path with its parameters' names."""
        key = method, template, status
        child = self._children.get(key)
        if child is None:
            route = _PARAMETER.sub(r"\1", template.strip("/")).replace("/", "_") or "root"
            child = self._children[key] = self._duration.labels(method, route, str(status), "false")
        child.observe(seconds)
