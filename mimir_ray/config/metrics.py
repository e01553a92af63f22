"""Metrics of the runtime configuration."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge


class RuntimeConfigMetrics:
    """Whether the last reload worked, and which content is in force.

    Upstream: dskit runtimeconfig/manager.go.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.last_reload_successful = Gauge(
            "cortex_runtime_config_last_reload_successful",
            "Whether the last attempt to load the runtime configuration worked.",
            registry=registry,
        )
        self._hash = Gauge(
            "cortex_runtime_config_hash",
            "The runtime configuration in force, by the hash of its text.",
            ["sha256"],
            registry=registry,
        )

    def loaded(self, sha256: str) -> None:
        self.last_reload_successful.set(1)
        self._hash.clear()
        self._hash.labels(sha256).set(1)

    def failed(self) -> None:
        self.last_reload_successful.set(0)
