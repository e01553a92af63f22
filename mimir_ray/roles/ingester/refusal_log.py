"""Refused samples in the log: one of many. Upstream: pkg/util/log/sampler.go."""

from __future__ import annotations

import threading

import structlog

from mimir_ray.roles.api import Refusal

log = structlog.get_logger(__name__)


class RefusalLog:
    """Thread-safe. Of each reason the first, and then every `rate`th."""

    def __init__(self, rate: int) -> None:
        """`rate`: 0 and 1 log all."""
        self._rate = max(1, rate)
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}

    def note(self, tenant: str, refusal: Refusal) -> bool:
        """Logs it if it is its turn; whether it was."""
        with self._lock:
            count = self._seen.get(refusal.reason, 0)
            self._seen[refusal.reason] = count + 1
        if count % self._rate:
            return False
        log.warning(
            "samples refused",
            user=tenant,
            reason=refusal.reason,
            count=refusal.count,
            series=refusal.series,
            timestamp=refusal.timestamp,
            sampled=f"1/{self._rate}",
        )
        return True
