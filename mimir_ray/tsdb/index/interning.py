"""Kernels that turn label bytes into series references: symbols, pairs and series in hash tables.

A string is a *symbol* (dense id, bytes in one arena). A (name, value) is a *pair* (dense id). A series is its
row of pair ids, in the order of the names, in a CSR. All three are found by seeded hashes (senders may be
hostile) in open-addressed tables of `id + 1` (0: free) and confirmed on what they stand for. Tables and columns
grow outside: a kernel that might run out of room stops before the series that needs it and is called again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mimir_ray.encoding.bits import copy_bytes, equal_bytes, multiply_128
from mimir_ray.encoding.hashing import hash64, xxhash64
from mimir_ray.encoding.varint import read_uvarint
from mimir_ray.kernel import (
    I32,
    I64,
    U8,
    U64,
    Bool,
    OutBool,
    OutI32,
    OutI64,
    OutU8,
    OutU64,
    device,
    kernel,
)

# Positions in `used` (int64[8]): how much of each growing thing is in use.
SYMBOLS = 0
BYTES = 1
PAIRS = 2
NAMES = 3
SERIES = 4
CELLS = 5
LIVE = 6
CREATED = 7
USED_LENGTH = 8

OVER_USER_LIMIT = -1
OVER_METRIC_LIMIT = -2

METRIC_NAME_ID = 0
"""The name id of `__name__`: SeriesIndex interns it first."""


@device
def _mix(left: Any, right: Any) -> Any:
    high, low = multiply_128(left ^ np.uint64(0x9E3779B97F4A7C15), right ^ np.uint64(0xD6E8FEB86659FD93))
    return high ^ low


@device
def _parse(data: Any, start: Any, end: Any, cuts: Any) -> Any:
    """Cuts one label section: cuts[4 k:4 k + 4] = name start, name end, value start, value end of label k.

    Returns the number of labels, -1 where the bytes are no label section (or have more labels than `cuts` has room).
    """
    at = start
    count = np.int64(0)
    while at < end:
        if data[at] != 0x0A:
            return np.int64(-1)
        length, at, code = read_uvarint(data, at + 1, end)
        if code != 0 or length > np.uint64(end - at):
            return np.int64(-1)
        label_end = at + np.int64(length)
        if 4 * count + 4 > len(cuts):
            return np.int64(-1)
        cuts[4 * count] = cuts[4 * count + 1] = cuts[4 * count + 2] = cuts[4 * count + 3] = at
        while at < label_end:
            tag = data[at]
            if tag != 0x0A and tag != 0x12:
                return np.int64(-1)
            length, at, code = read_uvarint(data, at + 1, label_end)
            if code != 0 or length > np.uint64(label_end - at):
                return np.int64(-1)
            field = 4 * count + (0 if tag == 0x0A else 2)
            cuts[field] = at
            at += np.int64(length)
            cuts[field + 1] = at
        count += 1
    return count


@kernel
def check_labels(data: U8, offsets: I64) -> int:
    """The most labels that a section data[offsets[r]:offsets[r + 1]] has, or -(r + 1) where one is malformed."""
    most = np.int64(0)
    longest = np.int64(0)
    for r in range(len(offsets) - 1):
        if offsets[r] < 0 or offsets[r + 1] < offsets[r] or offsets[r + 1] > len(data):
            return -(r + 1)
        longest = max(longest, offsets[r + 1] - offsets[r])
    cuts = np.empty(2 * longest + 4, np.int64)  # a label takes two bytes at least
    for r in range(len(offsets) - 1):
        count = _parse(data, offsets[r], offsets[r + 1], cuts)
        if count < 0:
            return -(r + 1)
        most = max(most, count)
    return most


@device
def _find_symbol(data: Any, start: Any, end: Any, key: Any, table: Any, arena: Any, cuts: Any) -> Any:
    """(slot, symbol id or -1 if the slot is free)."""
    mask = np.uint64(len(table) - 1)
    slot = key & mask
    while table[slot] != 0:
        symbol = np.int64(table[slot]) - 1
        length = cuts[symbol + 1] - cuts[symbol]
        if length == end - start and equal_bytes(data, start, arena, cuts[symbol], length):
            return slot, symbol
        slot = (slot + np.uint64(1)) & mask
    return slot, np.int64(-1)


@device
def _intern_symbol(data: Any, start: Any, end: Any, key: Any, table: Any, arena: Any, cuts: Any, used: Any) -> Any:
    slot, symbol = _find_symbol(data, start, end, key, table, arena, cuts)
    if symbol < 0:
        symbol = used[SYMBOLS]
        copy_bytes(arena, used[BYTES], data, start, end - start)
        used[BYTES] += end - start
        used[SYMBOLS] = symbol + 1
        cuts[symbol + 1] = used[BYTES]
        table[slot] = np.int32(symbol + 1)
    return symbol


@device
def _find_pair(
    data: Any, cut: Any, name_start: Any, name_end: Any, value_start: Any, value_end: Any, table: Any,
    pair_names: Any, pair_values: Any, name_symbols: Any, arena: Any,
) -> Any:  # fmt: skip
    """(slot, pair id or -1); `cut` is (hash of the pair, symbol cuts)."""
    key, cuts = cut
    mask = np.uint64(len(table) - 1)
    slot = key & mask
    while table[slot] != 0:
        pair = np.int64(table[slot]) - 1
        value = np.int64(pair_values[pair])
        length = cuts[value + 1] - cuts[value]
        if length == value_end - value_start and equal_bytes(data, value_start, arena, cuts[value], length):
            name = np.int64(name_symbols[pair_names[pair]])
            length = cuts[name + 1] - cuts[name]
            if length == name_end - name_start and equal_bytes(data, name_start, arena, cuts[name], length):
                return slot, pair
        slot = (slot + np.uint64(1)) & mask
    return slot, np.int64(-1)


@device
def _row_hash(row: Any, start: Any, end: Any, seed: Any) -> Any:
    key = seed
    for at in range(start, end):
        key = _mix(key, np.uint64(row[at]) + seed)
    return key


@kernel
def intern_series(
    data: U8,
    offsets: I64,
    first: int,
    labels_max: int,
    series_max: int,
    metric_series_max: int,
    seed0: int,
    seed1: int,
    used: OutI64,
    arena: OutU8,
    symbol_cuts: OutI64,
    symbol_names: OutI32,
    symbol_table: OutI32,
    pair_names: OutI32,
    pair_values: OutI32,
    pair_previous: OutI32,
    pair_series: OutI32,
    pair_table: OutI32,
    name_symbols: OutI32,
    name_heads: OutI32,
    name_pairs: OutI32,
    row_offsets: OutI64,
    cells: OutI32,
    series_hashes: OutI32,
    series_table: OutI32,
    dropped: OutBool,
    references: OutI32,
    created: OutI32,
) -> int:
    """Finds or makes series first..R - 1 of R label sections that `check_labels` has accepted.

    Args:
        labels_max: what `check_labels` returned.
        series_max, metric_series_max: live series there may be, in all and with one metric name; 0: any.
        used and what follows: see `SeriesIndex`.
        references: int32[R], the series, or OVER_USER_LIMIT, OVER_METRIC_LIMIT.
        created: int32[R], which r made a series; used[CREATED] counts them.

    Returns R, or the r that needs more room than there is.
    """
    cuts = np.empty(4 * labels_max + 4, np.int64)
    row = np.empty(labels_max + 1, np.int32)
    key0 = np.uint64(seed0)
    key1 = np.uint64(seed1)
    for r in range(first, len(offsets) - 1):
        start = offsets[r]
        end = offsets[r + 1]
        count = _parse(data, start, end, cuts)
        symbols = used[SYMBOLS] + 2 * count
        pairs = used[PAIRS] + count
        if (
            symbols + 1 > min(len(symbol_cuts) - 1, len(symbol_names))
            or symbols * 3 >= 2 * len(symbol_table)
            or used[BYTES] + end - start > len(arena)
            or pairs > min(len(pair_names), len(pair_values), len(pair_previous), len(pair_series))
            or pairs * 3 >= 2 * len(pair_table)
            or used[NAMES] + count > min(len(name_symbols), len(name_heads), len(name_pairs))
            or used[SERIES] + 1 > min(len(row_offsets) - 1, len(series_hashes), len(dropped))
            or (used[SERIES] + 1) * 3 >= 2 * len(series_table)
            or used[CELLS] + count > len(cells)
        ):
            return r
        metric = np.int64(-1)
        for k in range(count):
            name_start, name_end = cuts[4 * k], cuts[4 * k + 1]
            value_start, value_end = cuts[4 * k + 2], cuts[4 * k + 3]
            name_key = hash64(data, name_start, name_end, key0, key1)
            value_key = hash64(data, value_start, value_end, key0, key1)
            slot, pair = _find_pair(
                data, (_mix(name_key, value_key), symbol_cuts), name_start, name_end, value_start, value_end,
                pair_table, pair_names, pair_values, name_symbols, arena,
            )  # fmt: skip
            if pair < 0:
                symbol = _intern_symbol(data, name_start, name_end, name_key, symbol_table, arena, symbol_cuts, used)
                value = _intern_symbol(data, value_start, value_end, value_key, symbol_table, arena, symbol_cuts, used)
                name = np.int64(symbol_names[symbol]) - 1
                if name < 0:
                    name = used[NAMES]
                    used[NAMES] = name + 1
                    symbol_names[symbol] = np.int32(name + 1)
                    name_symbols[name] = np.int32(symbol)
                    name_heads[name] = -1
                    name_pairs[name] = 0
                pair = used[PAIRS]
                used[PAIRS] = pair + 1
                pair_names[pair] = np.int32(name)
                pair_values[pair] = np.int32(value)
                pair_previous[pair] = name_heads[name]
                pair_series[pair] = 0
                name_heads[name] = np.int32(pair)
                name_pairs[name] += 1
                pair_table[slot] = np.int32(pair + 1)
            if pair_names[pair] == METRIC_NAME_ID:
                metric = pair
            row[k] = np.int32(pair)
        key = _row_hash(row, 0, count, key0)
        tag = np.int32(np.int64(key >> np.uint64(33)))
        mask = np.uint64(len(series_table) - 1)
        slot = key & mask
        found = np.int64(-1)
        while series_table[slot] != 0:
            series = np.int64(series_table[slot]) - 1
            if series_hashes[series] == tag and not dropped[series]:
                at = row_offsets[series]
                if row_offsets[series + 1] - at == count:
                    same = True
                    for k in range(count):
                        if cells[at + k] != row[k]:
                            same = False
                            break
                    if same:
                        found = series
                        break
            slot = (slot + np.uint64(1)) & mask
        if found < 0:
            if series_max > 0 and used[LIVE] >= series_max:
                references[r] = OVER_USER_LIMIT
                continue
            if metric_series_max > 0 and metric >= 0 and pair_series[metric] >= metric_series_max:
                references[r] = OVER_METRIC_LIMIT
                continue
            found = used[SERIES]
            used[SERIES] = found + 1
            used[LIVE] += 1
            at = used[CELLS]
            for k in range(count):
                cells[at + k] = row[k]
                pair_series[row[k]] += 1
            used[CELLS] = at + count
            row_offsets[found + 1] = at + count
            series_hashes[found] = tag
            dropped[found] = False
            series_table[slot] = np.int32(found + 1)
            created[used[CREATED]] = np.int32(r)
            used[CREATED] += 1
        references[r] = np.int32(found)
    return len(offsets) - 1


@kernel
def rebuild_symbol_table(count: int, seed0: int, seed1: int, arena: U8, cuts: I64, table: OutI32) -> None:
    """Puts symbols 0..count - 1 into an empty table."""
    mask = np.uint64(len(table) - 1)
    for symbol in range(count):
        slot = hash64(arena, cuts[symbol], cuts[symbol + 1], np.uint64(seed0), np.uint64(seed1)) & mask
        while table[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = np.int32(symbol + 1)


@kernel
def rebuild_pair_table(
    count: int, seed0: int, seed1: int, arena: U8, cuts: I64, names: I32, values: I32, name_symbols: I32, table: OutI32
) -> None:
    """Puts pairs 0..count - 1 into an empty table."""
    mask = np.uint64(len(table) - 1)
    for pair in range(count):
        name = np.int64(name_symbols[names[pair]])
        value = np.int64(values[pair])
        name_key = hash64(arena, cuts[name], cuts[name + 1], np.uint64(seed0), np.uint64(seed1))
        value_key = hash64(arena, cuts[value], cuts[value + 1], np.uint64(seed0), np.uint64(seed1))
        slot = _mix(name_key, value_key) & mask
        while table[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = np.int32(pair + 1)


@kernel
def rebuild_series_table(
    count: int, seed0: int, row_offsets: I64, cells: I32, dropped: Bool, hashes: OutI32, table: OutI32
) -> None:
    """Puts the live ones of series 0..count - 1 into an empty table; dropped ones can no longer be found."""
    mask = np.uint64(len(table) - 1)
    for series in range(count):
        if dropped[series]:
            continue
        key = _row_hash(cells, row_offsets[series], row_offsets[series + 1], np.uint64(seed0))
        hashes[series] = np.int32(np.int64(key >> np.uint64(33)))
        slot = key & mask
        while table[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = np.int32(series + 1)


@kernel
def find_symbol(data: U8, seed0: int, seed1: int, arena: U8, cuts: I64, table: I32) -> int:
    """The symbol of these bytes, or -1."""
    key = hash64(data, 0, len(data), np.uint64(seed0), np.uint64(seed1))
    _, symbol = _find_symbol(data, 0, len(data), key, table, arena, cuts)
    return symbol


@kernel
def find_pairs(
    name: U8, values: U8, value_offsets: I64, seed0: int, seed1: int, arena: U8, cuts: I64,
    names: I32, pair_values: I32, name_symbols: I32, table: I32, pairs: OutI32,
) -> int:  # fmt: skip
    """The pairs of one name and V values, those that exist, to pairs[:count]; returns the count."""
    name_key = hash64(name, 0, len(name), np.uint64(seed0), np.uint64(seed1))
    count = 0
    mask = np.uint64(len(table) - 1)
    for v in range(len(value_offsets) - 1):
        start, end = value_offsets[v], value_offsets[v + 1]
        slot = _mix(name_key, hash64(values, start, end, np.uint64(seed0), np.uint64(seed1))) & mask
        while table[slot] != 0:
            pair = np.int64(table[slot]) - 1
            value = np.int64(pair_values[pair])
            symbol = np.int64(name_symbols[names[pair]])
            if (
                cuts[value + 1] - cuts[value] == end - start
                and cuts[symbol + 1] - cuts[symbol] == len(name)
                and equal_bytes(values, start, arena, cuts[value], end - start)
                and equal_bytes(name, 0, arena, cuts[symbol], len(name))
            ):
                pairs[count] = np.int32(pair)
                count += 1
                break
            slot = (slot + np.uint64(1)) & mask
    return count


@kernel
def stable_hashes(
    first: int, count: int, row_offsets: I64, cells: I32, names: I32, values: I32, name_symbols: I32,
    arena: U8, cuts: I64, hashes: OutU64,
) -> None:  # fmt: skip
    """Prometheus' labels.StableHash of series first..count - 1: xxHash64 of name 0xFF value 0xFF ..."""
    buffer = np.empty(1024, np.uint8)
    for series in range(first, count):
        length = 0
        for at in range(row_offsets[series], row_offsets[series + 1]):
            name = np.int64(name_symbols[names[cells[at]]])
            value = np.int64(values[cells[at]])
            length += cuts[name + 1] - cuts[name] + cuts[value + 1] - cuts[value] + 2
        if length > len(buffer):
            buffer = np.empty(2 * length, np.uint8)
        position = 0
        for at in range(row_offsets[series], row_offsets[series + 1]):
            name = np.int64(name_symbols[names[cells[at]]])
            size = cuts[name + 1] - cuts[name]
            copy_bytes(buffer, position, arena, cuts[name], size)
            buffer[position + size] = 0xFF
            position += size + 1
            value = np.int64(values[cells[at]])
            size = cuts[value + 1] - cuts[value]
            copy_bytes(buffer, position, arena, cuts[value], size)
            buffer[position + size] = 0xFF
            position += size + 1
        hashes[series] = xxhash64(buffer, 0, length)


@kernel
def gather_strings(symbols: I32, arena: U8, cuts: I64, out: OutU8) -> int:
    """The symbols' bytes, each followed by a zero byte, to `out` (long enough); returns the length."""
    position = 0
    for s in range(len(symbols)):
        symbol = np.int64(symbols[s])
        size = cuts[symbol + 1] - cuts[symbol]
        copy_bytes(out, position, arena, cuts[symbol], size)
        out[position + size] = 0
        position += size + 1
    return position


@kernel
def shard_filter(references: I32, hashes: U64, index: int, count: int, kept: OutI32) -> int:
    """Those references whose hash modulo `count` is `index`."""
    found = 0
    for r in range(len(references)):
        if hashes[references[r]] % np.uint64(count) == np.uint64(index):
            kept[found] = references[r]
            found += 1
    return found


@kernel
def drop_series(references: I32, row_offsets: I64, cells: I32, dropped: OutBool, pair_series: OutI32) -> None:
    """Marks live series, each named once, and takes them out of the counts of their pairs."""
    for r in range(len(references)):
        series = references[r]
        dropped[series] = True
        for at in range(row_offsets[series], row_offsets[series + 1]):
            pair_series[cells[at]] -= 1
