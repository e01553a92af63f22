"""Token buckets: how many requests and samples a second a tenant may send to this distributor."""

from __future__ import annotations


class TokenBucket:
    """Fills with `rate` tokens a second up to `burst`; starts full.

    Upstream: golang.org/x/time/rate. Rate and burst may change with every call, as limits are reloaded.
    """

    __slots__ = ("_at_s", "_tokens")

    def __init__(self) -> None:
        self._tokens: float | None = None
        self._at_s = 0.0

    def take(self, amount: int, rate: float, burst: float, now_s: float) -> bool:
        """Takes all of `amount` or nothing; False if there is less, or if it is more than ever fits."""
        if self._tokens is None:
            self._tokens = burst
        else:
            self._tokens = min(burst, self._tokens + max(0.0, now_s - self._at_s) * rate)
        self._at_s = now_s
        if amount > self._tokens:
            return False
        self._tokens -= amount
        return True
