"""`BucketBlock`: the series and chunks of one block in a bucket, read by ranges.

A query goes label pairs → postings → series entries → chunks. Pairs are in the index header; postings and series come
from `index`, chunks from `chunks/NNNNNN`, each through a cache of pages (ranges.py). What matchers found in a block
(labels and chunk lists, decoded, as columns: found.py) is kept too, so a query that is asked again goes straight to the
chunks, which block_source.py reads for all blocks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.crc32c import crc32c_between, load32_be
from mimir_ray.encoding.varint import read_uvarint
from mimir_ray.kernel import I64, U8, OutI64, OutU32, kernel
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.regex_verdicts import RegexVerdicts
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.index_reader import decode_labels, measure_series, read_chunk_lists
from mimir_ray.tsdb.block.mapping import map_file
from mimir_ray.tsdb.block.series_labels import take_ranges

from .few_series import EVER, SERIES_BYTES_GUESS, few_series
from .found import Found, FoundCache
from .index_header import IndexHeader, IndexHeaders, Strings
from .label_sets import LabelSets, find_column, packed
from .layout import CHUNKS, INDEX, block_key
from .ranges import PageCache, RangedObject, WholeObject
from .store import Bucket, ObjectNotFound


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


@kernel
def keep_among(rows: I64, others: I64, wanted: bool, kept: OutI64) -> int:
    """Those of the ascending rows that are among the ascending others (or, unwanted, are not), to `kept`; how many."""
    count = 0
    at = 0
    for r in range(len(rows)):
        # In steps that double, as few of many may be wanted.
        step = 1
        while at + step < len(others) and others[at + step] < rows[r]:
            at += step
            step *= 2
        while step > 0:
            while at + step <= len(others) and others[at + step - 1] < rows[r]:
                at += step
            step //= 2
        if (at < len(others) and others[at] == rows[r]) == wanted:
            kept[count] = rows[r]
            count += 1
    return count


@dataclass(slots=True)
class BlockCaches:
    """What all blocks of a process share. `fetched(kind, bytes)`: what came from the bucket, kind as in Mimir's metric
    (`postings`, `series`, `chunks`)."""

    index: PageCache
    chunks: PageCache
    found: FoundCache
    executor: Executor | None = None
    fetched: Callable[[str, int], None] = lambda _kind, _size: None
    verdicts: RegexVerdicts = field(default_factory=RegexVerdicts)


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
            return self._bucket.local_path(self.key(INDEX)) is not None
        except ObjectNotFound:
            return False

    def key(self, file: str) -> str:
        """Of one of its objects."""
        return block_key(self.tenant, self.ulid, file)

    def _index(self, header: IndexHeader, kind: str) -> RangedObject | WholeObject:
        return WholeObject(header.file.data) if header.is_whole else self._object(INDEX, self._caches.index, kind)

    def segment(self, number: int) -> RangedObject | WholeObject:
        """The chunks whose references begin with this number."""
        file = segment_file(number)
        path = self._bucket.local_path(self.key(file))
        return self._object(file, self._caches.chunks, "chunks") if path is None else WholeObject(map_file(path))

    def header(self) -> IndexHeader:
        return self._headers.get(self.tenant, self.ulid)

    # Labels

    def label_names(self, matchers: tuple[Matcher, ...]) -> list[str]:
        """Sorted names of all labels of the series that satisfy the matchers."""
        return self._found(matchers).labels.label_names() if matchers else self.header().label_names()

    def label_values(self, name: str, matchers: tuple[Matcher, ...]) -> list[str]:
        """Sorted values of one label of the series that satisfy the matchers."""
        if not matchers:
            return sorted(self.header().values(name))
        return self._found(matchers).labels.label_values(name)

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
        few = few_series(header, matchers)
        if few is not None:
            return few
        references, late = self._references(header, matchers)
        if not len(references):
            return Found.nothing()
        return self._series(header, references, late)

    def _references(
        self, header: IndexHeader, matchers: tuple[Matcher, ...]
    ) -> tuple[NDArray[np.int64], list[Matcher]]:
        """(ascending references of series, matchers that still have to be applied to their labels).

        Lists are read from the shortest on; one that is longer than the series that it would leave out are worth is
        not read at all. Upstream: pkg/storegateway/bucket_index_postings.go (lazy expanded postings).
        """
        # (bytes of the lists, where they begin, where they end, whose they are)
        positive: list[tuple[int, NDArray[np.int64], NDArray[np.int64], Matcher]] = []
        negative: list[tuple[int, NDArray[np.int64], NDArray[np.int64], Matcher]] = []
        late: list[Matcher] = []
        for matcher in matchers:
            entries = header.accepted(matcher, self._caches.verdicts)
            refuses = matcher.accepts_empty
            if refuses != matcher.is_negative:  # its own set is the one that its pattern does not accept
                entries = _others(entries, *header.run(matcher.name))
            if not refuses and not len(entries):
                return np.empty(0, np.int64), []
            starts, ends, size = header.lists(entries)
            (negative if refuses else positive).append((size, starts, ends, matcher))
        positive.sort(key=lambda one: one[0])
        negative.sort(key=lambda one: one[0])
        index = self._index(header, "postings")
        if positive:
            _, starts, ends, _ = positive[0]
        elif header.has_all:
            starts, ends, _ = header.lists(np.zeros(1, np.int64))
        else:
            return np.empty(0, np.int64), []
        rows = self._union(header, index, starts, ends)
        for wanted, lists in ((True, positive[1:]), (False, negative)):
            for size, starts, ends, matcher in lists:
                if size > len(rows) * SERIES_BYTES_GUESS:
                    late.append(matcher)
                elif len(starts):
                    rows = _kept(rows, self._union(header, index, starts, ends), wanted)
        return rows, late

    def _union(
        self,
        header: IndexHeader,
        index: RangedObject | WholeObject,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Ascending references of the series in these lists of one name, which have none in common."""
        data, places, limits = index.read(starts, ends - starts)
        counts = np.empty(len(starts), np.int64)
        code = measure_lists(data, places, limits, counts)
        if code < 0:
            reason = "the postings list is malformed" if -code % 2 else "checksum mismatch of the postings list"
            raise self._damaged(INDEX, int(starts[(-code - 1) // 2]), reason)
        references = np.empty(int(counts.sum()), np.uint32)
        decode_lists(data, places, counts, references)
        if len(starts) == 1:
            return references.astype(np.int64)
        # References are positions / 16: where there are many, marking them is faster than sorting.
        if len(references) * 64 > header.size // 16 and int(references.max()) <= header.size // 16:
            marked = np.zeros(header.size // 16 + 1, np.bool_)
            marked[references] = True
            return np.flatnonzero(marked)
        return np.sort(references, kind="stable").astype(np.int64)

    def _series(self, header: IndexHeader, references: NDArray[np.int64], late: Sequence[Matcher]) -> Found:
        source = self._index(header, "series")
        data, places = entry_places(source, references * 16, SERIES_BYTES_GUESS, 4)
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
        rows = np.arange(count, dtype=np.int32)
        if late:
            rows = rows[_satisfying(symbols, cells, names, values, late)]
            cells, chosen = take_ranges(cells, rows.astype(np.int64))
            names, values = names[chosen], values[chosen]
        offsets, overlapping = np.empty(len(rows) + 1, np.int64), np.empty(len(rows), np.bool_)
        chunks = tuple(np.empty(0, np.int64) for _ in range(3))
        for fill in (False, True):
            code = read_chunk_lists(data, rows, chunks_at, body_ends, -EVER, EVER, fill, offsets, *chunks, overlapping)
            if code < 0:
                at = int(references[rows[-code - 1]]) * 16
                raise self._damaged(INDEX, at, "the chunk list of the series is malformed")
            if not fill:
                chunks = tuple(np.empty(int(offsets[-1]), np.int64) for _ in range(3))
        strings = symbols.gathered(packed(names, values, len(symbols)))
        return Found(LabelSets(strings.arena, strings.cuts, cells, names, values), offsets, *chunks)

    def _damaged(self, file: str, offset: int, reason: str) -> DamagedBlock:
        return DamagedBlock(self.key(file), offset, reason)


def segment_file(number: int) -> str:
    """The file of chunks whose references begin with this number."""
    return f"{CHUNKS}/{number + 1:06d}"


def entry_places(
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
        data, places, ends = source.read(positions, lengths)
        whole = np.empty(len(positions), np.int64)
        short = entry_lengths(data, places, ends, extra, whole)
        if not short or not (whole > lengths).any():
            return data, places
        lengths = np.maximum(lengths, whole)


def _others(entries: NDArray[np.int64], first: int, last: int) -> NDArray[np.int64]:
    """Those of first..last - 1 that are not among these."""
    free = np.ones(last - first, np.bool_)
    free[entries - first] = False
    return np.flatnonzero(free) + first


def _kept(rows: NDArray[np.int64], others: NDArray[np.int64], wanted: bool) -> NDArray[np.int64]:
    """Those of the ascending rows that are (or are not) among the others, ascending too."""
    kept = np.empty(len(rows), np.int64)
    return kept[: keep_among(rows, others, wanted, kept)]


def _satisfying(
    symbols: Strings,
    offsets: NDArray[np.int64],
    names: NDArray[np.int32],
    values: NDArray[np.int32],
    matchers: Sequence[Matcher],
) -> NDArray[np.bool_]:
    """Which series satisfy all matchers; looks at each different value once. The arguments as in `LabelSets`."""
    kept = np.ones(len(offsets) - 1, np.bool_)
    known = np.unique(names).astype(np.int64)
    numbers = dict(zip(symbols.texts(known), known.tolist(), strict=True))
    column = np.empty(len(kept), np.int32)
    for matcher in matchers:
        find_column(offsets, names, values, numbers.get(matcher.name, -1), column)
        different, where = np.unique(column, return_inverse=True)
        texts = ["", *symbols.texts(different[different >= 0].astype(np.int64))]
        accepts = np.array([matcher.accepts(text) for text in texts[int(different[0] >= 0) :]], np.bool_)
        kept &= accepts[where.reshape(-1)]
    return kept
