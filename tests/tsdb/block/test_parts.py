"""The parts of a block against slow twins that read the formats byte by byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.encoding.checksum import crc32c
from mimir_ray.encoding.crc32c import crc32c_between
from mimir_ray.kernel import U8, kernel
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.testing.blocks import ULID, make_block
from mimir_ray.tsdb.block.chunk_merge import decode_table, merge_chunks
from mimir_ray.tsdb.block.chunk_table import ChunkTable
from mimir_ray.tsdb.block.decode import Samples
from mimir_ray.tsdb.block.encode import encode_runs
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.index_reader import IndexFile
from mimir_ray.tsdb.block.meta import BlockMeta, make_ulid
from mimir_ray.tsdb.block.ordering import bytewise_order
from mimir_ray.tsdb.block.tombstones import Tombstones, read_tombstones, tombstones_bytes


@kernel
def _checksum(data: U8, start: int, end: int) -> int:
    return np.int64(crc32c_between(data, start, end))


@given(st.binary(max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_the_checksum_in_kernels_is_the_one_of_files(data: bytes, start: int, end: int) -> None:
    start, end = sorted((min(start, len(data)), min(end, len(data))))
    assert _checksum(np.frombuffer(data, np.uint8), start, end) == crc32c(data[start:end])


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"abcdefgh" * 2, b"abcdefgh" * 3, b""])))
def test_byte_strings_are_sorted_stably(strings: list[bytes]) -> None:
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in strings]))).astype(np.int64)
    order = bytewise_order(np.frombuffer(b"".join(strings), np.uint8), cuts)
    assert order.tolist() == sorted(range(len(strings)), key=strings.__getitem__)


class SlowIndex:
    """Reads an index as the format's description says, trusting it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        assert raw[:5] == bytes.fromhex("baaad70002")
        toc = raw[-52:-4]
        self.check(len(raw) - 52, len(raw) - 4)
        self.toc = [int.from_bytes(toc[at : at + 8], "big") for at in range(0, 48, 8)]
        count, at = self.section(self.toc[0])
        self.symbols = []
        for _ in range(count):
            text, at = self.text(at)
            self.symbols.append(text)
        count, at = self.section(self.toc[5])
        self.table = []
        for _ in range(count):
            two, at = self.uvarint(at)
            assert two == 2
            name, at = self.text(at)
            value, at = self.text(at)
            offset, at = self.uvarint(at)
            self.table.append(((name, value), self.postings(offset)))

    def check(self, start: int, end: int) -> None:
        assert crc32c(self.raw[start:end]).to_bytes(4, "big") == self.raw[end : end + 4]

    def section(self, at: int) -> tuple[int, int]:
        size = int.from_bytes(self.raw[at : at + 4], "big")
        self.check(at + 4, at + 4 + size)
        return int.from_bytes(self.raw[at + 4 : at + 8], "big"), at + 8

    def uvarint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self.raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value, at

    def varint(self, at: int) -> tuple[int, int]:
        raw, at = self.uvarint(at)
        return raw >> 1 ^ -(raw & 1), at

    def text(self, at: int) -> tuple[str, int]:
        size, at = self.uvarint(at)
        return self.raw[at : at + size].decode(), at + size

    def postings(self, at: int) -> list[int]:
        assert at % 4 == 0
        count, at = self.section(at)
        return [int.from_bytes(self.raw[at + 4 * k : at + 4 * k + 4], "big") for k in range(count)]

    def series(self, reference: int) -> tuple[Labels, list[tuple[int, int, int]]]:
        size, at = self.uvarint(reference * 16)
        self.check(at, at + size)
        count, at = self.uvarint(at)
        labels = []
        for _ in range(count):
            name, at = self.uvarint(at)
            value, at = self.uvarint(at)
            labels.append((self.symbols[name], self.symbols[value]))
        chunks: list[tuple[int, int, int]] = []
        count, at = self.uvarint(at)
        for k in range(count):
            step, at = self.uvarint(at) if k else self.varint(at)
            mint = step + (chunks[-1][1] if k else 0)
            span, at = self.uvarint(at)
            further, at = self.varint(at) if k else self.uvarint(at)
            chunks.append((mint, mint + span, further + (chunks[-1][2] if k else 0)))
        return tuple(labels), chunks


def test_an_index_reads_as_its_format_is_described(tmp_path: Path) -> None:
    series = [
        (
            labels_of({"__name__": f"m{n % 3}", "n": str(n), "é": "x" * (n % 40)}),
            [(t - 50, 1.0) for t in range(n * 9 + 1)],
        )
        for n in range(60)
    ]
    make_block(tmp_path, series, segment_bytes=700)
    path = tmp_path / ULID / "index"
    slow = SlowIndex(path.read_bytes())
    (key, everything), *lists = slow.table
    assert key == ("", "")
    found = {reference: slow.series(reference) for reference in everything}
    assert [labels for labels, _ in found.values()] == sorted(labels for labels, _ in series)
    assert slow.symbols == sorted({text for labels, _ in series for pair in labels for text in pair})
    expected: dict[Any, list[int]] = {}
    for reference, (labels, _) in found.items():
        for pair in labels:
            expected.setdefault(pair, []).append(reference)
    assert lists == sorted(expected.items())
    references = [chunk[2] for _, chunks in found.values() for chunk in chunks]
    assert references == sorted(set(references))
    file = IndexFile(path)
    ours = file.series()
    assert ours.references.tolist() == everything
    rows = np.arange(len(everything), dtype=np.int32)
    assert ours.index.labels(rows).to_labels() == [labels for labels, _ in found.values()]
    offsets, *columns, overlapping = file.chunk_lists(ours, rows, 0, 100)
    inside = [[one for one in chunks if one[0] <= 100 and one[1] >= 0] for _, chunks in found.values()]
    assert np.diff(offsets).tolist() == [len(one) for one in inside]
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == [one for part in inside for one in part]
    assert not overlapping.any()


chunk = st.dictionaries(st.integers(0, 60), st.integers(0, 9), min_size=1, max_size=8)


@given(st.lists(st.lists(chunk, max_size=5), max_size=4), st.integers(0, 60), st.integers(0, 60), st.integers(1, 4))
def test_merged_chunks_hold_the_samples_of_the_first_chunk_that_has_them(
    series: list[list[dict[int, int]]], mint: int, maxt: int, samples_per_chunk: int
) -> None:
    flat = [sorted(one.items()) for chunks in series for one in chunks]
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in flat]))).astype(np.int64)
    times = np.array([time for one in flat for time, _ in one], np.int64)
    values = np.array([value for one in flat for _, value in one], np.float64)
    table, data = encode_runs(Samples(cuts, times, values))
    table.offsets = np.concatenate(([0], np.cumsum([len(chunks) for chunks in series]))).astype(np.int64)
    merged, pieces = merge_chunks(table, [data], mint, maxt, samples_per_chunk)
    found = decode_table(merged, pieces)
    ends, out_times, out_values = found.offsets, found.timestamps, found.values
    assert (np.diff(ends) == merged.counts).all()
    for s, chunks in enumerate(series):
        expected: dict[int, float] = {}
        for one in chunks:
            expected = {time: float(value) for time, value in one.items() if mint <= time <= maxt} | expected
        start, end = ends[merged.offsets[s]], ends[merged.offsets[s + 1]]
        found = list(zip(out_times[start:end].tolist(), out_values[start:end].tolist(), strict=True))
        assert found == sorted(expected.items())
    assert (merged.mints == out_times[ends[:-1]]).all()
    assert (merged.maxts == out_times[ends[1:] - 1]).all()


def test_chunks_that_stay_whole_are_not_touched() -> None:
    table, data = encode_runs(Samples(np.array([0, 4, 8]), np.arange(8), np.zeros(8)), samples_per_chunk=2)
    merged, pieces = merge_chunks(table, [data], 1, 7)
    assert isinstance(merged, ChunkTable)
    assert merged.sources.tolist() == [1, 0, 0, 0]
    assert merged.counts.tolist() == [1, 2, 2, 2]
    assert len(pieces) == 2


stones = st.lists(st.tuples(st.integers(0, 1 << 40), *[st.integers(-(1 << 63), (1 << 63) - 1)] * 2), max_size=9)


@given(stones)
def test_tombstones_are_read_as_written(tmp_path_factory: pytest.TempPathFactory, ranges: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("stones")
    columns = [np.array([one[k] for one in sorted(ranges, key=lambda one: one[0])], np.int64) for k in range(3)]
    (folder / "tombstones").write_bytes(tombstones_bytes(Tombstones(*columns)))
    found = read_tombstones(folder)
    assert [found.references.tolist(), found.mints.tolist(), found.maxts.tolist()] == [one.tolist() for one in columns]


def test_meta_keeps_what_it_does_not_know() -> None:
    raw = (
        b'{"ulid":"%s","minTime":1,"maxTime":2,"stats":{"numSamples":3},"compaction":{"level":2,"hints":["from-out-of-order"]},'
        b'"version":1,"thanos":{"labels":{"a":"b"},"index_stats":{"x":1},"files":[{"rel_path":"index","size_bytes":5}]},"more":7}'
    ) % ULID.encode()
    meta = BlockMeta.from_json(raw)
    assert meta == BlockMeta.from_json(meta.to_json())
    assert meta.other == {"more": 7}
    assert meta.thanos is not None
    assert meta.thanos.other == {"index_stats": {"x": 1}}
    assert meta.thanos.files == [("index", 5)]
    assert meta.out_of_order


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"version":2}',
        b'{"version":1,"ulid":"x"}',
        b'{"version":1,"ulid":"%s","minTime":"1"}' % ULID.encode(),
        b'{"version":1,"ulid":"%s","minTime":2,"maxTime":1}' % ULID.encode(),
        b'{"version":1,"ulid":"%s","thanos":{"files":[1]}}' % ULID.encode(),
    ],
)
def test_meta_that_makes_no_sense_is_refused(raw: bytes) -> None:
    with pytest.raises(DamagedBlock):
        BlockMeta.from_json(raw)


def test_ulids_of_later_blocks_are_greater() -> None:
    assert make_ulid(1_469_918_176_385, bytes(10)) == "01ARYZ6S410000000000000000"
    assert make_ulid(1, b"\xff" * 10) < make_ulid(2, bytes(10))
