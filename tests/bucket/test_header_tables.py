"""Kernels that walk and search the sections of an index, beside plain Python."""

from __future__ import annotations

import itertools
from bisect import bisect_left

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.bucket.header_tables import (
    CODES,
    DISORDERED,
    MALFORMED,
    READ_AHEAD_BYTES,
    find_prefix,
    find_values,
    list_bounds,
    string_bounds,
    walk_strings,
    walk_table,
)
from mimir_ray.encoding.varint import encode_uvarint

AHEAD = bytes(READ_AHEAD_BYTES)
# Of few letters and of lengths around a word, so that many begin alike.
TEXT = st.text("ab", max_size=3).map(str.encode) | st.sampled_from(
    [b"", b"a" * 7, b"a" * 8, b"a" * 9, b"a" * 8 + b"b", b"a" * 17, b"\xff", b"b" * 200]
)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=12)


def string(text: bytes) -> bytes:
    return encode_uvarint(len(text)) + text


def table(pairs: list[tuple[bytes, bytes]], offsets: list[int]) -> list[bytes]:
    """The entries of a postings offset table."""
    return [
        b"\x02" + string(name) + string(value) + encode_uvarint(at)
        for (name, value), at in zip(pairs, offsets, strict=True)
    ]


def array(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw + AHEAD, np.uint8)


@settings(deadline=None)
@given(st.lists(TEXT, max_size=8), st.integers(0, 3), st.integers(0, 9))
def test_strings_are_found_as_a_plain_loop_finds_them(texts: list[bytes], before: int, cut: int) -> None:
    raw = bytes(before) + b"".join(map(string, texts))
    end = max(before, len(raw) - cut)
    places = np.empty(len(texts), np.uint32)
    at, wanted = before, []
    for text in texts:
        wanted.append(at - before)
        at += len(string(text))
    found = walk_strings(array(raw), before, end, places)
    if at > end:
        assert found == -1
        return
    assert found == at
    assert places.tolist() == wanted
    chosen = np.array([*range(len(texts))][::-1], np.int64)
    starts, ends = np.empty(len(texts), np.int64), np.empty(len(texts), np.int64)
    assert string_bounds(array(raw), before, places, end, chosen, starts, ends) == sum(map(len, texts))
    assert [raw[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)] == texts[::-1]


@settings(deadline=None)
@given(
    PAIRS | PAIRS.map(sorted) | PAIRS.map(lambda pairs: sorted(set(pairs))),
    st.lists(st.integers(0, 300), min_size=12, max_size=12),
    st.integers(0, 40),
    st.booleans(),
)
def test_a_table_is_walked_as_a_plain_loop_walks_it(
    pairs: list[tuple[bytes, bytes]], offsets: list[int], cut: int, in_order: bool
) -> None:
    offsets = (sorted(set(range(12)) | set(offsets)) if in_order else offsets)[: len(pairs)]
    entries = table(pairs, offsets)
    raw = b"".join(entries)
    end = max(0, len(raw) - (cut if cut < 20 else 0))
    data = array(raw)
    places, names = np.empty(len(pairs), np.uint32), np.empty(len(pairs), np.uint32)
    firsts, ascending = np.empty(len(pairs), np.int64), np.empty(1, np.bool_)
    found = walk_table(data, 0, end, 250, places, firsts, names, ascending)
    at, values, runs = 0, [], []
    for p, (entry, (name, value), offset) in enumerate(zip(entries, pairs, offsets, strict=True)):
        out_of_order = p > 0 and pairs[p] <= pairs[p - 1]
        behind_value = at + len(entry) - len(encode_uvarint(offset))
        if out_of_order and behind_value <= end:
            assert found in (-(CODES * p + DISORDERED), -(CODES * p + MALFORMED))
            return
        if at + len(entry) > end or offset >= len(data):
            # What is cut off may be out of order, too.
            assert found in (-(CODES * p + MALFORMED), -(CODES * p + DISORDERED))
            return
        values.append(behind_value - len(string(value)))
        if p == 0 or pairs[p - 1][0] != name:
            runs.append((p, at + 1))
        at += len(entry)
    assert found == len(runs)
    assert places.tolist() == values
    assert [*zip(firsts[:found].tolist(), names[:found].tolist(), strict=True)] == runs
    bounds = [-1, *offsets, 250]
    assert ascending[0] == all(one < other for one, other in itertools.pairwise(bounds))
    if ascending[0]:
        wanted = np.arange(len(pairs), dtype=np.int64)
        starts, ends = np.empty(len(pairs), np.int64), np.empty(len(pairs), np.int64)
        size = list_bounds(data, 0, places, end, wanted, 250, starts, ends)
        assert starts.tolist() == offsets
        clamped = [min(one, len(data)) for one in offsets[1:]] + [250] * bool(offsets)
        assert ends.tolist() == clamped
        assert size == sum(b - a for a, b in zip(offsets, clamped, strict=True))


def test_an_entry_of_other_than_two_strings_is_malformed() -> None:
    raw = table([(b"a", b"b")], [1])[0]
    for entry in (b"\x03" + raw[1:], b"\x82\x01" + raw[1:], b"\x82" * 11, b""):
        out = np.empty(1, np.uint32), np.empty(1, np.int64), np.empty(1, np.uint32), np.empty(1, np.bool_)
        assert walk_table(array(entry), 0, len(entry), 9, *out) == -MALFORMED
    # As long as it has to be, the number may be written in more bytes.
    longer = b"\x82\x00" + raw[1:]
    assert walk_table(array(longer), 0, len(longer), 9, *out) == 1


@settings(deadline=None)
@given(st.sets(TEXT, max_size=12), st.sets(TEXT, max_size=5), TEXT, st.data())
def test_values_and_prefixes_are_found_as_bisect_finds_them(
    texts: set[bytes], wanted: set[bytes], prefix: bytes, data: st.DataObject
) -> None:
    values = sorted(texts)
    last = data.draw(st.integers(0, len(values)))
    first = data.draw(st.integers(0, last))
    raw = b"".join(map(string, values))
    places = np.empty(len(values), np.uint32)
    assert walk_strings(array(raw), 0, len(raw), places) >= 0
    looked_for = sorted(wanted)
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in looked_for]))).astype(np.int64)
    found = np.empty(len(looked_for), np.int64)
    count = find_values(array(raw), 0, places, len(raw), first, last, array(b"".join(looked_for)), cuts, found)
    assert [values[one] for one in found[:count].tolist()] == [one for one in looked_for if one in values[first:last]]
    bounds = np.empty(3, np.int64)
    find_prefix(array(raw), 0, places, len(raw), first, last, array(prefix), len(prefix), bounds)
    low, high, longer = bounds.tolist()
    assert low == bisect_left(values, prefix, first, last)
    assert values[low:high] == [one for one in values[first:last] if one.startswith(prefix)]
    assert longer == low + (values[low:high][:1] == [prefix])


def test_places_that_are_wrong_by_now_are_read_within_bounds() -> None:
    raw = b"\xff" * 40
    places = np.array([0, 30, 39, 400], np.uint32)
    starts, ends = np.empty(4, np.int64), np.empty(4, np.int64)
    wanted = np.arange(4, dtype=np.int64)
    assert string_bounds(array(raw), 0, places, 40, wanted, starts, ends) == 0
    assert (ends == 40).all()
    list_bounds(array(raw), 0, places, 40, wanted, 40, starts, ends)
    assert (starts <= 48).all()
    assert (starts <= ends).all()
    found = np.empty(1, np.int64)
    assert find_values(array(raw), 0, places, 40, 0, 4, array(b"a"), np.array([0, 1], np.int64), found) == 0
