"""Index headers: of a block's index what is needed to find things in it, in a local file.

Of an index of up to `WHOLE_BYTES` that file is all of it, got with one read. Of a larger one it has holes: symbols,
postings offset table and table of contents stand where they stand in the index, the rest was never written and takes no
disk (a sparse file). So `IndexFile` reads it as it reads whole ones, checksums included. It is kept over restarts, and
made again where it is damaged. In a bucket that is a folder of this machine the index serves in its place.

A loaded header knows where each symbol and each entry of the table is; `IndexHeaders` loads it when a query first needs
it and forgets it when none did for a while.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from mimir_ray.clock import Clock
from mimir_ray.errors import Unavailable
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.regex_verdicts import RegexVerdicts
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.append_file import storage_error
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.index_format import HEADER, TOC, TOC_BYTES
from mimir_ray.tsdb.block.index_reader import IndexFile
from mimir_ray.tsdb.block.series_labels import Symbols, gathered
from mimir_ray.tsdb.index.columns import strings_of

from .header_tables import (
    CODES,
    MALFORMED,
    READ_AHEAD_BYTES,
    find_prefix,
    find_values,
    list_bounds,
    string_bounds,
    walk_strings,
    walk_table,
)
from .layout import INDEX, block_key
from .store import Bucket

log = structlog.get_logger(__name__)

HEADER_FILE = "index-header"
WHOLE_FILE = "index"
"""In its place, where it has no holes."""
WHOLE_BYTES = 1 << 20
TAIL_BYTES = 256 << 10  # at least TOC_BYTES
"""What is read of the end of a larger index first: the table of contents, and often all of the postings table."""
PART_BYTES = 16 << 20
MATCHERS_CACHED = 128


@dataclass(eq=False)
class HeadersBusy(Unavailable):
    """Too many headers are being loaded. Upstream: pkg/storegateway/indexheader SnapshotReader gate."""

    waited_s: float

    def describe(self) -> str:
        return f"an index header was not loaded: others were still being loaded after {self.waited_s:g} s"


@dataclass(slots=True, eq=False)
class Strings:
    """Strings in an index: string i has its length at data[base + places[i]] (uint32) and ends before `end`."""

    data: NDArray[np.uint8]
    base: int
    places: NDArray[np.uint32]
    end: int

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def none(cls, data: NDArray[np.uint8]) -> Strings:
        return cls(data, 0, np.empty(0, np.uint32), 0)

    def bounds(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where these are: data[starts[i]:ends[i]]."""
        starts, ends = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int64)
        string_bounds(self.data, self.base, self.places, self.end, numbers, starts, ends)
        return starts, ends

    def gathered(self, numbers: NDArray[np.int64]) -> Symbols:
        """Their bytes, back to back."""
        return gathered(self.data, *self.bounds(numbers))

    def texts(self, numbers: NDArray[np.int64]) -> list[str]:
        some = self.gathered(numbers)
        return strings_of(np.arange(len(numbers), dtype=np.int32), some.arena, some.cuts)

    def find(self, wanted: tuple[NDArray[np.uint8], NDArray[np.int64]], first: int, last: int) -> NDArray[np.int64]:
        """Of strings first..last - 1, which ascend, those of the wanted ones (see `find_values`)."""
        values, cuts = wanted
        found = np.empty(len(cuts) - 1, np.int64)
        return found[: find_values(self.data, self.base, self.places, self.end, first, last, values, cuts, found)]


def _range(first: int, last: int) -> NDArray[np.int64]:
    return np.arange(first, last, dtype=np.int64)


@dataclass(slots=True)
class IndexHeader:
    """A loaded header: which label pairs have postings, and where. Thread-safe."""

    file: IndexFile
    symbols: Strings
    entries: Strings
    """Of the postings table: the value of each, with the place of its list behind it."""
    names: Strings
    """Of all labels, ascending; the first one is empty where entry 0 is of all series."""
    firsts: NDArray[np.int64]
    """int64[N + 1]: name n has the entries firsts[n]:firsts[n + 1]."""
    places: NDArray[np.int64] | None
    """Where lists begin, ascending, and where the last one ends; None where they lie in the order of the table."""
    is_whole: bool
    """Whether `file` has all bytes of the index."""
    used_s: float = 0.0
    _runs: dict[str, tuple[int, int]] = field(default_factory=dict)
    _accepted: OrderedDict[Matcher, NDArray[np.uint32]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def load(cls, path: Path | str, is_whole: bool = False) -> IndexHeader:
        """Raises `DamagedBlock`, `StorageFailed`."""
        file = IndexFile(path)
        symbols = _symbols(file)
        return cls(file, symbols, *_table(file), is_whole)

    @property
    def has_all(self) -> bool:
        """Whether entry 0 is of all series."""
        return len(self.names) > 0 and self.run("") == (0, int(self.firsts[1]))

    def label_names(self) -> list[str]:
        """Sorted names of all labels."""
        return sorted(filter(None, self.names.texts(_range(0, len(self.names)))))

    def run(self, name: str) -> tuple[int, int]:
        """The entries of a label: from the first one to before the second; two equal numbers where there are none."""
        known = self._runs.get(name)
        if known is None:
            found = self.names.find(_encoded(name), 0, len(self.names)).tolist()
            known = (int(self.firsts[found[0]]), int(self.firsts[found[0] + 1])) if found else (0, 0)
            if found:  # so there are no more of them than names
                self._runs[name] = known
        return known

    @property
    def size(self) -> int:
        """Bytes of the whole index."""
        return len(self.file.data)

    @property
    def memory(self) -> int:
        """Bytes that it holds."""
        with self._lock:
            kept = sum(one.nbytes for one in self._accepted.values())
        return self.symbols.places.nbytes + self.entries.places.nbytes + kept

    def values(self, name: str) -> list[str]:
        """All values of a label, in bytewise order."""
        return self.entries.texts(_range(*self.run(name)))

    def lists(self, entries: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """(where the postings lists of these entries begin in the index, where they end at the latest, their bytes)."""
        starts, ends = np.empty(len(entries), np.int64), np.empty(len(entries), np.int64)
        tail, strings = self.file.toc.postings_table, self.entries
        size = list_bounds(strings.data, strings.base, strings.places, strings.end, entries, tail, starts, ends)
        if self.places is not None:
            ends = self.places[np.minimum(np.searchsorted(self.places, starts, side="right"), len(self.places) - 1)]
            size = int((ends - starts).sum())
        return starts, ends, size

    def accepted(self, matcher: Matcher, verdicts: RegexVerdicts | None = None) -> NDArray[np.int64]:
        """The entries of the matcher's name whose values its pattern (not its negation) accepts.

        `verdicts`: what was said of values in other blocks.
        """
        first, last = self.run(matcher.name)
        strings = self.entries
        if matcher.alternatives is not None:
            return strings.find(matcher.encoded_alternatives, first, last)
        if matcher.prefix is not None:
            literal, more = matcher.prefix
            raw, cuts = _encoded(literal)
            bounds = np.empty(3, np.int64)
            find_prefix(strings.data, strings.base, strings.places, strings.end, first, last, raw, int(cuts[1]), bounds)
            begin, end, longer = bounds.tolist()
            return _range(longer if more else begin, end)
        with self._lock:
            known = self._accepted.get(matcher)
            if known is not None:
                self._accepted.move_to_end(matcher)
                return known.astype(np.int64)
        fits = matcher.accepted_values(strings.data, *strings.bounds(_range(first, last)), verdicts)
        entries = np.flatnonzero(fits) + first
        with self._lock:
            self._accepted[matcher] = entries.astype(np.uint32)
            while len(self._accepted) > MATCHERS_CACHED:
                self._accepted.popitem(last=False)
        return entries


@lru_cache(1024)
def _encoded(text: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """As `find_values` wants one string."""
    raw = text.encode("utf-8", "surrogatepass")
    return np.frombuffer(raw + bytes(READ_AHEAD_BYTES), np.uint8), np.array([0, len(raw)], np.int64)


def _symbols(file: IndexFile) -> Strings:
    at = file.toc.symbols
    if not at:
        return Strings.none(file.data)
    count, first, end = file.section(at)
    if count > end - first:
        raise DamagedBlock(str(file.path), at, "more symbols than bytes")
    places = np.empty(count, np.uint32)
    if walk_strings(file.data, first, end, places) < 0:
        raise DamagedBlock(str(file.path), at, "a symbol is malformed")
    return Strings(file.data, first, places, end)


def _table(file: IndexFile) -> tuple[Strings, Strings, NDArray[np.int64], NDArray[np.int64] | None]:
    """`entries`, `names`, `firsts` and `places` of a header."""
    at, data = file.toc.postings_table, file.data
    if not at:
        return Strings.none(data), Strings.none(data), np.zeros(1, np.int64), None
    count, first, end = file.section(at)
    if count > (end - first) // 4:
        raise DamagedBlock(str(file.path), at, "more entries than bytes")
    entries, names = np.empty(count, np.uint32), np.empty(count, np.uint32)
    firsts, ascending = np.empty(count + 1, np.int64), np.empty(1, np.bool_)
    found = walk_table(data, first, end, at, entries, firsts, names, ascending)
    if found < 0:
        what = "malformed" if -found % CODES == MALFORMED else "out of order"
        raise DamagedBlock(str(file.path), at, f"entry {-found // CODES} of the postings table is {what}")
    firsts[found] = count
    places = None
    if not ascending[0]:
        starts = np.empty(count, np.int64)
        list_bounds(data, first, entries, end, _range(0, count), 0, starts, np.empty(count, np.int64))
        places = np.unique(np.concatenate((starts, (at, len(data)))))
    # Copies, as most of what was made for them was not needed.
    return (
        Strings(data, first, entries, end), Strings(data, first, names[:found].copy(), end),
        firsts[: found + 1].copy(), places,
    )  # fmt: skip


def build_header(bucket: Bucket, key: str, folder: Path) -> int:
    """Makes the file of the index at `key`, in its folder; returns the bytes that were read.

    Raises `DamagedBlock`, `BucketUnavailable`, `ObjectNotFound`, `StorageFailed`.
    """
    head = bucket.get_range(key, 0, WHOLE_BYTES)
    if len(head) < WHOLE_BYTES:
        _write(folder / WHOLE_FILE, len(head), {0: head})
        return len(head)
    size = bucket.info(key).size
    tail_at = max(WHOLE_BYTES, size - TAIL_BYTES)
    tail = bucket.get_range(key, tail_at, size - tail_at)
    if len(tail) != size - tail_at:
        raise DamagedBlock(key, size, "shorter than its size says")
    if tail_at == WHOLE_BYTES:
        _write(folder / WHOLE_FILE, size, {0: head, tail_at: tail})
        return size
    symbols, series, _, _, _, table = TOC.unpack(tail[-TOC_BYTES:][: TOC.size])
    # The checksum is looked at when the file is opened; here offsets only have to be inside of the object.
    if max(symbols, series, table) > size - TOC_BYTES:
        raise DamagedBlock(key, size - TOC_BYTES, "a section outside of the file")
    parts = {0: head[: max(len(HEADER), series)], tail_at: tail}
    total = len(head) + len(tail)
    for start, end in ((symbols, min(series, tail_at)), (table, tail_at)):
        for at in range(max(start, WHOLE_BYTES), end if start else 0, PART_BYTES):
            parts[at] = bucket.get_range(key, at, min(PART_BYTES, end - at))
            total += len(parts[at])
    _write(folder / HEADER_FILE, size, parts)
    return total


def _write(path: Path, size: int, parts: dict[int, bytes]) -> None:
    """A file of `size` bytes with these in it. Raises `StorageFailed`."""
    temporary = path.with_name(f".tmp-{path.name}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.truncate(size)
            for at, part in parts.items():
                os.pwrite(file.fileno(), part, at)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error("write", path, error) from error


class HeaderEvents:
    """What headers tell about their life; a metrics object of the role's listens."""

    def loaded(self, seconds: float) -> None: ...

    def load_failed(self) -> None: ...

    def unloaded(self) -> None: ...

    def unload_failed(self) -> None: ...


class IndexHeaders:
    """The headers of one process, by tenant and block. Thread-safe."""

    def __init__(
        self,
        bucket: Bucket,
        directory: Path,
        clock: Clock,
        concurrency: int = 4,
        queue_timeout_s: float = 5.0,
        events: HeaderEvents | None = None,
    ) -> None:
        """`directory`: headers are in <directory>/<tenant>/<ULID>/. At most `concurrency` are loaded at once."""
        self._bucket = bucket
        self._directory = directory
        self._clock = clock
        self._gate = threading.BoundedSemaphore(concurrency) if concurrency else None
        self._queue_timeout_s = queue_timeout_s
        self._events = events or HeaderEvents()
        self._lock = threading.Lock()
        self._loaded: dict[tuple[TenantId, str], IndexHeader] = {}
        self._loading: dict[tuple[TenantId, str], threading.Lock] = {}

    def __len__(self) -> int:
        return len(self._loaded)

    @property
    def memory(self) -> int:
        with self._lock:
            return sum(one.memory for one in self._loaded.values())

    def path(self, tenant: TenantId, ulid: str) -> Path:
        """Of the file of a block that has one."""
        whole = self._directory / tenant / ulid / WHOLE_FILE
        return whole if whole.exists() else whole.with_name(HEADER_FILE)

    def get(self, tenant: TenantId, ulid: str) -> IndexHeader:
        """The loaded header. Raises `HeadersBusy`, `DamagedBlock`, `StorageFailed`, `BucketUnavailable`,
        `ObjectNotFound` (the block is gone)."""
        key = tenant, ulid
        with self._lock:
            found = self._loaded.get(key)
            if found is None:
                own = self._loading.setdefault(key, threading.Lock())
        if found is None:
            with own:  # others that want the same header wait for it here, without a place in the gate
                found = self._loaded.get(key)
                if found is None:
                    found = self._load(tenant, ulid)
                    with self._lock:
                        self._loaded[key] = found
                        self._loading.pop(key, None)
        elif found.is_whole:
            # Nobody would notice that the block is gone: all that is asked of its index is here.
            self._bucket.local_path(block_key(tenant, ulid, INDEX))
        found.used_s = self._clock.monotonic_s()
        return found

    def _load(self, tenant: TenantId, ulid: str) -> IndexHeader:
        if self._gate is not None and not self._gate.acquire(timeout=self._queue_timeout_s):
            raise HeadersBusy(self._queue_timeout_s)
        began = self._clock.monotonic_s()
        key = block_key(tenant, ulid, INDEX)
        try:
            local = self._bucket.local_path(key)
            if local is not None:
                return IndexHeader.load(local, is_whole=True)
            path = self.path(tenant, ulid)
            if path.exists():
                try:
                    return IndexHeader.load(path, path.name == WHOLE_FILE)
                except DamagedBlock as error:
                    log.warning("an index header was damaged and is made again", path=str(path), error=str(error))
                    path.unlink(missing_ok=True)
            build_header(self._bucket, key, path.parent)
            path = self.path(tenant, ulid)
            return IndexHeader.load(path, path.name == WHOLE_FILE)
        except BaseException:
            self._events.load_failed()
            raise
        finally:
            if self._gate is not None:
                self._gate.release()
            self._events.loaded(self._clock.monotonic_s() - began)

    def unload_idle(self, idle_s: float) -> None:
        """Forgets headers that nobody used for so long; their files stay."""
        oldest = self._clock.monotonic_s() - idle_s
        with self._lock:
            idle = [key for key, one in self._loaded.items() if one.used_s < oldest]
            for key in idle:
                del self._loaded[key]
        for _ in idle:
            self._events.unloaded()

    def drop(self, tenant: TenantId, ulid: str) -> None:
        """The block is not ours any more: its header and its folder go."""
        with self._lock:
            if self._loaded.pop((tenant, ulid), None) is not None:
                self._events.unloaded()
            self._loading.pop((tenant, ulid), None)
        self._remove(self._directory / tenant / ulid)

    def keep_only(self, blocks: dict[TenantId, set[str]]) -> None:
        """Removes folders of blocks that are not named: what an earlier process had."""
        if not self._directory.is_dir():
            return
        for tenant in list(self._directory.iterdir()):
            wanted = blocks.get(TenantId(tenant.name), set())
            if not tenant.is_dir():
                continue
            for folder in list(tenant.iterdir()):
                if folder.name not in wanted:
                    self._remove(folder)
            if not wanted:
                self._remove(tenant)

    def _remove(self, folder: Path) -> None:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            self._events.unload_failed()
            log.warning("a block's folder was not removed", path=str(folder), error=str(error))
