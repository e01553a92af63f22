"""Decoders of what lies in a bucket or comes by the block upload API: meta.json, bucket index, marks, index, chunks.

Index and segments are full of checksums, which no random change survives: after a change they are put right again.
"""

from __future__ import annotations

import gzip
import json
import random
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from mimir_ray.bucket.block_reader import BlockCaches, BucketBlock
from mimir_ray.bucket.bucket_index import BucketIndex, IndexedBlock
from mimir_ray.bucket.found import FoundCache
from mimir_ray.bucket.index_header import IndexHeader
from mimir_ray.bucket.markers import DeletionMark, NoCompactMark, read_deletion_mark, read_no_compact_mark
from mimir_ray.bucket.ranges import PageCache
from mimir_ray.encoding.checksum import crc32c
from mimir_ray.encoding.varint import read_uvarint
from mimir_ray.errors import ClientError, Corruption
from mimir_ray.model.float_histogram import CUSTOM_BUCKETS_SCHEMA, FloatHistogram
from mimir_ray.model.histogram import HistogramColumns, HistogramPart
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.compactor.block_upload import UploadRefused, sanitized
from mimir_ray.testing.blocks import ULID, make_block
from mimir_ray.testing.memory import at_the_edge
from mimir_ray.tsdb.block import chunk_files, index_reader, tombstones
from mimir_ray.tsdb.block.chunk_files import ChunkSegments
from mimir_ray.tsdb.block.decode import Samples, decode
from mimir_ray.tsdb.block.encode import encode_runs
from mimir_ray.tsdb.block.index_reader import IndexFile
from mimir_ray.tsdb.block.meta import BlockMeta
from mimir_ray.tsdb.block.tombstones import Tombstones, read_tombstones, tombstones_bytes
from tests.fuzz.mutation import NUMBERS, Mutator, of_bytes, of_json
from tests.fuzz.target import Target

NOW_MS = 1_700_000_000_000
DAMAGE = (Corruption, ClientError)
TENANT = TenantId("team-a")
SERIES: list[tuple[Labels, list[tuple[int, float]]]] = [
    (labels_of({"__name__": name, "n": str(number)}), [(at * 15_000, at * 0.7) for at in range(length)])
    for name in ("up", "requests_total")
    for number, length in ((0, 1), (1, 9), (2, 150))
]


@cache
def _block() -> dict[str, bytes]:
    """The files of a small block."""
    with tempfile.TemporaryDirectory(prefix="mray-fuzz-") as folder:
        make_block(Path(folder), SERIES)
        root = Path(folder, ULID)
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# Descriptions in JSON.


def _meta_seeds() -> list[bytes]:
    body = json.loads(_block()["meta.json"])
    body["compaction"].update(sources=[ULID], hints=["from-out-of-order"], parents=[{"ulid": ULID}])
    body["thanos"].update(labels={"a": "b"}, downsample={"resolution": 0}, source="receive", version=1)
    return [_block()["meta.json"], json.dumps(body).encode()]


def _meta(data: bytes) -> None:
    meta = BlockMeta.from_json(data)
    assert BlockMeta.from_json(meta.to_json()) == meta
    IndexedBlock.of_meta(meta, 0)


def _upload_start(data: bytes) -> None:
    sanitized(data, ULID, 0, NOW_MS).to_json()


def _bucket_index_seeds() -> list[bytes]:
    meta = BlockMeta.from_json(_block()["meta.json"])
    index = BucketIndex((IndexedBlock.of_meta(meta, 5),), {ULID: 7}, 1_700_000_000)
    return [gzip.decompress(index.to_bytes())]


def _bucket_index(data: bytes) -> None:
    BucketIndex.from_bytes(gzip.compress(data, 1, mtime=0)).to_bytes()


def _marks(data: bytes) -> None:
    bucket: Any = SimpleNamespace(get=lambda key: data)
    for read in (read_deletion_mark, read_no_compact_mark):
        try:
            read(bucket, TENANT, ULID)  # type: ignore[operator]
        except Corruption:
            continue


# Files with checksums.


def _sealed(sound: bytes, regions: Sequence[tuple[int, int]]) -> Mutator:
    """Changes within some regions [start, end), each of which is followed by its checksum."""

    def mutate(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
        if len(data) != len(sound) or rng.random() < 0.05:
            return of_bytes(rng, data, others)
        found = bytearray(data)
        start, end = rng.choice(regions)
        at = rng.randrange(start, max(end, start + 1))
        size = rng.choice((1, 1, 1, 2, 4, 8))
        if rng.random() < 0.5:
            found[at] = (found[at] + rng.choice((1, 2, 0x7F, 0x80, 0xFF))) & 0xFF
        elif at + size <= end:
            found[at : at + size] = (rng.choice(NUMBERS) & ((1 << 8 * size) - 1)).to_bytes(size, "big")
        for start, end in regions:
            found[end : end + 4] = crc32c(bytes(found[start:end])).to_bytes(4, "big")
        return bytes(found)

    return mutate


def _at_edge(data: bytes) -> Any:
    """In place of mapping a file."""
    return mock.Mock(side_effect=lambda path: at_the_edge(data))


@cache
def _index_regions() -> list[tuple[int, int]]:
    data = _block()["index"]
    with mock.patch.object(index_reader, "map_file", _at_edge(data)):
        file = IndexFile(Path("index"))
    table = file.postings_table()
    found = [(len(data) - index_reader.TOC_BYTES, len(data) - 4)]
    for at in (file.toc.symbols, file.toc.postings_table, *table.offsets.tolist()):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((at + 4, at + 4 + size))
    view = np.frombuffer(data, np.uint8)
    for reference in file.all_references(table).tolist():
        size, at, _ = read_uvarint(view, reference * 16, len(view))
        found.append((int(at), int(at) + int(size)))
    return found


def _index_mutate(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return _sealed(_block()["index"], _index_regions())(rng, data, others)


def _index(data: bytes) -> None:
    with mock.patch.object(index_reader, "map_file", _at_edge(data)):
        file = IndexFile(Path("index"))
    series = file.series()
    rows = np.arange(len(series.references), dtype=np.int32)
    offsets, mints, maxts, references, _ = file.chunk_lists(series, rows, -(1 << 62), 1 << 62)
    assert len(mints) == len(maxts) == len(references) == offsets[-1]
    series.index.view().names(rows)
    table = file.postings_table()
    for offset in table.offsets.tolist():
        file.postings(offset)


def _header(data: bytes) -> None:
    with mock.patch.object(index_reader, "map_file", _at_edge(data)):
        header = IndexHeader.load("index", is_whole=True)
    headers: Any = SimpleNamespace(get=lambda *_: header)
    nowhere: Any = None
    block = BucketBlock(nowhere, TENANT, ULID, headers, BlockCaches(PageCache(0), PageCache(0), FoundCache(0)))
    header.lists(np.arange(len(header.entries), dtype=np.int64))
    for name in (*header.label_names(), "nowhere"):
        for value in (*header.values(name), "x"):
            for kind, text in (
                (MatchType.EQUAL, value), (MatchType.NOT_EQUAL, value), (MatchType.REGEX, f"{value[:1]}.*"),
                (MatchType.REGEX, ".+[0-9]"),
            ):  # fmt: skip
                try:
                    found = block.find((Matcher(kind, name, text),))
                    assert len(found.labels.columns()) == len(found) == len(found.hashes())
                    assert len(found.mints) == len(found.references) == found.offsets[-1]
                except DAMAGE:
                    continue


@cache
def _segment_offsets() -> list[int]:
    data, found, at = _block()["chunks/000001"], [], 8
    view = np.frombuffer(data, np.uint8)
    while at < len(data):
        found.append(at)
        size, behind, _ = read_uvarint(view, at, len(view))
        at = int(behind) + 1 + int(size) + 4
    return found


def _segment_mutate(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    sound, regions = _block()["chunks/000001"], []
    view = np.frombuffer(sound, np.uint8)
    for at in _segment_offsets():
        size, behind, _ = read_uvarint(view, at, len(view))
        regions.append((int(behind), int(behind) + 1 + int(size)))
    return _sealed(sound, regions)(rng, data, others)


def _segment(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="mray-fuzz-") as folder:
        Path(folder, "000001").touch()
        segments = ChunkSegments(Path(folder))
    with mock.patch.object(chunk_files, "map_file", _at_edge(data)):
        for offset in (*_segment_offsets(), len(data) - 1, len(data) + 8):
            try:
                _, starts, ends, encodings = segments.locate(np.array([offset], np.int64))
                decode([segments.view(0)], np.zeros(1, np.int32), starts, ends, encodings)
            except DAMAGE:
                continue


# Chunks without the segment around them: one byte of encoding, then the chunk.


def _histograms(schema: int) -> HistogramColumns:
    rows = []
    for number in range(4):
        counts = np.array([1.0, 2.0 + number, 5.0])
        custom = np.array([0.1, 1.0, 7.5]) if schema == CUSTOM_BUCKETS_SCHEMA else np.empty(0)
        negative = np.empty(0) if len(custom) else counts
        total = float(counts.sum() + negative.sum())
        rows.append(
            FloatHistogram(
                schema, 0.0, 0.0, total, 1.5, 0,
                np.array([0, 1, 2] if len(custom) else [-3, 0, 9], np.int32), counts,
                np.array([1, 2, 40][: len(negative)], np.int32), negative, custom,
            )
        )  # fmt: skip
    return HistogramColumns.from_rows(rows)


def _chunk_seeds() -> list[bytes]:
    times = np.array([1_000, 16_000, 31_000, 46_001], np.int64)
    values = np.array([1.0, 1.5, float("nan"), -1e300])
    starts = np.array([500, 500, 30_000, 30_000], np.int64)
    offsets = np.array([0, 4], np.int64)
    which = np.arange(4, dtype=np.int32)
    found = []
    for start in (None, starts):
        parts: list[HistogramPart | None] = [None]
        for schema in (3, CUSTOM_BUCKETS_SCHEMA):
            columns = _histograms(schema)
            parts.append(HistogramPart(which, columns))
            odd = _histograms(schema)
            odd.positive_counts = odd.positive_counts + 0.25
            odd.count = odd.count + 0.75
            parts.append(HistogramPart(which, odd))
        for part in parts:
            table, data = encode_runs(Samples(offsets, times, values, part, start))
            for at, length, encoding in zip(table.starts, table.lengths, table.encodings, strict=True):
                found.append(bytes([int(encoding)]) + data[int(at) : int(at + length)].tobytes())
    return found


def _chunk(data: bytes) -> None:
    if not data:
        return
    chunk = at_the_edge(data[1:])
    ends = np.array([len(chunk)], np.int64)
    samples = decode([chunk], np.zeros(1, np.int32), np.zeros(1, np.int64), ends, np.array([data[0]], np.uint8))
    assert len(samples.timestamps) == len(samples.values) == samples.offsets[-1]


def _tombstones(data: bytes) -> None:
    """Without the checksum, which is added."""
    whole = data + crc32c(data[5:]).to_bytes(4, "big")
    with tempfile.TemporaryDirectory(prefix="mray-fuzz-") as folder:
        Path(folder, tombstones.TOMBSTONES_FILE).write_bytes(whole)
        read_tombstones(Path(folder))


def _tombstone_seeds() -> list[bytes]:
    references, mints, maxts = (np.array(one, np.int64) for one in ([16, 32], [-5, 0], [7, 1 << 60]))
    return [tombstones_bytes(Tombstones(references, mints, maxts))[:-4]]


TARGETS = (
    Target("block-meta", _meta, _meta_seeds, of_json, DAMAGE, share=0.5),
    Target("block-upload", _upload_start, _meta_seeds, of_json, (UploadRefused,), share=0.5),
    Target("bucket-index", _bucket_index, _bucket_index_seeds, of_json, DAMAGE, share=0.5),
    Target(
        "block-marks",
        _marks,
        lambda: [DeletionMark(ULID, 5, "why").to_json(), NoCompactMark(ULID, 5, "manual", "why").to_json()],
        of_json,
        DAMAGE,
        share=0.25,
    ),
    Target("block-index", _index, lambda: [_block()["index"]], _index_mutate, DAMAGE),
    Target("block-header", _header, lambda: [_block()["index"]], _index_mutate, DAMAGE, share=0.5),
    Target(
        "block-segment",
        _segment,
        lambda: [_block()["chunks/000001"]],
        _segment_mutate,
        DAMAGE,
        bytes_per_byte=2000,
        share=0.5,
    ),
    Target("block-chunk", _chunk, _chunk_seeds, of_bytes, DAMAGE, bytes_per_byte=4000),
    Target("block-tombstones", _tombstones, _tombstone_seeds, of_bytes, DAMAGE, share=0.25),
)
