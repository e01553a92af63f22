"""Groups of equal label codes: a hash index over rows of integers that lasts from batch to batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I32, Bool2, I32x2, OutBool2, OutI32, OutI32x2, OutI64, device, kernel

_EMPTY = -1


@device
def _hash_row(codes, row, mask):  # type: ignore[no-untyped-def]
    mixed = np.uint64(0x9E3779B97F4A7C15)
    for column in range(codes.shape[1]):
        mixed = (mixed ^ np.uint64(codes[row, column])) * np.uint64(0xFF51AFD7ED558CCD)
        mixed ^= mixed >> np.uint64(32)
    return np.int64(mixed & np.uint64(mask))


@kernel
def index_rows(codes: I32x2, keys: OutI32x2, slots: OutI32, count: int, groups: OutI32) -> int:
    """Gives every row the number of its key, a new number to a key never seen.

    Args:
        codes: int32[S, K].
        keys: int32[>= count + S, K]; the first `count` are known, new ones are appended.
        slots: int32[power of two >= 2 * (count + S)], -1 or a key's number.
        groups: int32[S], written.

    Returns the new count.
    """
    mask = len(slots) - 1
    width = codes.shape[1]
    for row in range(codes.shape[0]):
        slot = _hash_row(codes, row, mask)
        while True:
            group = slots[slot]
            if group == _EMPTY:
                group = np.int32(count)
                slots[slot] = group
                for column in range(width):
                    keys[count, column] = codes[row, column]
                count += 1
                break
            same = True
            for column in range(width):
                if keys[group, column] != codes[row, column]:
                    same = False
                    break
            if same:
                break
            slot = (slot + 1) & mask
        groups[row] = group
    return count


@kernel
def find_rows(codes: I32x2, keys: I32x2, slots: I32, groups: OutI32) -> None:
    """Gives every row the number of its key, -1 where `index_rows` never saw it."""
    mask = len(slots) - 1
    width = codes.shape[1]
    for row in range(codes.shape[0]):
        slot = _hash_row(codes, row, mask)
        while True:
            group = slots[slot]
            if group == _EMPTY:
                break
            same = True
            for column in range(width):
                if keys[group, column] != codes[row, column]:
                    same = False
                    break
            if same:
                break
            slot = (slot + 1) & mask
        groups[row] = group


class RowIndex:
    """Numbers distinct rows of K codes in order of first sight."""

    __slots__ = ("_keys", "_slots", "count")

    def __init__(self, width: int) -> None:
        self.count = 0
        self._keys = np.empty((16, width), np.int32)
        self._slots = np.full(32, _EMPTY, np.int32)

    @property
    def keys(self) -> NDArray[np.int32]:
        """int32[count, K]: the distinct rows."""
        return self._keys[: self.count]

    def add(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """int32[S]: the number of each row of `codes` (int32[S, K])."""
        groups = np.empty(len(codes), np.int32)
        if codes.shape[1] == 0:
            groups[:] = 0
            self.count = max(self.count, min(1, len(codes)))
            return groups
        self._make_room(len(codes))
        self.count = index_rows(np.ascontiguousarray(codes), self._keys, self._slots, self.count, groups)
        return groups

    def find(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """int32[S]: the number of each row, -1 for a row never added."""
        groups = np.empty(len(codes), np.int32)
        if codes.shape[1] == 0:
            groups[:] = 0 if self.count else -1
            return groups
        find_rows(np.ascontiguousarray(codes), self._keys, self._slots, groups)
        return groups

    def _make_room(self, more: int) -> None:
        wanted = self.count + more
        if len(self._keys) >= wanted:
            return
        capacity = 1 << (wanted - 1).bit_length()
        old = self.keys
        self._keys = np.empty((capacity, old.shape[1]), np.int32)
        self._slots = np.full(2 * capacity, _EMPTY, np.int32)
        # The old keys are distinct, so they get their old numbers back.
        index_rows(np.ascontiguousarray(old), self._keys, self._slots, 0, np.empty(self.count, np.int32))


@kernel
def presence_by_group(present: Bool2, groups: I32, out: OutBool2) -> None:
    """Sets out[groups[s], t] where series s is present at t."""
    for s in range(present.shape[0]):
        group = groups[s]
        for t in range(present.shape[1]):
            if present[s, t]:
                out[group, t] = True


@kernel
def rows_by_group(groups: I32, starts: OutI64, rows: OutI64) -> None:
    """Lists the rows of each group, in order.

    Args:
        groups: int32[S] in 0..G-1.
        starts: int64[G + 1], zeros, written: group g has rows[starts[g]:starts[g + 1]].
        rows: int64[S], written.
    """
    for s in range(len(groups)):
        starts[groups[s] + 1] += 1
    for g in range(len(starts) - 1):
        starts[g + 1] += starts[g]
    for s in range(len(groups)):
        rows[starts[groups[s]]] = s
        starts[groups[s]] += 1
    for g in range(len(starts) - 1, 0, -1):
        starts[g] = starts[g - 1]
    starts[0] = 0
