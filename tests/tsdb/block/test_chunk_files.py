from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.encoding.checksum import crc32c
from mimir_ray.encoding.varint import encode_uvarint
from mimir_ray.tsdb.block.chunk_files import (
    ChunkSegments,
    ChunkSegmentWriter,
    gather_from_segments,
    locate_in_segments,
    record_bytes,
)
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.index_writer import sort_by_symbol, spread_references
from mimir_ray.tsdb.block.series_labels import gather

HEADER = bytes.fromhex("85bd40dd01000000")
chunks = st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=200), st.integers(0, 255)), max_size=12)


def write(folder: Path, some: list[tuple[int, bytes, int]], segment_bytes: int) -> list[int]:
    """Each (array, data, encoding); the arrays hold all data, so that only starts and sources tell which is meant."""
    parts = [b"".join(data if source == one else b"?" for source, data, _ in some) for one in (0, 1)]
    starts = [sum(len(other[1]) if other[0] == one[0] else 1 for other in some[:at]) for at, one in enumerate(some)]
    writer = ChunkSegmentWriter(folder, segment_bytes)
    references = writer.append(
        [np.frombuffer(part, np.uint8) for part in parts],
        np.array([source for source, _, _ in some], np.int32),
        np.array(starts, np.int64),
        np.array([len(data) for _, data, _ in some], np.int64),
        np.array([encoding for _, _, encoding in some], np.uint8),
    )
    writer.finish()
    return references.tolist()


@given(chunks, st.integers(9, 500))
@settings(max_examples=40)
def test_segments_are_as_the_format_says_and_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, some: list[tuple[int, bytes, int]], segment_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("chunks")
    references = write(folder, some, segment_bytes)
    expected: list[bytes] = []
    for (_, data, encoding), reference in zip(some, references, strict=True):
        body = bytes([encoding]) + data
        record = encode_uvarint(len(data)) + body + crc32c(body).to_bytes(4, "big")
        if not expected or (len(expected[-1]) + len(record) > segment_bytes):
            expected.append(HEADER)
        assert reference == (len(expected) - 1) << 32 | len(expected[-1])
        expected[-1] += record
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == expected
    segments = ChunkSegments(folder)
    numbers, starts, ends, encodings = segments.locate(np.array(references, np.int64))
    for row, (_, data, encoding) in enumerate(some):
        assert segments.view(int(numbers[row]))[starts[row] : ends[row]].tobytes() == data
        assert encodings[row] == encoding


@pytest.mark.parametrize("reference", [0, 7, 9, 1 << 20, 1 << 32, -1, (1 << 63) - 1])
def test_a_reference_to_nowhere_is_an_error(tmp_path: Path, reference: int) -> None:
    write(tmp_path, [(0, b"abc", 1)], 100)
    with pytest.raises(DamagedBlock):
        ChunkSegments(tmp_path).locate(np.array([reference], np.int64))


def test_a_record_takes_what_its_length_takes_more() -> None:
    lengths = [0, 127, 128, (1 << 14) - 1, 1 << 14, 1 << 21, 1 << 28]
    expected = [length + len(encode_uvarint(length)) + 5 for length in lengths]
    assert record_bytes(np.array(lengths, np.int64)).tolist() == expected


@given(st.lists(st.integers(0, 9), max_size=30), st.randoms())
def test_sorting_by_symbol_is_stable(keys: list[int], random: object) -> None:
    order = np.arange(len(keys), dtype=np.int64)
    random.shuffle(order)  # type: ignore[attr-defined]
    out = np.empty(len(keys), np.int64)
    sort_by_symbol(np.array(keys, np.int32), order, np.zeros(11, np.int64), out)
    assert out.tolist() == sorted(order.tolist(), key=keys.__getitem__)


def test_labels_get_the_reference_of_their_series() -> None:
    out = np.zeros(6, np.uint32)
    spread_references(np.array([0, 2, 2, 5], np.int64), np.array([7, 8, 9], np.uint32), 1, out)
    assert out.tolist() == [0, 7, 7, 9, 9, 9]


def test_strings_are_gathered_back_to_back() -> None:
    out = np.zeros(4, np.uint8)
    starts, ends, cuts = (np.array(one, np.int64) for one in ([3, 0], [5, 2], [0, 2]))
    gather(np.frombuffer(b"abcde", np.uint8), starts, ends, cuts, out)
    assert out.tobytes() == b"deab"


def located(data: bytes, at: int) -> tuple[int, int, int] | int:
    """Slow: where a chunk's data is, and its encoding; or 1 where it is malformed, 2 where its checksum differs."""
    length, shift, first = 0, 0, at
    while first >= 8 and at < min(len(data), first + 5):
        length |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            end = at + 1 + length
            if end + 4 > len(data):
                return 1
            return (at + 1, end, data[at]) if crc32c(data[at:end]).to_bytes(4, "big") == data[end : end + 4] else 2
    return 1


@given(chunks, st.integers(9, 500), st.none() | st.integers(0, 3000))
@settings(max_examples=40, deadline=None)
def test_chunks_of_many_segments_are_found_one_by_one(
    tmp_path_factory: pytest.TempPathFactory,
    some: list[tuple[int, bytes, int]],
    segment_bytes: int,
    spoiled: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("segments")
    references = np.array(write(folder / "chunks", some, segment_bytes), np.int64)
    data = [np.fromfile(path, np.uint8) for path in sorted((folder / "chunks").iterdir())]
    if spoiled is not None and data:
        data[spoiled % len(data)][spoiled % len(data[spoiled % len(data)])] ^= 0x55
    addresses = np.array([one.ctypes.data for one in data], np.int64)
    sizes = np.array([len(one) for one in data], np.int64)
    sources, offsets = references >> 32, references & 0xFFFFFFFF
    found = tuple(np.zeros(len(some), kind) for kind in (np.int64, np.int64, np.uint8))
    code = locate_in_segments(addresses, sizes, sources, offsets, *found)
    for c, (source, offset) in enumerate(zip(sources.tolist(), offsets.tolist(), strict=True)):
        one = located(data[source].tobytes(), offset)
        if isinstance(one, int):
            assert code == -(4 * c + one)
            return
        assert list(one) == [int(column[c]) for column in found]
    assert code == 0
    starts, ends, _ = found
    places = np.concatenate(([0], np.cumsum(ends - starts))).astype(np.int64)
    out = np.empty(int(places[-1]), np.uint8)
    gather_from_segments(addresses, sizes, sources, starts, ends, places[:-1], out)
    assert out.tobytes() == b"".join(
        data[source][start:end].tobytes()
        for source, start, end in zip(sources.tolist(), starts.tolist(), ends.tolist(), strict=True)
    )
