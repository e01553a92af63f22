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


class EwmaRate:
    """Items a second, as an exponentially weighted moving average over ticks of a second.

    Upstream: pkg/util/math/rate.go, with alpha 0.2. Ticks are counted when somebody asks.
    """

    __slots__ = ("_items", "_rate", "_tick")

    ALPHA = 0.2

    def __init__(self) -> None:
        self._items = 0
        self._rate: float | None = None
        self._tick: int | None = None

    def add(self, items: int, now_s: float) -> None:
        self._advance(now_s)
        self._items += items

    def rate(self, now_s: float) -> float:
        self._advance(now_s)
        return self._rate or 0.0

    def _advance(self, now_s: float) -> None:
        tick = int(now_s)
        passed = 0 if self._tick is None else tick - self._tick
        self._tick = tick
        if passed <= 0:
            return
        if self._rate is None:
            self._rate = float(self._items)
        else:
            self._rate += self.ALPHA * (self._items - self._rate)
        self._items = 0
        self._rate *= (1 - self.ALPHA) ** (passed - 1)
