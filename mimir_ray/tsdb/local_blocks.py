"""`LocalBlocks`: the blocks that one tenant's head was cut into and that are still on this machine.

A block is a folder `<directory>/<ULID>`, made by block/writer.py, seen whole or not at all. Its index is read when
somebody asks for it and forgotten when nobody did for a while (`LoadedIndexes`). A block that is dropped disappears
from readers that come later; its files go when those that came before are done.
"""

from __future__ import annotations

import shutil
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mimir_ray.clock import Clock
from mimir_ray.tsdb.append_file import storage_error
from mimir_ray.tsdb.block.meta import META_FILE, BlockMeta, is_ulid
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.block.writer import TEMPORARY_SUFFIX

DELETED_SUFFIX = ".tmp-for-deletion"
INDEX_BYTES_MAX = 512 << 20
INDEX_IDLE_S = 600.0


class LoadedIndexes:
    """Keeps the indexes of blocks that were used lately within a number of bytes. Of all tenants; thread-safe."""

    def __init__(self, clock: Clock, bytes_max: int = INDEX_BYTES_MAX, idle_s: float = INDEX_IDLE_S) -> None:
        self._clock = clock
        self._bytes_max = bytes_max
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._used: OrderedDict[Block, float] = OrderedDict()
        self.unloads = 0

    def use(self, block: Block) -> None:
        """Somebody is about to read the block."""
        with self._lock:
            self._used[block] = self._clock.monotonic_s()
            self._used.move_to_end(block)

    def forget(self, block: Block) -> None:
        """The block is gone."""
        with self._lock:
            self._used.pop(block, None)
        block.close()

    def sweep(self) -> None:
        """Forgets what was idle, and the oldest beyond the bytes. Who reads it right now goes on undisturbed."""
        with self._lock:
            used = list(self._used.items())
        # Without the lock: a block that is just being read makes one wait, and readers wait for the lock.
        sizes = [block.loaded_bytes for block, _ in used]
        total = sum(sizes)
        oldest = self._clock.monotonic_s() - self._idle_s
        for (block, used_s), size in zip(used, sizes, strict=True):
            if used_s >= oldest and total <= self._bytes_max:
                break
            with self._lock:
                if self._used.get(block) != used_s:
                    continue  # used again meanwhile
                del self._used[block]
            block.close()
            total -= size
            self.unloads += 1

    @property
    def bytes(self) -> int:
        with self._lock:
            used = list(self._used)
        return sum(block.loaded_bytes for block in used)


@dataclass(eq=False)
class Lease:
    """Blocks that stay readable for as long as this object lives; of two samples of one time, the first block's counts.

    `in_order` ascending in time, `late` in the order in which they were made.
    """

    in_order: list[Block]
    late: list[Block]

    def __iter__(self) -> Iterator[Block]:
        return iter([*self.in_order, *self.late])


class LocalBlocks:
    """Thread-safe. The constructor removes what was not finished; raises `DamagedBlock` and `StorageFailed`."""

    def __init__(self, directory: Path, indexes: LoadedIndexes) -> None:
        self._directory = directory
        self._indexes = indexes
        self._lock = threading.Lock()
        self._blocks: dict[str, Block] = {}
        self._leases: weakref.WeakSet[Lease] = weakref.WeakSet()
        self._doomed: list[tuple[Block, list[weakref.ref[Lease]]]] = []
        try:
            names = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
            for name in names:
                if name.endswith((TEMPORARY_SUFFIX, DELETED_SUFFIX)):
                    shutil.rmtree(directory / name)
        except OSError as error:
            raise storage_error("clean up", directory, error) from error
        for name in names:
            if is_ulid(name) and (directory / name / META_FILE).exists():
                self._blocks[name] = Block(directory / name)

    @property
    def metas(self) -> list[BlockMeta]:
        """Of all blocks, by ULID."""
        with self._lock:
            return [self._blocks[ulid].meta for ulid in sorted(self._blocks)]

    @property
    def bytes(self) -> int:
        """On disk."""
        with self._lock:
            return sum(block.bytes for block in self._blocks.values())

    @property
    def in_use(self) -> bool:
        """Whether somebody reads."""
        with self._lock:
            return bool(self._leases)

    def path(self, ulid: str) -> Path:
        return self._directory / ulid

    def add(self, ulid: str) -> None:
        """A block that was written to the folder."""
        block = Block(self._directory / ulid)
        with self._lock:
            self._blocks[ulid] = block

    def lease(self, mint: int, maxt: int) -> Lease | None:
        """The blocks that may have samples in [mint, maxt] (ms); None: there are none."""
        with self._lock:
            found = [one for one in self._blocks.values() if one.meta.min_time <= maxt and mint < one.meta.max_time]
            if not found:
                return None
            lease = Lease(
                sorted((one for one in found if not one.meta.out_of_order), key=lambda one: one.meta.min_time),
                sorted((one for one in found if one.meta.out_of_order), key=lambda one: one.meta.ulid),
            )
            self._leases.add(lease)
        for block in found:
            self._indexes.use(block)
        return lease

    def drop(self, ulids: Iterable[str]) -> None:
        """Hides blocks; `sweep` removes their files."""
        with self._lock:
            for ulid in ulids:
                block = self._blocks.pop(ulid)
                self._doomed.append((block, [weakref.ref(lease) for lease in self._leases if block in list(lease)]))

    def sweep(self) -> None:
        """Removes the files of dropped blocks that nobody reads any more. Raises `StorageFailed`."""
        with self._lock:
            free = [block for block, readers in self._doomed if all(reader() is None for reader in readers)]
        for block in free:
            directory = block.directory
            gone = directory.with_name(directory.name + DELETED_SUFFIX)
            try:
                if directory.exists():
                    directory.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
            except OSError as error:
                raise storage_error("remove", directory, error) from error
            self._indexes.forget(block)
            with self._lock:
                self._doomed = [one for one in self._doomed if one[0] is not block]

    def close(self) -> None:
        """Forgets everything that was read; who reads right now goes on."""
        with self._lock:
            blocks = [*self._blocks.values(), *(block for block, _ in self._doomed)]
        for block in blocks:
            self._indexes.forget(block)
