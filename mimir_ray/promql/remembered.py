"""`Remembered`: the last so many of something that is made from a key, for several threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from mimir_ray.telemetry.caches import CacheStats

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Bounded by number, least recently used first out. What is kept must be immutable."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()
        self._requests = self._hits = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def stats(self) -> CacheStats:
        return CacheStats(self._requests, self._hits, len(self._values))

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of the key, made where it is not known. Raises what `make` raises, and keeps nothing then."""
        with self._lock:
            self._requests += 1
            value = self._values.get(key)
            if value is not None:
                self._hits += 1
                self._values.move_to_end(key)
                return value
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value
