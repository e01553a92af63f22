"""Symbols and postings offset table of an index where they lie: walked once, then looked into by position.

No string is copied and no column made: a walk checks the bytes and remembers where each entry is, 4 bytes an entry.
Readers come back to the same bytes and check lengths again: who changes a mapped file may spoil answers, not memory.
Format: prometheus/tsdb/docs/format/index.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mimir_ray.encoding.bits import equal_bytes, load64_be
from mimir_ray.encoding.varint import read_uvarint
from mimir_ray.kernel import I64, U8, U32, OutBool, OutI64, OutU32, device, kernel

MALFORMED = 1
DISORDERED = 2
CODES = 3
"""Of damage: a walk returns -(CODES * entry + what)."""
READ_AHEAD_BYTES = 8
"""So many bytes must follow what strings are compared in; a section has a checksum and the table of contents behind."""


@device
def _compare(data: Any, start: Any, size: Any, other: Any, other_start: Any, other_size: Any) -> Any:
    """Below 0 where data[start:start + size] comes before the other bytes, 0 where they are equal."""
    shared = min(size, other_size)
    at = np.int64(0)
    while at < shared:
        one, two = load64_be(data, start + at), load64_be(other, other_start + at)
        left = shared - at
        if left < 8:
            unwanted = np.uint64(64 - 8 * left)
            one, two = one >> unwanted, two >> unwanted
        if one != two:
            return np.int64(-1) if one < two else np.int64(1)
        at += 8
    return size - other_size


@device
def _string(data: Any, base: Any, place: Any, end: Any) -> Any:
    """(first byte, size, position after it) of a string with its length before it, cut off at `end`."""
    size, start, code = read_uvarint(data, base + np.int64(place), end)
    if code != 0:
        return end, np.int64(0), end
    length = np.int64(min(size, np.uint64(end - start)))
    return start, length, start + length


@kernel
def walk_strings(data: U8, first: int, end: int, places: OutU32) -> int:
    """Finds len(places) strings, each with its length before it, from data[first]: places[i] is how far behind that its
    length is (sections are shorter than 4 GiB).

    Returns where they end, or -1 where one does not end before `end`.
    """
    at = first
    for i in range(len(places)):
        places[i] = at - first
        size, code = np.uint64(data[at]) if at < end else np.uint64(0x80), 0
        at += 1
        if size >= np.uint64(0x80):
            size, at, code = read_uvarint(data, at - 1, end)
        if code != 0 or size > np.uint64(end - at):
            return -1
        at += np.int64(size)
    return at


@kernel
def walk_table(
    data: U8, first: int, end: int, tail: int, places: OutU32, firsts: OutI64, names: OutU32, ascending: OutBool
) -> int:
    """Finds the entries of a postings offset table, which has to be in order of (name, value), each pair once.

    Args:
        data: the index; the table is data[first:end], and `READ_AHEAD_BYTES` follow.
        tail: where the last list has to end.
        places: uint32[P], written: how far behind `first` each entry's value is, its length first, its list behind it.
        firsts, names: as long, written: of each name the first entry, and how far behind `first` the name's length is.
        ascending: bool[1], written: whether the lists lie in the order of the table.

    Returns how many names there are, or -(CODES * p + what) for damage of entry p.
    """
    at = first
    count = 0
    name = name_size = value = value_size = np.int64(0)
    last = np.int64(-1)
    ascending[0] = True
    # Nearly all lengths are of one byte: that is looked at here, as a call for each takes half of the time.
    for p in range(len(places)):
        strings, size, code = np.uint64(0), np.uint64(0), 0
        if end - at >= 2:
            strings, size = np.uint64(data[at]), np.uint64(data[at + 1])
        name_at = at + 1
        at += 2
        if strings != np.uint64(2) or size >= np.uint64(0x80):
            strings, name_at, code = read_uvarint(data, at - 2, end)
            size, at, other = read_uvarint(data, name_at, end)
            code |= other
        if code != 0 or strings != np.uint64(2) or size > np.uint64(end - at):
            return -(CODES * p + MALFORMED)
        same = p > 0 and name_size == np.int64(size) and equal_bytes(data, name, data, at, name_size)
        if not same:
            if p > 0 and _compare(data, name, name_size, data, at, np.int64(size)) > 0:
                return -(CODES * p + DISORDERED)
            firsts[count] = p
            names[count] = name_at - first
            count += 1
        name, name_size = at, np.int64(size)
        at += name_size
        places[p] = at - first
        size = np.uint64(data[at]) if at < end else np.uint64(0x80)
        at += 1
        if size >= np.uint64(0x80):
            size, at, code = read_uvarint(data, at - 1, end)
        if code != 0 or size > np.uint64(end - at):
            return -(CODES * p + MALFORMED)
        if same and _compare(data, value, value_size, data, at, np.int64(size)) >= 0:
            return -(CODES * p + DISORDERED)
        value, value_size = at, np.int64(size)
        offset, at, code = read_uvarint(data, at + value_size, end)
        if code != 0 or offset >= np.uint64(len(data)):
            return -(CODES * p + MALFORMED)
        if np.int64(offset) <= last:
            ascending[0] = False
        last = np.int64(offset)
    if last >= tail:
        ascending[0] = False
    return count


@device
def _first_not_before(
    data: Any, base: Any, places: Any, end: Any, low: Any, high: Any, value: Any, start: Any, size: Any
) -> Any:
    while low < high:
        middle = (low + high) // 2
        at, length, _ = _string(data, base, places[middle], end)
        if _compare(data, at, length, value, start, size) < 0:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def find_values(
    data: U8, base: int, places: U32, end: int, first: int, last: int, values: U8, cuts: I64, found: OutI64
) -> int:
    """Of entries first..last - 1, whose values ascend, those of the wanted values.

    Args:
        values, cuts: wanted is values[cuts[v]:cuts[v + 1]] (int64[V + 1]), and `READ_AHEAD_BYTES` follow; ascending.
        found: int64[V], written; returns how many there are.
    """
    count = 0
    low = first
    for v in range(len(cuts) - 1):
        size = cuts[v + 1] - cuts[v]
        low = _first_not_before(data, base, places, end, low, last, values, cuts[v], size)
        if low == last:
            break
        at, length, _ = _string(data, base, places[low], end)
        if _compare(data, at, length, values, cuts[v], size) == 0:
            found[count] = low
            count += 1
    return count


@kernel
def find_prefix(
    data: U8, base: int, places: U32, end: int, first: int, last: int, prefix: U8, size: int, bounds: OutI64
) -> None:
    """Of entries first..last - 1, whose values ascend, those bounds[0]..bounds[1] - 1 that begin with prefix[:size];
    bounds[2] is the first that is longer. `READ_AHEAD_BYTES` of `prefix` follow."""
    low = _first_not_before(data, base, places, end, first, last, prefix, 0, size)
    high = last
    bounds[0] = bounds[2] = low
    if low < last:
        at, length, _ = _string(data, base, places[low], end)
        if length == size and _compare(data, at, length, prefix, 0, size) == 0:
            bounds[2] = low + 1
    while low < high:
        middle = (low + high) // 2
        at, length, _ = _string(data, base, places[middle], end)
        if _compare(data, at, min(length, size), prefix, 0, size) == 0:
            low = middle + 1
        else:
            high = middle
    bounds[1] = low


@kernel
def string_bounds(data: U8, base: int, places: U32, end: int, wanted: I64, starts: OutI64, ends: OutI64) -> int:
    """Where the wanted strings are: data[starts[i]:ends[i]]; returns their bytes."""
    total = 0
    for i in range(len(wanted)):
        start, size, after = _string(data, base, places[wanted[i]], end)
        starts[i] = start
        ends[i] = after
        total += size
    return total


@kernel
def list_bounds(
    data: U8, base: int, places: U32, end: int, wanted: I64, tail: int, starts: OutI64, ends: OutI64
) -> int:
    """Where the postings lists of the wanted entries are, if lists lie in the order of the table.

    `tail`: where the last list ends at the latest. Returns how many bytes they take at most.
    """
    total = 0
    for i in range(len(wanted)):
        p = wanted[i]
        _, _, after = _string(data, base, places[p], end)
        offset, _, _ = read_uvarint(data, after, end)
        starts[i] = min(np.int64(offset), np.int64(len(data)))
        ends[i] = tail
        if p + 1 < len(places):
            _, _, after = _string(data, base, places[p + 1], end)
            offset, _, _ = read_uvarint(data, after, end)
            ends[i] = min(np.int64(offset), np.int64(len(data)))
        ends[i] = max(starts[i], ends[i])
        total += ends[i] - starts[i]
    return total
