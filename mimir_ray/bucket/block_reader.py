"""`BucketBlock`: the series and chunks of one block in a bucket, read by ranges.

A query goes label pairs → postings → series entries → chunks. Pairs are in the index header; postings and series come
from `index`, chunks from `chunks/NNNNNN`, each through a cache of pages (ranges.py). What matchers found in a block
(labels and chunk lists, decoded, as columns) is kept too, so a query that is asked again goes straight to the chunks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.crc32c import crc32c_between, load32_be
from mimir_ray.encoding.varint import read_uvarint
from mimir_ray.kernel import I64, U8, OutI64, OutU32, kernel
from mimir_ray.model.labels import LabelColumns, StringTable
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.selection import Shard
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.block.chunk_files import locate_chunks
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.index_reader import decode_labels, measure_series, read_chunk_lists
from mimir_ray.tsdb.block.mapping import map_file
from mimir_ray.tsdb.block.series_labels import Symbols
from mimir_ray.tsdb.index.columns import IndexView
from mimir_ray.tsdb.index.interning import stable_hashes

from .index_header import IndexHeader, IndexHeaders
from .layout import CHUNKS, INDEX, block_key
from .ranges import PageCache, RangedObject, WholeObject
from .store import Bucket, ObjectNotFound

SERIES_BYTES_GUESS = 512
"""Upstream: pkg/storegateway/bucket.go EstimatedSeriesP99Size."""
CHUNK_BYTES_GUESS = 1024
EVERYTHING = 1 << 62


@kernel
def entry_lengths(data: U8, places: I64, ends: I64, extra: int, lengths: OutI64) -> int:
    """The whole lengths of entries that begin with the uvarint length of what follows, and `extra` bytes.

    Args:
        places, ends: int64[N], where entry n begins, and before which byte of `data` its bytes are there.
        lengths: written; -1 where the length itself is malformed.

    Returns how many entries are not there to their ends.
    """
    short = 0
    for n in range(len(places)):
        size, at, code = read_uvarint(data, places[n], ends[n])
        if code != 0:
            lengths[n] = -1 if ends[n] - places[n] >= 10 else 16  # no length, or one that is cut off
            short += 1
        elif size > np.uint64(1 << 40):
            lengths[n] = -1
            short += 1
        else:
            lengths[n] = at - places[n] + np.int64(size) + extra
            if lengths[n] > ends[n] - places[n]:
                short += 1
    return short


@kernel
def measure_lists(data: U8, places: I64, ends: I64, counts: OutI64) -> int:
    """How many references L postings lists have; checks their checksums.

    Args:
        places, ends: int64[L], where in `data` each begins, and before which byte it ends at the latest.
        counts: int64[L], written.

    Returns 0, or -(2 * l + 1) where list l is malformed, -(2 * l + 2) where its checksum differs.
    """
    for n in range(len(places)):
        at = places[n]
        if ends[n] - at < 12:
            return -(2 * n + 1)
        size, count = np.int64(load32_be(data, at)), np.int64(load32_be(data, at + 4))
        if size + 8 > ends[n] - at or size != 4 + 4 * count:
            return -(2 * n + 1)
        if crc32c_between(data, at + 4, at + 4 + size) != load32_be(data, at + 4 + size):
            return -(2 * n + 2)
        counts[n] = count
    return 0


@kernel
def decode_lists(data: U8, places: I64, counts: I64, references: OutU32) -> None:
    """The references of measured lists, one list behind the other."""
    done = 0
    for n in range(len(places)):
        for i in range(counts[n]):
            references[done] = np.uint32(load32_be(data, places[n] + 8 + 4 * i))
            done += 1


@dataclass(slots=True)
class Found:
    """What matchers select in a block: S series in the order of their label sets, and their chunks.

    `labels`: of all of them. `offsets`: int64[S + 1], rows of `mints`, `maxts`, `references` (int64[C], of chunks).
    """

    labels: LabelColumns
    hashes: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    mints: NDArray[np.int64]
    maxts: NDArray[np.int64]
    references: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def bytes(self) -> int:
        strings = sum(map(len, self.labels.table.strings)) + 60 * len(self.labels.table)
        arrays = (self.labels.codes, self.hashes, self.offsets, self.mints, self.maxts, self.references)
        return strings + sum(one.nbytes for one in arrays)

    def rows(self, shard: Shard | None, mint: int, maxt: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The series of a shard that have chunks in [mint, maxt], and how many each has."""
        touched = np.zeros(len(self.references) + 1, np.int64)
        np.cumsum((self.mints <= maxt) & (self.maxts >= mint), out=touched[1:])
        counts = np.diff(touched[self.offsets])
        wanted = counts > 0
        if shard is not None and shard.count > 1:
            wanted &= self.hashes % np.uint64(shard.count) == np.uint64(shard.index)
        rows = np.flatnonzero(wanted)
        return rows, counts[rows]


@dataclass(frozen=True, slots=True)
class Located:
    """Chunks of one segment: `rows` of what was asked for, and for each data[starts:ends] and its encoding.

    `name`: the object that they are of.
    """

    name: str
    rows: NDArray[np.int64]
    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    encodings: NDArray[np.uint8]


@dataclass(slots=True)
class FoundCache:
    """Selections of blocks by what was asked, within a bound. Thread-safe."""

    bytes_max: int
    observe: Callable[[bool], None] = lambda _hit: None
    bytes: int = 0
    _kept: OrderedDict[tuple[str, tuple[Matcher, ...]], tuple[Found, int]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: tuple[str, tuple[Matcher, ...]]) -> Found | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
        self.observe(kept is not None)
        return kept[0] if kept is not None else None

    def put(self, key: tuple[str, tuple[Matcher, ...]], found: Found) -> None:
        size = found.bytes
        if size > self.bytes_max // 2:
            return  # it would push out everything else
        with self._lock:
            before = self._kept.pop(key, None)
            self.bytes += size - (before[1] if before else 0)
            self._kept[key] = found, size
            while self.bytes > self.bytes_max:
                _, (_, gone) = self._kept.popitem(last=False)
                self.bytes -= gone


@dataclass(slots=True)
class BlockCaches:
    """What all blocks of a process share. `fetched(kind, bytes)`: what came from the bucket, kind as in Mimir's metric
    (`postings`, `series`, `chunks`)."""

    index: PageCache
    chunks: PageCache
    found: FoundCache
    executor: Executor | None = None
    fetched: Callable[[str, int], None] = lambda _kind, _size: None


class BucketBlock:
    """One block. Thread-safe; cheap to make: nothing is read before it is asked for.

    Methods raise `DamagedBlock`, `BucketUnavailable`, `ObjectNotFound` and what `IndexHeaders.get` raises.
    """

    def __init__(self, bucket: Bucket, tenant: TenantId, ulid: str, headers: IndexHeaders, caches: BlockCaches) -> None:
        self.tenant = tenant
        self.ulid = ulid
        self._bucket = bucket
        self._headers = headers
        self._caches = caches

    def _object(self, file: str, cache: PageCache, kind: str) -> RangedObject:
        caches = self._caches
        key = block_key(self.tenant, self.ulid, file)
        return RangedObject(self._bucket, key, cache, caches.executor, lambda size: caches.fetched(kind, size))

    @property
    def is_mapped(self) -> bool:
        """Whether it is read from files of this machine."""
        try:
            return self._bucket.local_path(block_key(self.tenant, self.ulid, INDEX)) is not None
        except ObjectNotFound:
            return False

    def _index(self, header: IndexHeader, kind: str) -> RangedObject | WholeObject:
        return WholeObject(header.file.data) if header.is_whole else self._object(INDEX, self._caches.index, kind)

    def _segment(self, file: str) -> RangedObject | WholeObject:
        path = self._bucket.local_path(block_key(self.tenant, self.ulid, file))
        return self._object(file, self._caches.chunks, "chunks") if path is None else WholeObject(map_file(path))

    def header(self) -> IndexHeader:
        return self._headers.get(self.tenant, self.ulid)

    # Labels

    def label_names(self, matchers: tuple[Matcher, ...]) -> list[str]:
        """Sorted names of all labels of the series that satisfy the matchers."""
        return sorted(self._found(matchers).labels.names) if matchers else sorted(self.header().runs)

    def label_values(self, name: str, matchers: tuple[Matcher, ...]) -> list[str]:
        """Sorted values of one label of the series that satisfy the matchers."""
        if not matchers:
            return sorted(self.header().values(name))
        labels = self._found(matchers).labels
        codes = np.unique(labels.column(name))
        return sorted(labels.table.strings[code] for code in codes.tolist() if code)

    # Series

    def known(self, matchers: tuple[Matcher, ...]) -> Found | None:
        """What `find` found before, if that is still kept."""
        return self._caches.found.get((f"{self.tenant}/{self.ulid}", matchers))

    def _found(self, matchers: tuple[Matcher, ...]) -> Found:
        found = self.known(matchers)
        return self.find(matchers) if found is None else found

    def find(self, matchers: tuple[Matcher, ...]) -> Found:
        """The series that satisfy all matchers, read anew."""
        found = self._find(matchers)
        self._caches.found.put((f"{self.tenant}/{self.ulid}", matchers), found)
        return found

    def _find(self, matchers: tuple[Matcher, ...]) -> Found:
        header = self.header()
        references, late = self._references(header, matchers)
        if not len(references):
            none = np.empty(0, np.int64)
            nobody = LabelColumns.empty_sets(0, StringTable())
            return Found(nobody, np.empty(0, np.uint64), np.zeros(1, np.int64), none, none, none)
        return self._series(header, references, late)

    def _references(
        self, header: IndexHeader, matchers: tuple[Matcher, ...]
    ) -> tuple[NDArray[np.int64], list[Matcher]]:
        """(ascending references of series, matchers that still have to be applied to their labels).

        Lists are read from the shortest on; one that is longer than the series that it would leave out are worth is
        not read at all. Upstream: pkg/storegateway/bucket_index_postings.go (lazy expanded postings).
        """
        # (bytes of the lists, their entries in the table, whose they are)
        positive: list[tuple[int, NDArray[np.int64], Matcher]] = []
        negative: list[tuple[int, NDArray[np.int64], Matcher]] = []
        late: list[Matcher] = []
        for matcher in matchers:
            entries = header.accepted(matcher)
            refuses = matcher.accepts_empty
            if refuses != matcher.is_negative:  # its own set is the one that its pattern does not accept
                first, last = header.runs.get(matcher.name, (0, 0))
                entries = np.setdiff1d(np.arange(first, last, dtype=np.int64), entries, assume_unique=True)
            size = int((header.ends[entries] - header.table.offsets[entries]).sum())
            if not refuses and not len(entries):
                return np.empty(0, np.int64), []
            (negative if refuses else positive).append((size, entries, matcher))
        positive.sort(key=lambda one: one[0])
        negative.sort(key=lambda one: one[0])
        index = self._index(header, "postings")
        if positive:
            rows = self._union(header, index, positive[0][1])
        else:  # from all series, whose list is of the pair of two empty strings
            table = header.table
            if not len(table) or table.name_starts[0] != table.name_ends[0]:
                return np.empty(0, np.int64), []
            rows = self._union(header, index, np.zeros(1, np.int64))
        for wanted, lists in ((True, positive[1:]), (False, negative)):
            for size, entries, matcher in lists:
                if size > len(rows) * SERIES_BYTES_GUESS:
                    late.append(matcher)
                elif len(entries):
                    rows = rows[_among(rows, self._union(header, index, entries)) == wanted]
        return rows, late

    def _union(
        self, header: IndexHeader, index: RangedObject | WholeObject, entries: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Ascending references of the series in these lists of one name, which have none in common."""
        starts = header.table.offsets[entries]
        got = index.gather(starts, header.ends[entries] - starts)
        places, ends = got.at(starts)
        counts = np.empty(len(entries), np.int64)
        code = measure_lists(got.data, places, ends, counts)
        if code < 0:
            reason = "the postings list is malformed" if -code % 2 else "checksum mismatch of the postings list"
            raise self._damaged(INDEX, int(starts[(-code - 1) // 2]), reason)
        references = np.empty(int(counts.sum()), np.uint32)
        decode_lists(got.data, places, counts, references)
        if len(entries) == 1:
            return references.astype(np.int64)
        # References are positions / 16: where there are many, marking them is faster than sorting.
        if len(references) * 64 > header.size // 16 and int(references.max()) <= header.size // 16:
            marked = np.zeros(header.size // 16 + 1, np.bool_)
            marked[references] = True
            return np.flatnonzero(marked)
        return np.sort(references, kind="stable").astype(np.int64)

    def _series(self, header: IndexHeader, references: NDArray[np.int64], late: Sequence[Matcher]) -> Found:
        source = self._index(header, "series")
        data, places = _entries(source, references * 16, SERIES_BYTES_GUESS, 4)
        count = len(references)
        bodies, body_ends, labels = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
        code = measure_series(data, 0, len(data), places // 16, bodies, body_ends, labels)
        if code < 0:
            raise self._damaged(
                INDEX, int(references[-code - 1]) * 16, "the series is malformed, or its checksum differs"
            )
        cells = np.zeros(count + 1, np.int64)
        np.cumsum(labels, out=cells[1:])
        names, values = np.empty(int(cells[-1]), np.int32), np.empty(int(cells[-1]), np.int32)
        chunks_at = np.empty(count, np.int64)
        symbols = header.symbols
        code = decode_labels(data, bodies, body_ends, cells, len(symbols), names, values, chunks_at)
        if code < 0:
            raise self._damaged(INDEX, int(references[-code - 1]) * 16, "a label of the series is malformed")
        view = _view(symbols, names, values, cells)
        columns = view.labels(np.arange(count, dtype=np.int32))
        hashes = np.empty(count, np.uint64)
        stable_hashes(
            0, count, view.row_offsets, view.cells, view.pair_names, view.pair_values, view.name_symbols,
            view.arena, view.symbol_cuts, hashes,
        )  # fmt: skip
        rows = np.arange(count, dtype=np.int32)
        if late:
            kept = _satisfying(columns, late)
            rows, columns, hashes = rows[kept], columns.take(kept), hashes[kept]
        offsets, overlapping = np.empty(len(rows) + 1, np.int64), np.empty(len(rows), np.bool_)
        chunks = tuple(np.empty(0, np.int64) for _ in range(3))
        for fill in (False, True):
            code = read_chunk_lists(
                data, rows, chunks_at, body_ends, -EVERYTHING, EVERYTHING, fill, offsets, *chunks, overlapping
            )
            if code < 0:
                at = int(references[rows[-code - 1]]) * 16
                raise self._damaged(INDEX, at, "the chunk list of the series is malformed")
            if not fill:
                chunks = tuple(np.empty(int(offsets[-1]), np.int64) for _ in range(3))
        return Found(columns, hashes, offsets, *chunks)

    # Chunks

    def has_chunks(self, references: NDArray[np.int64]) -> bool:
        """Whether `chunks` reads nothing from a bucket far away, as far as that is known before."""
        segments = references >> 32
        for segment in sorted(set(segments.tolist())):
            offsets = references[segments == segment] & 0xFFFFFFFF
            source = self._segment(f"{CHUNKS}/{segment + 1:06d}")
            if isinstance(source, RangedObject) and not source.is_cached(
                offsets, np.full(len(offsets), CHUNK_BYTES_GUESS)
            ):
                return False
        return True

    def chunks(self, references: NDArray[np.int64]) -> Iterator[Located]:
        """Where the data of these chunks is, a segment at a time, checksums looked at. Every row is in one of them."""
        segments = references >> 32
        for segment in sorted(set(segments.tolist())):
            rows = np.flatnonzero(segments == segment)
            file = f"{CHUNKS}/{segment + 1:06d}"
            offsets = references[rows] & 0xFFFFFFFF
            data, places = _entries(self._segment(file), offsets, CHUNK_BYTES_GUESS, 5)
            starts, ends = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
            encodings = np.empty(len(rows), np.uint8)
            code = locate_chunks(data, places, starts, ends, encodings)
            if code < 0:
                raise self._damaged(file, int(offsets[-code // 4]), "the chunk is incomplete, or its checksum differs")
            yield Located(block_key(self.tenant, self.ulid, file), rows, data, starts, ends, encodings)

    def _damaged(self, file: str, offset: int, reason: str) -> DamagedBlock:
        return DamagedBlock(block_key(self.tenant, self.ulid, file), offset, reason)


def _entries(
    source: RangedObject | WholeObject, positions: NDArray[np.int64], guess: int, extra: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(a buffer, where in it each entry begins) of entries that begin with their length; `extra`: bytes behind it.

    Lengths are not known before: what lies close behind the start of each is read, and more of those that are longer.
    Entries that are malformed or cut off are left for those who decode them to find.
    """
    if isinstance(source, WholeObject):
        return source.data, positions
    lengths = np.full(len(positions), guess, np.int64)
    while True:
        got = source.gather(positions, lengths)
        places, ends = got.at(positions)
        whole = np.empty(len(positions), np.int64)
        short = entry_lengths(got.data, places, ends, extra, whole)
        if not short or not (whole > lengths).any():
            return got.data, places
        lengths = np.maximum(lengths, whole)


def _among(rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the ascending rows are among the others, ascending too."""
    if not len(others):
        return np.zeros(len(rows), np.bool_)
    at = np.minimum(np.searchsorted(others, rows), len(others) - 1)
    return others[at] == rows


def _view(symbols: Symbols, names: NDArray[np.int32], values: NDArray[np.int32], cells: NDArray[np.int64]) -> IndexView:
    """Series for whoever reads labels of a `SeriesIndex`: every label is a pair of its own there."""
    used = np.zeros(len(symbols), np.bool_)
    used[names] = True
    name_symbols = np.flatnonzero(used).astype(np.int32)
    numbers = np.zeros(len(symbols), np.int32)
    numbers[name_symbols] = np.arange(len(name_symbols), dtype=np.int32)
    return IndexView(
        symbols.arena, symbols.cuts, numbers[names], values, cells, np.arange(len(names), dtype=np.int32),
        name_symbols, len(symbols), len(names),
    )  # fmt: skip


def _satisfying(labels: LabelColumns, matchers: Sequence[Matcher]) -> NDArray[np.bool_]:
    """Which series satisfy all matchers; looks at each different value once."""
    kept = np.ones(len(labels), np.bool_)
    strings = labels.table.strings
    for matcher in matchers:
        codes, where = np.unique(labels.column(matcher.name), return_inverse=True)
        accepts = np.fromiter((matcher.accepts(strings[code]) for code in codes.tolist()), np.bool_, len(codes))
        kept &= accepts[where.reshape(-1)]
    return kept
