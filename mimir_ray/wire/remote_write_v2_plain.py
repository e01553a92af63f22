"""Series of remote write 2.0 as nearly all are: label references, one sample, metadata; in kernels of their own.

A third of the time of the kernel that knows every form (remote_write_v2.py), which reads the others.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.encoding.bits import bits_to_float, load64_le
from mimir_ray.encoding.hashing import chain128_end, chain128_pair
from mimir_ray.encoding.varint import word_uvarint
from mimir_ray.kernel import I64, U8, OutF64, OutI32, OutI64, OutI64x2, OutU64, kernel, u64
from mimir_ray.wire.remote_write_v2_symbols import (
    AT,
    EARLIEST,
    FAMILIES,
    LABEL_BYTES,
    LATEST,
    REF_BYTES,
    SAMPLES,
    STARTED,
    WORDS,
    note_family,
    read_metadata,
    short,
)

PLAIN = 5
"""Of each plain series, side by side: start and end of its label references, and its metadata: type, help, unit."""


@kernel
def read_plain(
    data: U8, symbols: int, first: int, label_start: OutI64, label_end: OutI64, sample_offsets: OutI64,
    sample_series: OutI32, timestamps: OutI64, starts: OutI64, values: OutF64, plain: OutI64, counts: OutI64,
) -> int:  # fmt: skip
    """Reads series from number `first` on that are label references, a sample and perhaps metadata, in this order and
    each as short as can be. Returns the number of the first other one.

    Args:
        plain: int64[PLAIN * series], written.
        counts: AT and SAMPLES are read.
        Others as for `_scan`.
    """
    size = np.int64(len(data))
    n = counts[SAMPLES]
    series = np.int64(first)
    most = min(np.int64(len(label_start)), series + np.int64(len(timestamps)) - n)
    at = counts[AT]
    while series < most and size - at >= 32:
        head = load64_le(data, at)
        if head & np.uint64(0x80FF) == np.uint64(0x2A):
            message = at + 2
            stop = message + np.int64((head >> np.uint64(8)) & np.uint64(0x7F))
        elif head & np.uint64(0x8080FF) == np.uint64(0x802A):
            message = at + 3
            stop = message + np.int64(
                (head >> np.uint64(8)) & np.uint64(0x7F) | (head >> np.uint64(9)) & np.uint64(0x3F80)
            )
        else:
            break
        if stop > size or stop - message < 2 or data[message] != 0x0A or data[message + 1] >= 0x80:
            break
        refs = message + 2
        refs_end = refs + np.int64(data[message + 1])
        if stop - refs_end < 4 or refs_end + 20 > size or data[refs_end] != 0x12 or data[refs_end + 1] >= 0x80:
            break
        sample = refs_end + 2
        end = sample + np.int64(data[refs_end + 1])
        word = np.uint64(0)
        if data[sample] == 0x09:  # left out where the value is 0
            word = load64_le(data, sample + 1)
            sample += 9
        moment, taken = word_uvarint(load64_le(data, sample + 1))
        if end > stop or data[sample] != 0x10 or taken == 0 or sample + 1 + taken > end:
            break
        sample += 1 + taken
        start = np.uint64(0)
        if sample < end:
            if data[sample] != 0x18 or sample + 9 > size:
                break
            start, taken = word_uvarint(load64_le(data, sample + 1))
            if taken == 0 or sample + 1 + taken != end:
                break
        kind, help_ref, unit_ref = np.int64(0), np.int64(0), np.int64(0)
        if end < stop:
            if stop - end < 2 or data[end] != 0x2A or np.int64(data[end + 1]) != stop - end - 2:
                break
            kind, help_ref, unit_ref, sound = read_metadata(data, end + 2, stop)
            if not sound or help_ref >= symbols or unit_ref >= symbols:
                break
        label_start[series] = -1 - message
        label_end[series] = stop
        sample_offsets[series] = n
        sample_series[n] = np.int32(series)
        timestamps[n] = np.int64(moment)
        starts[n] = np.int64(start)
        values[n] = bits_to_float(word)
        n += 1
        place = PLAIN * series
        plain[place] = refs
        plain[place + 1] = refs_end
        plain[place + 2] = kind
        plain[place + 3] = help_ref
        plain[place + 4] = unit_ref
        series += 1
        at = stop
    return series


@kernel
def hash_plain(
    data: U8, seed0: u64, seed1: u64, seed2: u64, seed3: u64,
    words: OutU64, symbols: int, name_symbol: int, lately: OutU64, plain: I64, first: int, series: int,
    label_end: I64, timestamps: I64, starts: I64, created: OutI64, hash_low: OutU64, hash_high: OutU64,
    family_keys: OutU64, entries: OutI64x2, counts: OutI64,
) -> int:  # fmt: skip
    """Hashes the label references of the series `first` to `series` - 1, which `read_plain` found, and counts what they
    have. Returns the number of the first one that something is wrong with (`_scan` will name it), or `series`.

    Args:
        words: as for `_scan`; the fourth of each symbol is 0 at first, and used for the work.
        Others as for `_scan`.
    """
    size = np.int64(len(data))
    known = np.uint64(symbols)
    families = counts[FAMILIES]
    in_labels = counts[LABEL_BYTES]
    samples = counts[SAMPLES]
    earliest, latest = counts[EARLIEST], counts[LATEST]
    started = np.int64(0)
    done = np.int64(first)
    for s in range(first, series):
        at, until = plain[PLAIN * s], plain[PLAIN * s + 1]
        a, b = seed0, seed1
        pairs = np.int64(0)
        length = np.int64(0)
        metric = np.int64(-1)
        while at < until:
            if size - at < 8:
                break
            packed = load64_le(data, at)
            ref, taken = short(packed)
            value, more = short(packed >> np.uint64(8 * taken))
            if taken == 0 or more == 0 or ref >= known or value >= known:
                break
            at += taken + more
            one, other = np.int64(ref) * WORDS, np.int64(value) * WORDS
            length += np.int64(words[one + 2] + words[other + 2])
            a, b = chain128_pair(a, b, words[one], words[one + 1], words[other], words[other + 1], seed2, seed3)
            if np.int64(ref) == name_symbol:
                metric = np.int64(value)
            pairs += 1
        if at != until:
            break
        in_labels += length + 2 * REF_BYTES * pairs
        hash_low[s], hash_high[s] = chain128_end(a, b, 2 * pairs, seed0, seed1, seed2, seed3)
        created[s] = 0
        earliest = min(earliest, timestamps[samples])
        latest = max(latest, timestamps[samples])
        started += starts[samples] != 0
        samples += 1
        done += 1
        kind, help_ref, unit_ref = plain[PLAIN * s + 2], plain[PLAIN * s + 3], plain[PLAIN * s + 4]
        if metric >= 0 and (kind != 0 or help_ref != 0 or unit_ref != 0):
            # Symbols are fewer than 2^28 and types than 2^8, or the metadata is hashed again.
            said = np.uint64(kind) | np.uint64(help_ref) << np.uint64(8) | np.uint64(unit_ref) << np.uint64(36)
            small = kind < 256 and symbols < 1 << 28
            if small and words[metric * WORDS + 3] == said:
                continue
            words[metric * WORDS + 3] = said if small else np.uint64(0)
            families = note_family(
                words, metric, kind, help_ref, unit_ref, (seed0, seed1, seed2, seed3), lately, families,
                family_keys, entries,
            )  # fmt: skip
    counts[FAMILIES] = families
    counts[LABEL_BYTES] = in_labels
    counts[SAMPLES] = samples
    counts[EARLIEST] = earliest
    counts[LATEST] = latest
    counts[STARTED] += started
    if done > first:
        counts[AT] = label_end[done - 1]
    return done
