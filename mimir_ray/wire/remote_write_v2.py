"""Remote write 2.0: the bytes of an io.prometheus.write.v2.Request become columns.

Labels are numbers of symbols. A symbol is hashed once a request and a series by the hashes of its symbols, so a
series that was seen before costs a few instructions a label and its strings are never looked at; labels of others
are written as sections when somebody asks (write_scan.py). Metadata beside the series is told apart by a hash too.
Runs of series in the form that nearly all have are read by two small kernels (remote_write_v2_plain.py), others by the
one below, by turns.

Specification: https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/. Start timestamps are those of the samples
(field 3) or, from senders of its first versions, of the series (field 6, `created_timestamp`).
Upstream: pkg/mimirpb/mimir.pb.go.expdiff, which also says what makes a request malformed.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import bits_to_float, load64_le
from mimir_ray.encoding.hashing import chain128_end, chain128_pair
from mimir_ray.encoding.varint import read_uvarint, word_uvarint
from mimir_ray.kernel import U8, U64, OutF64, OutI32, OutI64, OutI64x2, OutU64, device, kernel, u64
from mimir_ray.wire.compression import WriteMessageTooLarge
from mimir_ray.wire.protobuf import MalformedProtobuf, read_length, read_tag, skip_field
from mimir_ray.wire.remote_write_v2_plain import PLAIN, hash_plain, read_plain
from mimir_ray.wire.remote_write_v2_symbols import (
    AT,
    COUNTS,
    EARLIEST,
    ERROR,
    ERROR_AT,
    EXEMPLARS,
    FAMILIES,
    HISTOGRAMS,
    LABEL_BYTES,
    LATELY,
    LATEST,
    REF_BYTES,
    REPEATED,
    SAMPLES,
    SERIES,
    STARTED,
    SYMBOLS,
    WORDS,
    find_symbols,
    hash_symbols,
    note_family,
    read_metadata,
    short,
)
from mimir_ray.wire.write_scan import REMOTE_WRITE_2, Families, HashKey, Symbols, WriteScan

_PROBLEMS = (
    "",
    "illegal tag",
    "length beyond the end",
    "field of wrong wire type",
    "malformed field",
    "malformed sample",
    "Remote Write 1.0 field in a Remote Write 2.0 message",
    "symbols must start with empty string",
    "odd number of label references",
    "invalid label reference",
    "odd number of exemplar label references",
    "invalid exemplar label reference",
    "invalid help reference",
    "invalid unit reference",
)
_OTHERS_MIN = 16
"""Series that are read by the kernel for all forms, before others are looked for."""
_ROOM_KEPT_MAX = 1 << 18
"""Entries of all arrays; about 12 MB. What larger requests need is let go of."""


class _Room:
    """Arrays that the kernel writes into, for so many of each. Kept for the next request: fresh pages cost more than
    reading a request does."""

    def __init__(self, series: int, samples: int, symbols: int, families: int) -> None:
        self.sizes = series, samples, symbols, families
        self.symbol_start, self.symbol_end = np.empty((2, symbols), np.int64)
        self.words = np.empty(WORDS * symbols, np.uint64)
        self.lately = np.empty(LATELY, np.uint64)
        self.label_start, self.label_end, self.created = np.empty((3, series), np.int64)
        self.hash_low, self.hash_high = np.empty((2, series), np.uint64)
        self.offsets = np.empty(series + 1, np.int64)
        self.owners = np.empty(samples, np.int32)
        self.timestamps, self.starts = np.empty((2, samples), np.int64)
        self.values = np.empty(samples, np.float64)
        self.family_keys = np.empty(families, np.uint64)
        self.entries = np.empty((families, 4), np.int64)
        self.counts = np.empty(COUNTS, np.int64)
        self.plain = np.empty(PLAIN * series, np.int64)

    def fits(self, *wanted: int) -> bool:
        return all(size >= one for size, one in zip(self.sizes, wanted, strict=True))


class _Kept(threading.local):
    room: _Room | None = None


_kept = _Kept()


def _room(*wanted: int) -> _Room:
    """Room for at least so much, which nobody else uses until this thread asks again."""
    room = _kept.room
    if room is None or not room.fits(*wanted):
        room = _Room(*(one * 5 // 4 for one in wanted))
        _kept.room = room if sum(room.sizes) <= _ROOM_KEPT_MAX else None
    return room


def scan_write_request_v2(body: bytes, key: HashKey, label_bytes_max: int = 100 << 20) -> WriteScan:
    """Reads a decompressed io.prometheus.write.v2.Request.

    Raises `MalformedProtobuf`, and `WriteMessageTooLarge` where the labels, written out for every series as 1.0 does,
    are more than `label_bytes_max`: a few bytes could name a long symbol over and over.
    """
    data = np.frombuffer(body, np.uint8)
    seeds = tuple(np.uint64(word) for word in key)
    # Most requests fit the first guess.
    wanted = (len(body) // 24 + 16, len(body) // 24 + 16, len(body) // 16 + 16, len(body) // 64 + 16)
    while True:
        room = _room(*wanted)
        find_symbols(data, room.symbol_start, room.symbol_end, room.counts)
        series, symbols = int(room.counts[SERIES]), int(room.counts[SYMBOLS])
        _raise_problem(room.counts)
        if not room.fits(series, 0, symbols, 0):
            wanted = (max(series, wanted[0]), wanted[1], max(symbols, wanted[2]), wanted[3])
            continue
        name_symbol = hash_symbols(data, *seeds, room.symbol_start[:symbols], room.symbol_end, room.words)
        room.lately[:] = 0
        _read_series(data, seeds, room, symbols, name_symbol, series)
        found = room.counts.tolist()
        samples, families = found[SAMPLES], found[FAMILIES]
        if room.fits(series, samples, symbols, families):
            break
        wanted = (series, samples, symbols, families)
    if found[LABEL_BYTES] > label_bytes_max:
        raise WriteMessageTooLarge(found[LABEL_BYTES], label_bytes_max)
    return WriteScan(
        body,
        room.label_start[:series].copy(),
        room.label_end[:series].copy(),
        room.hash_low[:series].copy(),
        room.hash_high[:series].copy(),
        room.offsets[: series + 1].copy(),
        room.owners[:samples].copy(),
        room.timestamps[:samples].copy(),
        room.values[:samples].copy(),
        (),
        found[EARLIEST] if samples else 0,
        found[LATEST] if samples else 0,
        found[REPEATED],
        found[EXEMPLARS],
        found[HISTOGRAMS],
        len(body),
        layout=REMOTE_WRITE_2,
        symbols=Symbols(room.symbol_start[:symbols].copy(), room.symbol_end[:symbols].copy()),
        families=_different(room.family_keys[:families], room.entries[:families]) if families else None,
        start_timestamps=room.starts[:samples].copy() if found[STARTED] else None,
        created=room.created[:series].copy() if found[STARTED] else None,
    )


def _read_series(
    data: NDArray[np.uint8], seeds: tuple[np.uint64, ...], room: _Room, symbols: int, name_symbol: int, series: int
) -> None:
    """Reads all series, plain ones and others by turns, into the room; as many samples and families as fit."""
    done, others = 0, _OTHERS_MIN
    while done < series:
        plain = read_plain(
            data, symbols, done, room.label_start, room.label_end, room.offsets, room.owners, room.timestamps,
            room.starts, room.values, room.plain, room.counts,
        )  # fmt: skip
        plain = hash_plain(
            data, *seeds, room.words, symbols, name_symbol, room.lately, room.plain, done, plain,
            room.label_end, room.timestamps, room.starts, room.created, room.hash_low, room.hash_high,
            room.family_keys, room.entries, room.counts,
        )  # fmt: skip
        if plain == series:
            break
        # Where hardly any is plain, it is not worth looking.
        others = _OTHERS_MIN if plain - done > _OTHERS_MIN else 2 * others
        done = min(plain + others, series)
        _scan(
            data, *seeds, room.words, symbols, name_symbol, room.lately, plain, done,
            room.label_start, room.label_end, room.created, room.hash_low, room.hash_high, room.offsets,
            room.owners, room.timestamps, room.starts, room.values, room.family_keys, room.entries, room.counts,
        )  # fmt: skip
        _raise_problem(room.counts)
    room.offsets[series] = room.counts[SAMPLES]


def _raise_problem(counts: NDArray[np.int64]) -> None:
    if counts[ERROR]:
        raise MalformedProtobuf("Remote Write 2.0", _PROBLEMS[counts[ERROR]], int(counts[ERROR_AT]))


def _different(keys: NDArray[np.uint64], entries: NDArray[np.int64]) -> Families:
    """Each once; the parts of a histogram or summary take turns in a request."""
    found: dict[int, int] = {}
    for at, key in enumerate(keys.tolist()):
        found.setdefault(key, at)
    first = np.fromiter(found.values(), np.int64, len(found))
    return Families(keys[first], entries[first])


@device
def _read_sample(data: Any, at: Any, stop: Any) -> Any:
    """(value bits, timestamp, start timestamp, the end or -1 if malformed) of a Sample."""
    word = np.uint64(0)
    moment = np.uint64(0)
    start = np.uint64(0)
    bad = np.int64(-1)
    if stop - at >= 11 and data[at] == 0x09 and data[at + 9] == 0x10:
        word = load64_le(data, at + 1)
        moment, size = word_uvarint(load64_le(data, stop - 8) >> np.uint64(8 * max(at + 18 - stop, 0)))
        if size == 0 or size > stop - at - 10 or at + 18 < stop:
            moment, after, code = read_uvarint(data, at + 10, stop)
            if code != 0:
                return word, np.int64(0), np.int64(0), bad
            size = after - at - 10
        at += 10 + size
    while at < stop:
        tag, at = read_tag(data, at, stop)
        if tag == 0x09 and stop - at >= 8:
            word = load64_le(data, at)
            at += 8
        elif tag == 0x10 or tag == 0x18:
            number, at, code = read_uvarint(data, at, stop)
            if code != 0:
                return word, np.int64(0), np.int64(0), bad
            if tag == 0x10:
                moment = number
            else:
                start = number
        else:
            if tag < 0 or tag >> 3 <= 3:
                return word, np.int64(0), np.int64(0), bad
            at = skip_field(data, at, stop, tag & 7)
            if at < 0:
                return word, np.int64(0), np.int64(0), bad
    return word, np.int64(moment), np.int64(start), at


@device
def _check_exemplar(data: Any, at: Any, stop: Any, words: Any, known: Any) -> Any:
    """Bytes of the labels of an Exemplar in a section, about; or minus the problem."""
    total = np.int64(0)
    refs = np.int64(0)
    while at < stop:
        tag, at = read_tag(data, at, stop)
        if tag != 0x0A and tag != 0x08:
            if tag < 0 or tag >> 3 == 1 or (tag >> 3 == 2 and tag & 7 != 1) or (tag >> 3 == 3 and tag & 7 != 0):
                return np.int64(-4)
            at = skip_field(data, at, stop, tag & 7)
            if at < 0:
                return np.int64(-4)
            continue
        until = at
        if tag == 0x0A:
            length, at = read_length(data, at, stop)
            if length < 0:
                return np.int64(-4)
            until = at + length
        while at < until or tag == 0x08:
            ref, at, code = read_uvarint(data, at, stop if tag == 0x08 else until)
            if code != 0:
                return np.int64(-4)
            if ref >= np.uint64(known):
                return np.int64(-11)
            total += np.int64(words[np.int64(ref) * WORDS + 2]) + REF_BYTES
            refs += 1
            if tag == 0x08:
                break
    return np.int64(-10) if refs & 1 else total


@kernel
def _scan(
    data: U8, seed0: u64, seed1: u64, seed2: u64, seed3: u64,
    words: U64, symbols: int, name_symbol: int, lately: OutU64, first: int, series_end: int,
    label_start: OutI64, label_end: OutI64, created: OutI64, hash_low: OutU64, hash_high: OutU64,
    sample_offsets: OutI64, sample_series: OutI32, timestamps: OutI64, starts: OutI64, values: OutF64,
    family_keys: OutU64, entries: OutI64x2, counts: OutI64,
) -> None:  # fmt: skip
    """Reads series `first` to `series_end` - 1 of a Request whose own fields are sound (`find_symbols`).

    Args:
        words, symbols, name_symbol: what `hash_symbols` wrote, of how many, and which one is `__name__`.
        lately: uint64[LATELY], zeros: metadata that was seen, by its key; another one may take its place.
        label_start, label_end: of the message of each series, as in `WriteScan`; `created`: its field of that name.
            There is room for all series.
        hash_low, hash_high: of each series, from the hashes of its symbols in their order.
        sample_offsets: where the samples of each series begin.
        sample_series, timestamps, starts, values: at most so many samples are written, all are counted.
        family_keys, entries: metadata that differs from that of the series before; as in `Families`.
        counts: int64[COUNTS], continued; nothing else counts if counts[ERROR] is not zero.
    """
    size = np.int64(len(data))
    samples_max = np.int64(len(timestamps))
    samples = counts[SAMPLES]
    families = counts[FAMILIES]
    exemplars = counts[EXEMPLARS]
    histograms = counts[HISTOGRAMS]
    repeated = counts[REPEATED]
    started = counts[STARTED]
    in_labels = counts[LABEL_BYTES]
    earliest, latest = counts[EARLIEST], counts[LATEST]
    error = np.int64(0)
    at = counts[AT]
    series = np.int64(first)
    known = np.uint64(symbols)
    # Of the metadata before.
    last_name, last_kind, last_help, last_unit = np.int64(-1), np.int64(0), np.int64(0), np.int64(0)
    while series < series_end and at < size:
        tag, at = read_tag(data, at, size)
        if tag != 0x2A:
            at = skip_field(data, at, size, tag & 7)
            continue
        length, at = read_length(data, at, size)
        message = at
        stop = at + length
        sample_offsets[series] = samples
        first_sample = samples
        previous = np.int64(0)
        since = np.int64(0)
        a, b = seed0, seed1
        refs = np.int64(0)
        name = np.int64(0)
        low, high = np.uint64(0), np.uint64(0)
        metric = np.int64(-1)
        kind, help_ref, unit_ref = np.int64(0), np.int64(0), np.int64(0)
        while at < stop:
            begin = at
            length = np.int64(-1)
            head = load64_le(data, at) if size - at >= 8 else np.uint64(0x8080)
            if head & np.uint64(0x8080) == np.uint64(0) and at + 2 + (np.int64(head >> np.uint64(8)) & 0x7F) <= stop:
                # A field and a length below 128, if it has one.
                tag = np.int64(head) & 0x7F
                at += 1
                if tag & 7 == 2:
                    length = np.int64(head >> np.uint64(8)) & 0x7F
                    at += 1
                if tag < 8:
                    tag = np.int64(-1)
            else:
                tag, at = read_tag(data, at, stop)
            if tag == 0x0A or tag == 0x08:
                until = at
                if tag == 0x0A:
                    if length < 0:
                        length, at = read_length(data, at, stop)
                    if length < 0:
                        error = 2
                        break
                    until = at + length
                elif at < stop:
                    until = at + 1  # one number, however long
                else:
                    error = 4
                    break
                while at < until:
                    if refs & 1 == 0 and until - at >= 8:
                        # A name and a value, in a word.
                        packed = load64_le(data, at)
                        ref, taken = short(packed)
                        value, more = short(packed >> np.uint64(8 * taken))
                        if taken > 0 and more > 0 and ref < known and value < known:
                            at += taken + more
                            one, other = np.int64(ref) * WORDS, np.int64(value) * WORDS
                            in_labels += np.int64(words[one + 2] + words[other + 2]) + 2 * REF_BYTES
                            a, b = chain128_pair(
                                a, b, words[one], words[one + 1], words[other], words[other + 1], seed2, seed3
                            )
                            if np.int64(ref) == name_symbol:
                                metric = np.int64(value)
                            refs += 2
                            continue
                    ref = np.uint64(data[at])
                    if ref < np.uint64(0x80):
                        at += 1
                    else:
                        ref, at, code = read_uvarint(data, at, stop if tag == 0x08 else until)
                        if code != 0:
                            error = 4
                            break
                    if ref >= known:
                        error = 9
                        break
                    symbol = np.int64(ref)
                    word = symbol * WORDS
                    in_labels += np.int64(words[word + 2]) + REF_BYTES
                    if refs & 1 == 0:
                        name = symbol
                        low, high = words[word], words[word + 1]
                    else:
                        a, b = chain128_pair(a, b, low, high, words[word], words[word + 1], seed2, seed3)
                        if name == name_symbol:
                            metric = symbol
                    refs += 1
                if error != 0:
                    break
                continue
            if tag == 0x30:
                number, at, code = read_uvarint(data, at, stop)
                if code != 0:
                    error = 4
                    break
                since = np.int64(number)
                continue
            if tag < 0:
                error = 1
                break
            field = tag >> 3
            if (field <= 5 and tag & 7 != 2) or field == 6:
                error = 3
                break
            if field > 5:
                at = at + length if length >= 0 else skip_field(data, at, stop, tag & 7)
                if at < 0:
                    error = 4
                    at = begin
                    break
                continue
            if length < 0:
                length, at = read_length(data, at, stop)
            if length < 0:
                error = 2
                break
            end = at + length
            if field == 2:
                word, timestamp, start, after = _read_sample(data, at, end)
                if after < 0:
                    error = 5
                    break
                if samples < samples_max:
                    sample_series[samples] = np.int32(series)
                    timestamps[samples] = timestamp
                    starts[samples] = start
                    values[samples] = bits_to_float(word)
                started += start != 0
                if samples > first_sample and timestamp == previous:
                    repeated += 1
                previous = timestamp
                earliest = min(earliest, timestamp)
                latest = max(latest, timestamp)
                samples += 1
            elif field == 3:
                histograms += 1
            elif field == 4:
                taken = _check_exemplar(data, at, end, words, symbols)
                if taken < 0:
                    error = -taken
                    break
                in_labels += taken
                exemplars += 1
            else:
                kind, help_ref, unit_ref, sound = read_metadata(data, at, end)
                if not sound:
                    error = 4
                    break
                if help_ref > 0 and help_ref >= symbols:
                    error = 12
                    break
                if unit_ref > 0 and unit_ref >= symbols:
                    error = 13
                    break
            at = end
        if error == 0 and refs & 1:
            error = 8
        if error != 0:
            break
        created[series] = since
        if since != 0:
            started += 1
            for n in range(first_sample, min(samples, samples_max)):
                if starts[n] == 0:
                    starts[n] = since
        if (kind != 0 or help_ref != 0 or unit_ref != 0) and metric >= 0:  # noqa: SIM102  (told apart by meaning)
            if metric != last_name or kind != last_kind or help_ref != last_help or unit_ref != last_unit:
                last_name, last_kind, last_help, last_unit = metric, kind, help_ref, unit_ref
                families = note_family(
                    words, metric, kind, help_ref, unit_ref, (seed0, seed1, seed2, seed3), lately, families,
                    family_keys, entries,
                )  # fmt: skip
        low, high = chain128_end(a, b, refs, seed0, seed1, seed2, seed3)
        hash_low[series] = low
        hash_high[series] = high
        label_start[series] = -1 - message
        label_end[series] = stop
        series += 1
    counts[SAMPLES] = samples
    counts[FAMILIES] = families
    counts[EXEMPLARS] = exemplars
    counts[HISTOGRAMS] = histograms
    counts[REPEATED] = repeated
    counts[STARTED] = started
    counts[EARLIEST] = earliest
    counts[LATEST] = latest
    counts[LABEL_BYTES] = in_labels
    counts[ERROR] = error
    counts[ERROR_AT] = at
    counts[AT] = at
