"""`Found`: what matchers select in a block, as columns; kept by what was asked (`FoundCache`)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.matchers import Matcher

from .label_sets import LabelSets

FoundKey = tuple[str, tuple[Matcher, ...]]
"""Tenant and block, and what was asked of it."""
_ENTRY_BYTES = 1000


@dataclass(slots=True)
class Found:
    """S series in the order of the block, that of their label sets, and their chunks.

    `offsets`: int64[S + 1], rows of `mints`, `maxts`, `references` (int64[C], of chunks).
    """

    labels: LabelSets
    offsets: NDArray[np.int64]
    mints: NDArray[np.int64]
    maxts: NDArray[np.int64]
    references: NDArray[np.int64]
    _hashes: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def nothing(cls) -> Found:
        """No series."""
        zero, none, numbers = np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0, np.int32)
        return cls(LabelSets(np.empty(0, np.uint8), zero, zero, numbers, numbers), zero, none, none, none)

    @property
    def bytes(self) -> int:
        """Memory that it takes, hashes included, which are made when somebody asks for them."""
        chunks = sum(one.nbytes for one in (self.offsets, self.mints, self.maxts, self.references))
        return self.labels.nbytes + chunks + 8 * len(self) + _ENTRY_BYTES

    def hashes(self) -> NDArray[np.uint64]:
        """uint64[S]: labels.StableHash of each series."""
        if self._hashes is None:
            self._hashes = self.labels.hashes()
        return self._hashes


@dataclass(slots=True)
class FoundCache:
    """Selections of blocks by what was asked, within a bound. Thread-safe."""

    bytes_max: int
    observe: Callable[[bool], None] = lambda _hit: None
    bytes: int = 0
    _kept: OrderedDict[FoundKey, tuple[Found, int]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: FoundKey) -> Found | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
        self.observe(kept is not None)
        return kept[0] if kept is not None else None

    def put(self, key: FoundKey, found: Found) -> None:
        size = found.bytes
        if size > self.bytes_max // 2:
            return  # it would push out everything else
        with self._lock:
            before = self._kept.pop(key, None)
            self.bytes += size - (before[1] if before else 0)
            self._kept[key] = found, size
            while self.bytes > self.bytes_max:
                _, (_, gone) = self._kept.popitem(last=False)
                self.bytes -= gone
