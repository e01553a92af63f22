"""What RE2 said of values, so that it is asked once for the many blocks that have the same values.

Only for patterns without tables (regex_automaton.py): those judge faster than anything could be looked up. A pattern
has a hash table of the values that were judged, confirmed on their bytes; patterns that were not asked for lately go
when all take more than their bound.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes, equal_bytes
from mimir_ray.encoding.hashing import hash64, hash_seeds
from mimir_ray.kernel import I64, U8, OutI32, OutI64, OutU8, kernel

VERDICTS_BYTES_MAX = 64 << 20
Judge = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""Which of the values data[starts[i]:ends[i]] the pattern accepts; the arguments are starts and ends."""
_SEED0, _SEED1 = (int(seed >> np.uint64(1)) for seed in hash_seeds()[:2])


@kernel
def find_judged(
    data: U8, starts: I64, ends: I64, seed0: int, seed1: int, arena: U8, cuts: I64, slots: OutI32, found: OutI64
) -> int:
    """found[i]: which of the V strings arena[cuts[v]:cuts[v + 1]] the value data[starts[i]:ends[i]] is, -1 for none.

    `slots`: v + 1 of the strings by hash, 0 where it is free; a power of two. Returns how many are none of them.
    """
    mask = np.int64(len(slots) - 1)
    missing = 0
    for i in range(len(starts)):
        size = ends[i] - starts[i]
        slot = np.int64(hash64(data, starts[i], ends[i], np.uint64(seed0), np.uint64(seed1))) & mask
        found[i] = -1
        while slots[slot] != 0:
            known = np.int64(slots[slot]) - 1
            if cuts[known + 1] - cuts[known] == size and equal_bytes(data, starts[i], arena, cuts[known], size):
                found[i] = known
                break
            slot = (slot + 1) & mask
        missing += found[i] < 0
    return missing


@kernel
def add_judged(
    data: U8, starts: I64, ends: I64, seed0: int, seed1: int, first: int, arena: OutU8, cuts: OutI64, slots: OutI32
) -> None:
    """Adds values, different ones that are not there yet, as strings `first` and what follows; there is room."""
    mask = np.int64(len(slots) - 1)
    for i in range(len(starts)):
        copy_bytes(arena, cuts[first + i], data, starts[i], ends[i] - starts[i])
        cuts[first + i + 1] = cuts[first + i] + ends[i] - starts[i]
        slot = np.int64(hash64(data, starts[i], ends[i], np.uint64(seed0), np.uint64(seed1))) & mask
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = first + i + 1


class _Pattern:
    """The judged values of one pattern; under its lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bytes = 0
        self.arena, self.cuts = np.empty(0, np.uint8), np.zeros(1, np.int64)
        self.verdicts, self.slots = np.empty(0, np.bool_), np.zeros(16, np.int32)

    def accepted(
        self, data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], judge: Judge
    ) -> tuple[NDArray[np.bool_], int]:
        """(which of the values, different ones, the pattern accepts; how many had to be judged)"""
        found = np.empty(len(starts), np.int64)
        missing = find_judged(data, starts, ends, _SEED0, _SEED1, self.arena, self.cuts, self.slots, found)
        if missing:
            rows = np.flatnonzero(found < 0)
            known = len(self.verdicts)
            self._add(data, starts[rows], ends[rows], judge(starts[rows], ends[rows]))
            found[rows] = np.arange(known, known + missing)
        return self.verdicts[found], missing

    def _add(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        verdicts: NDArray[np.bool_],
    ) -> None:
        known, count = len(self.verdicts), len(self.verdicts) + len(starts)
        arena, cuts = np.empty(int(self.cuts[-1] + (ends - starts).sum()), np.uint8), np.zeros(count + 1, np.int64)
        slots = self.slots
        if 2 * count > len(slots):
            slots = np.zeros(1 << (4 * count).bit_length(), np.int32)
            add_judged(self.arena, self.cuts[:-1], self.cuts[1:], _SEED0, _SEED1, 0, arena, cuts, slots)
        else:
            arena[: len(self.arena)], cuts[: known + 1] = self.arena, self.cuts
        add_judged(data, starts, ends, _SEED0, _SEED1, known, arena, cuts, slots)
        self.arena, self.cuts, self.slots = arena, cuts, slots
        self.verdicts = np.concatenate((self.verdicts, verdicts))
        self.bytes = sum(one.nbytes for one in (self.arena, self.cuts, self.slots, self.verdicts))


class RegexVerdicts:
    """Of the patterns that were asked for last, within a bound. Thread-safe; who wants the values of a pattern that are
    just being judged waits for them."""

    def __init__(
        self,
        bytes_max: int = VERDICTS_BYTES_MAX,
        observe: Callable[[int, int], None] = lambda _requests, _hits: None,
    ) -> None:
        """`observe(requests, hits)`: hears of every look-up, in values."""
        self._bytes_max = bytes_max
        self._observe = observe
        self._lock = threading.Lock()
        self._patterns: OrderedDict[str, _Pattern] = OrderedDict()
        self.evicted = 0

    @property
    def bytes(self) -> int:
        with self._lock:
            return sum(one.bytes for one in self._patterns.values())

    def accepted(
        self,
        pattern: str,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        judge: Judge,
    ) -> NDArray[np.bool_]:
        """bool[N]: which of the values data[starts[i]:ends[i]], all different, the pattern accepts; `judge` says so of
        those that nobody asked for before."""
        with self._lock:
            mine = self._patterns.setdefault(pattern, _Pattern())
            self._patterns.move_to_end(pattern)
        with mine.lock:
            fits, judged = mine.accepted(data, starts, ends, judge)
        self._observe(len(starts), len(starts) - judged)
        if judged:
            self._shrink()
        return fits

    def _shrink(self) -> None:
        with self._lock:
            total = sum(one.bytes for one in self._patterns.values())
            while total > self._bytes_max:
                _, gone = self._patterns.popitem(last=False)
                total -= gone.bytes
                self.evicted += 1
