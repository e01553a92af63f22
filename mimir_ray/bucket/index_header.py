"""Index headers: of a block's index what is needed to find things in it, in a local file.

Of an index of up to `WHOLE_BYTES` that file is all of it, got with one read. Of a larger one it has holes: symbols,
postings offset table and table of contents stand where they stand in the index, the rest was never written and takes no
disk (a sparse file). So `IndexFile` reads it as it reads whole ones, checksums included. It is kept over restarts, and
made again where it is damaged. In a bucket that is a folder of this machine the index serves in its place.

A loaded header holds symbols and table as arrays; `IndexHeaders` loads it when a query first needs it and forgets it
when none did for a while.
"""

from __future__ import annotations

import os
import shutil
import threading
from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from mimir_ray.clock import Clock
from mimir_ray.errors import Unavailable
from mimir_ray.kernel import I64, U8, OutI64, device, kernel
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.tenant import TenantId
from mimir_ray.tsdb.append_file import storage_error
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.index_format import HEADER, TOC, TOC_BYTES
from mimir_ray.tsdb.block.index_reader import IndexFile, PostingsTable
from mimir_ray.tsdb.block.series_labels import Symbols, gathered
from mimir_ray.tsdb.index.columns import strings_of

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


@device
def _compare(data: Any, start: Any, end: Any, other_start: Any, other_end: Any) -> Any:
    """Of two byte strings in `data`: below 0 where the first one comes first, 0 where they are equal."""
    for i in range(min(end - start, other_end - other_start)):
        one, other = data[start + i], data[other_start + i]
        if one != other:
            return -1 if one < other else 1
    return (end - start) - (other_end - other_start)


@kernel
def name_runs(data: U8, name_starts: I64, name_ends: I64, value_starts: I64, value_ends: I64, firsts: OutI64) -> int:
    """Where in a postings table the entries of each name begin.

    Args:
        data: the index; names and values are ranges of it.
        firsts: as long as the table, written: the first entry of each name.

    Returns how many names there are, or -(p + 1) where entry p does not follow entry p - 1 in order of (name, value).
    """
    count = 0
    for p in range(len(name_starts)):
        if p > 0:
            order = _compare(data, name_starts[p - 1], name_ends[p - 1], name_starts[p], name_ends[p])
            if order > 0:
                return -(p + 1)
            if order == 0:
                if _compare(data, value_starts[p - 1], value_ends[p - 1], value_starts[p], value_ends[p]) >= 0:
                    return -(p + 1)
                continue
        firsts[count] = p
        count += 1
    return count


@kernel
def first_not_before(data: U8, starts: I64, ends: I64, first: int, last: int, value: U8) -> int:
    """Of entries first..last - 1, whose texts data[starts[p]:ends[p]] ascend: the first that is not before `value`, or
    `last`."""
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        size = ends[middle] - starts[middle]
        at = 0
        while at < min(size, len(value)) and data[starts[middle] + at] == value[at]:
            at += 1
        if at < len(value) and (at == size or data[starts[middle] + at] < value[at]):
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def list_ends(offsets: I64, end: int, ends: OutI64) -> bool:
    """Lists that lie in the order of their table, the last one before byte `end`: ends[p] is where the next one starts.

    Returns whether they do.
    """
    for p in range(len(offsets)):
        ends[p] = offsets[p + 1] if p + 1 < len(offsets) else end
        if ends[p] <= offsets[p]:
            return False
    return True


@dataclass(slots=True)
class IndexHeader:
    """A loaded header: which label pairs have postings, and where. Thread-safe."""

    file: IndexFile
    symbols: Symbols
    table: PostingsTable
    runs: dict[str, tuple[int, int]]
    """Label name → entries [first, last) of the table; the entry of all series is not among them."""
    ends: NDArray[np.int64]
    """int64[P]: before which byte of the index the list of an entry ends."""
    series_end: int
    size: int
    """Bytes of the whole index."""
    is_whole: bool
    """Whether `file` has all of them."""
    used_s: float = 0.0
    _accepted: OrderedDict[Matcher, NDArray[np.int64]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def load(cls, path: Path, is_whole: bool = False) -> IndexHeader:
        """Raises `DamagedBlock`, `StorageFailed`."""
        file = IndexFile(path)
        table = file.postings_table()
        symbols = file.symbols()
        toc = file.toc
        firsts = np.empty(len(table), np.int64)
        count = name_runs(file.data, table.name_starts, table.name_ends, table.value_starts, table.value_ends, firsts)
        if count < 0:
            raise DamagedBlock(
                str(path), toc.postings_table, f"entry {-count - 1} of the postings table is out of order"
            )
        bounds = [*firsts[:count].tolist(), len(table)]
        data = file.data
        names = [
            data[table.name_starts[first] : table.name_ends[first]].tobytes().decode("utf-8", "replace")
            for first in bounds[:-1]
        ]
        runs = {name: (first, last) for name, first, last in zip(names, bounds, bounds[1:], strict=False) if name}
        # A list ends where the next one starts, or the table; they need not lie in the order of the table.
        ends = np.empty(len(table), np.int64)
        if not list_ends(table.offsets, toc.postings_table, ends):
            places = np.unique(np.append(table.offsets, toc.postings_table))
            ends = places[np.searchsorted(places, table.offsets, side="right")]
        series_end = toc.label_indices or toc.postings or len(data) - TOC_BYTES
        return cls(file, symbols, table, runs, ends, series_end, len(data), is_whole)

    @property
    def memory(self) -> int:
        """Bytes that it holds."""
        return self.symbols.arena.nbytes + self.symbols.cuts.nbytes + 6 * 8 * len(self.table)

    def values(self, name: str) -> list[str]:
        """All values of a label, in bytewise order."""
        first, last = self.runs.get(name, (0, 0))
        return self._texts(first, last)

    def _texts(self, first: int, last: int) -> list[str]:
        if first == last:
            return []
        some = gathered(self.file.data, self.table.value_starts[first:last], self.table.value_ends[first:last])
        return strings_of(np.arange(last - first, dtype=np.int32), some.arena, some.cuts)

    def accepted(self, matcher: Matcher) -> NDArray[np.int64]:
        """The entries of the matcher's name whose values its pattern (not its negation) accepts."""
        with self._lock:
            known = self._accepted.get(matcher)
            if known is not None:
                self._accepted.move_to_end(matcher)
                return known
        found = self._judge(matcher)
        with self._lock:
            self._accepted[matcher] = found
            while len(self._accepted) > MATCHERS_CACHED:
                self._accepted.popitem(last=False)
        return found

    def _judge(self, matcher: Matcher) -> NDArray[np.int64]:
        first, last = self.runs.get(matcher.name, (0, 0))
        if matcher.alternatives is not None:
            entries = [self._find(value, first, last) for value in sorted(matcher.alternatives)]
            return np.array(sorted(one for one in entries if one >= 0), np.int64)
        if matcher.prefix is not None:
            literal, more = matcher.prefix
            prefix = literal.encode("utf-8", "surrogatepass")
            low = self._bisect(prefix, first, last)
            high = bisect_left(range(last), True, low, last, key=lambda at: not self._value(at).startswith(prefix))
            if more and low < high and self._value(low) == prefix:
                low += 1
            return np.arange(low, high, dtype=np.int64)
        table = self.table
        fits = matcher.accepted_values(self.file.data, table.value_starts[first:last], table.value_ends[first:last])
        return np.flatnonzero(fits) + first

    def _value(self, entry: int) -> bytes:
        return self.file.data[self.table.value_starts[entry] : self.table.value_ends[entry]].tobytes()

    def _bisect(self, value: bytes, first: int, last: int) -> int:
        """The first entry of [first, last) that is not before the value."""
        table, raw = self.table, np.frombuffer(value, np.uint8)
        return int(first_not_before(self.file.data, table.value_starts, table.value_ends, first, last, raw))

    def _find(self, value: str, first: int, last: int) -> int:
        raw = value.encode("utf-8", "surrogatepass")
        at = self._bisect(raw, first, last)
        return at if at < last and self._value(at) == raw else -1


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
                return IndexHeader.load(Path(local), is_whole=True)
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
