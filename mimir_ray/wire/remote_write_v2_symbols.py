"""What the kernels of remote write 2.0 share: symbols and their hashes, counts, metadata beside series."""

from __future__ import annotations

from typing import Any

import numpy as np

from mimir_ray.encoding.bits import load64_le
from mimir_ray.encoding.hashing import chain128, chain128_end, hash128
from mimir_ray.encoding.varint import read_uvarint, word_uvarint
from mimir_ray.kernel import I64, U8, OutI64, OutU64, device, kernel, u64
from mimir_ray.wire.protobuf import read_length, read_tag, skip_field

# Of `counts`, which goes from kernel to kernel. AT: where the series that are not read yet begin.
SERIES, SAMPLES, SYMBOLS, FAMILIES, EXEMPLARS, HISTOGRAMS, REPEATED, STARTED = range(8)
EARLIEST, LATEST, LABEL_BYTES, ERROR, ERROR_AT, AT = range(8, 14)
COUNTS = 14

WORDS = 4
"""Of each symbol, side by side in one cache line: both halves of its hash, its bytes; of a metric's name what was last
said of it (`hash_plain`)."""
REF_BYTES = 4
"""What a name or value adds in a label section beside its bytes, about."""
LATELY = 1024
"""Metadata that is told apart without comparing it to all."""
_NAME = np.uint64(int.from_bytes(b"__name__", "little"))


@device
def short(word: Any) -> Any:
    """(number, its bytes) of a varint at the low end of a word; no bytes: it has more than three."""
    if word & np.uint64(0x80) == np.uint64(0):
        return word & np.uint64(0x7F), np.int64(1)
    number = (word & np.uint64(0x7F)) | ((word >> np.uint64(1)) & np.uint64(0x3F80))
    if word & np.uint64(0x8000) == np.uint64(0):
        return number, np.int64(2)
    number |= (word >> np.uint64(2)) & np.uint64(0x1FC000)
    return number, np.int64(3) if word & np.uint64(0x800000) == np.uint64(0) else np.int64(0)


@device
def read_metadata(data: Any, at: Any, stop: Any) -> Any:
    """(type, help, unit, whether it is sound) of a Metadata message."""
    kind = np.int64(0)
    help_ref = np.int64(0)
    unit_ref = np.int64(0)
    if 4 <= stop - at < 8 and at >= 8:
        # Type and help, each in its shortest form, and nothing else.
        word = load64_le(data, stop - 8) >> np.uint64(8 * (8 - (stop - at)))
        number, size = word_uvarint(word >> np.uint64(24))
        if word & np.uint64(0xFF80FF) == np.uint64(0x180008) and size == stop - at - 3:
            return np.int64(word >> np.uint64(8)) & 0x7F, np.int64(number), unit_ref, True
    while at < stop:
        tag, at = read_tag(data, at, stop)
        if tag == 0x08 or tag == 0x18 or tag == 0x20:
            number, at, code = read_uvarint(data, at, stop)
            if code != 0:
                return kind, help_ref, unit_ref, False
            small = np.int64(min(number, np.uint64(0x7FFFFFFF)))
            if tag == 0x08:
                kind = small
            elif tag == 0x18:
                help_ref = small
            else:
                unit_ref = small
        else:
            field = tag >> 3
            if tag < 0 or field == 1 or field == 3 or field == 4:
                return kind, help_ref, unit_ref, False
            at = skip_field(data, at, stop, tag & 7)
            if at < 0:
                return kind, help_ref, unit_ref, False
    return kind, help_ref, unit_ref, True


@device
def family_key(words: Any, metric: Any, help_ref: Any, unit_ref: Any, kind: Any, seeds: Any) -> Any:
    """Two uint64 of all that metadata says."""
    seed0, seed1, seed2, seed3 = seeds
    one, other, third = metric * WORDS, help_ref * WORDS, unit_ref * WORDS
    low, high = chain128(words[one], words[one + 1], words[other], words[other + 1], seed2, seed3)
    low, high = chain128(low, high, words[third], words[third + 1], seed2, seed3)
    return chain128_end(low, high, kind, seed0, seed1, seed2, seed3)


@device
def note_family(
    words: Any, metric: Any, kind: Any, help_ref: Any, unit_ref: Any, seeds: Any, lately: Any, families: Any,
    family_keys: Any, entries: Any,
) -> Any:  # fmt: skip
    """Adds what metadata says of a metric's family, if that was not seen lately, where there is room. Returns how many
    there are."""
    low, high = family_key(words, metric, help_ref, unit_ref, kind, seeds)
    place = np.int64(low & np.uint64(LATELY - 1))
    if lately[place] == high:
        return families
    lately[place] = high
    if families < len(family_keys):
        family_keys[families] = high
        entries[families, 0] = kind
        entries[families, 1] = metric
        entries[families, 2] = help_ref
        entries[families, 3] = unit_ref
    return families + 1


@kernel
def find_symbols(data: U8, symbol_start: OutI64, symbol_end: OutI64, counts: OutI64) -> None:
    """Finds the symbols of a request and how many series it has: a look at its own fields, not into series.

    Args:
        symbol_start, symbol_end: at most so many symbols are written, all are counted.
        counts: int64[COUNTS], written: all but SYMBOLS, SERIES, ERROR, ERROR_AT and AT as of no series.
    """
    size = np.int64(len(data))
    symbols_max = np.int64(len(symbol_start))
    symbols = np.int64(0)
    series = np.int64(0)
    at = np.int64(0)
    first_at = np.int64(0)
    error = 0
    while at < size:
        begin = at
        if size - at >= 8:  # nearly always one of these two, and short
            word = load64_le(data, at)
            length = np.int64(word >> np.uint64(8)) & 0xFF
            end = at + 2 + length
            if word & np.uint64(0x80FF) == np.uint64(0x22) and 0 < symbols < symbols_max and end <= size:
                symbol_start[symbols] = at + 2
                symbol_end[symbols] = end
                symbols += 1
                at = end
                first_at = at if series == 0 else first_at
                continue
            if word & np.uint64(0x80FF) == np.uint64(0x2A) and end <= size:
                series += 1
                at = end
                continue
        tag, at = read_tag(data, at, size)
        field = tag >> 3
        if tag == 0x22 or tag == 0x2A:
            length, at = read_length(data, at, size)
            if length < 0:
                error = 2
            elif tag == 0x2A:
                series += 1
            else:
                if symbols == 0 and length > 0:
                    error = 7
                if symbols < symbols_max:
                    symbol_start[symbols] = at
                    symbol_end[symbols] = at + length
                symbols += 1
            at += length
        elif tag < 0:
            error = 1
        elif field == 1 or field == 3:
            error = 6
        elif field == 4 or field == 5:
            error = 3
        else:
            at = skip_field(data, at, size, tag & 7)
            if at < 0:
                error = 4
        if error != 0:
            at = begin
            break
    counts[:] = 0
    counts[EARLIEST] = 0x7FFFFFFFFFFFFFFF
    counts[LATEST] = -0x7FFFFFFFFFFFFFFF - 1
    counts[SYMBOLS] = symbols
    counts[SERIES] = series
    counts[AT] = first_at
    counts[ERROR] = error
    counts[ERROR_AT] = at


@kernel
def hash_symbols(
    data: U8, seed0: u64, seed1: u64, seed2: u64, seed3: u64, starts: I64, ends: I64, words: OutU64
) -> int:
    """Writes the WORDS of each symbol; returns which one is `__name__`, or -1."""
    found = np.int64(-1)
    for y in range(len(starts)):
        first, last = starts[y], ends[y]
        low, high = hash128(data, first, last, seed0, seed1, seed2, seed3)
        words[WORDS * y] = low
        words[WORDS * y + 1] = high
        words[WORDS * y + 2] = np.uint64(last - first)
        words[WORDS * y + 3] = np.uint64(0)
        if last - first == 8 and load64_le(data, first) == _NAME:
            found = y
    return found
