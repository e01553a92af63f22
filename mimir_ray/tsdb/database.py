"""`Database`: everything one tenant has on one machine: head, write-ahead log, chunk files, checkpoints, blocks.

    <directory>/<ULID>/        blocks that the head was cut into (local_blocks.py)
    <directory>/wal/           records since the last checkpoint (wal/)
    <directory>/chunks_head/   full chunks of the head (chunks/files.py)
    <directory>/checkpoints/   checkpoint.N: the head without its newest samples; replay starts at WAL segment N

A checkpoint is taken when much was logged since the last one, or long ago: flush, note where chunk files and WAL
are, copy what would change (all under the head's lock, some tens of ms a million series), then write the file while
pushes go on, then remove older WAL segments. A restart cuts the chunk files back to where the checkpoint saw
their end, restores the columns, and replays the WAL, which makes the same chunks again.

Compaction cuts ranges of the head into blocks: samples in order first, one block a range, then late ones into blocks
of their own (docs/decisions/0009). The moment a block is there whole, and under the head's lock, it becomes visible to
readers and the head's samples below its end invisible; then memory is given back and a checkpoint taken. Wherever this
stops, a restart finds each sample in the head, in a block, or the same in both, which reads once.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mimir_ray.clock import Clock
from mimir_ray.errors import MimirRayError
from mimir_ray.model.exemplars import SeriesExemplars
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.write import WriteBatch, WriteResult

from .block.chunk_files import SEGMENT_BYTES
from .block.from_head import block_from_head
from .block.meta import OUT_OF_ORDER_HINT, BlockMeta, make_ulid
from .chunks.files import ChunkFiles
from .head.head import Head
from .head.pick import HeadPart, HeadPick
from .head.settings import NO_LIMITS, HeadSettings, PushLimits
from .head.stats import HeadStats
from .joined import INTERVAL_GUESS_MS, BlockHolder, HeadHolder, Holder, join
from .local_blocks import Lease, LoadedIndexes, LocalBlocks
from .wal.checkpoint import drop_checkpoints_before, latest_checkpoint, write_checkpoint
from .wal.format import segment_numbers, segment_path
from .wal.reader import WalReader, WalReport
from .wal.records import Record
from .wal.writer import WalSettings, WalWriter

Progress = Callable[[int, int], None]
"""Called with (bytes replayed, bytes in all)."""


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    head: HeadSettings = field(default_factory=HeadSettings)
    wal: WalSettings = field(default_factory=WalSettings)
    checkpoint_wal_bytes: int = 256 << 20
    """A checkpoint is due when this much was logged since the last one ..."""
    checkpoint_interval_ms: int = 2 * 3_600_000
    """... or that long ago, if anything was logged since."""
    block_segment_bytes: int = SEGMENT_BYTES
    """Of the chunk files of blocks."""

    @property
    def block_range_ms(self) -> int:
        """Blocks are cut at multiples of it. Upstream: the head's chunk range is the smallest block's."""
        return self.head.chunk_range_ms

    metadata_retain_ms: int = 600_000
    """Metadata is forgotten when nobody has sent it for so long."""


@dataclass(frozen=True, slots=True)
class DatabaseStats:
    head: HeadStats
    wal_bytes_since_checkpoint: int
    chunk_file_bytes: int
    checkpoints: int
    """Written since the start."""
    checkpoint_failures: int
    wal_truncation_failures: int
    wal_failures: int
    blocks: int
    block_bytes: int


class Database:
    """One tenant's database; thread-safe; a SeriesSource. The constructor restores and replays.

    Args:
        directory: made if it is not there.
        progress: see `Progress`.
        indexes: of blocks, those of other databases too.

    `replayed` says what the replay found. Raises `Corruption` where stored bytes make no sense, `Unavailable` where the
    disk fails.
    """

    def __init__(
        self,
        directory: Path,
        settings: DatabaseSettings,
        clock: Clock,
        progress: Progress | None = None,
        indexes: LoadedIndexes | None = None,
    ) -> None:
        self.directory = directory
        self.settings = settings
        self._clock = clock
        self._checkpoint_lock = threading.Lock()
        self._checkpoints_written = 0
        self._checkpoint_failures = 0
        self._wal_truncation_failures = 0
        self._compaction_lock = threading.Lock()
        self._closed = False
        self._uncollected = False
        """The head was truncated, and what follows that is not done yet."""
        self.blocks = LocalBlocks(directory, indexes or LoadedIndexes(clock))
        self._files = ChunkFiles(directory / "chunks_head")
        self.head = Head(self._files, settings.head)
        self.replayed: WalReport
        first = self._restore(progress)
        self._wal = WalWriter(directory / "wal", clock, settings.wal, first=first)
        self._wal_bytes_at_checkpoint = -self.replayed.bytes_read
        self._checkpoint_time_ms = clock.now_ms()
        self.head.journal = self._journal
        if (end := self._blocks_end()) > self.head.floor:
            # It died between writing a block and truncating the head.
            self.head.truncate(end)
            self.head.collect()

    def _blocks_end(self) -> int:
        """Samples in order before it are in blocks."""
        return max((meta.max_time for meta in self.blocks.metas if not meta.out_of_order), default=self.head.floor)

    def _restore(self, progress: Progress | None) -> int:
        """The WAL segment that replay began with."""
        found = latest_checkpoint(self._checkpoints)
        self._files.truncate_to(int(found.facts["chunks_end"]) if found else 0)
        first = 0
        if found:
            self.head.restore(found.parts)
            first = found.number
        del found
        wal = self.directory / "wal"
        total = 0
        if wal.exists():
            total = sum(segment_path(wal, one).stat().st_size for one in segment_numbers(wal) if one >= first)
        reader = WalReader(wal, first or None)
        done, reported = 0, 0
        for record in reader if wal.exists() else ():
            self.head.replay(record.type, record.payload)
            done += len(record.payload)
            if progress and done - reported >= 1 << 20:
                reported = done
                progress(done, total)
        self.replayed = reader.report
        if progress:
            progress(total, total)
        return first

    @property
    def _checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    def _journal(self, records: list[Record]) -> None:
        self._wal.append(*records)

    def push(self, batches: Sequence[WriteBatch], now_ms: int, limits: PushLimits = NO_LIMITS) -> list[WriteResult]:
        """Takes samples; they are in the WAL when this returns. One result a batch; does not raise for one batch."""
        results = self.head.push(batches, now_ms, limits)
        try:
            self._wal.sync()
        except MimirRayError as error:
            return [WriteResult(result.incarnation, error=error) for result in results]
        return results

    prunes_labels = True
    """Heeds `Selection.labels`: each of its series comes once, so nobody has to tell them apart."""

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """See SeriesSource.select. Head and blocks as they are together at this moment."""
        with self.head.exclusive():
            lease = self.blocks.lease(selection.mint, selection.maxt)
            if lease is None:
                return self.head.select(selection)
            # Series are joined by their labels.
            some = replace(selection, labels=None)
            if not selection.labels_only:
                some = replace(some, limit_series=0)
            # Of two samples of one time the one in order was there first.
            parts = (HeadPart.IN_ORDER, HeadPart.LATE) if lease.late else (HeadPart.ALL,)
            picks = [self.head.pick(some, part) for part in parts]
        return self._joined(lease, picks, selection, some)

    def _joined(
        self, lease: Lease, picks: list[HeadPick], selection: Selection, some: Selection
    ) -> Iterator[SeriesBatch]:
        holders: list[Holder] = [BlockHolder(block, some) for block in lease.in_order]
        holders.append(HeadHolder(picks[0]))
        holders += [BlockHolder(block, some) for block in lease.late]
        holders += [HeadHolder(pick) for pick in picks[1:]]
        yield from join(holders, selection)

    def estimate_samples(self, selection: Selection) -> int:
        """About how many samples the selection has: of the series that the head has, as long ago as blocks go."""
        stats = self.head.stats
        metas = [one for one in self.blocks.metas if one.min_time <= selection.maxt and selection.mint < one.max_time]
        times = [time for meta in metas for time in (meta.min_time, meta.max_time)]
        times += [time for time in (stats.min_time, stats.max_time) if time is not None]
        if not times:
            return 0
        length = min(selection.maxt, max(times)) - max(selection.mint, min(times))
        return self.head.series_count(selection.matchers) * max(1, length // INTERVAL_GUESS_MS)

    def label_names(self, selection: Selection) -> list[str]:
        """Sorted names of all labels of the selected series."""
        with self.head.exclusive():
            lease = self.blocks.lease(selection.mint, selection.maxt)
            names = self.head.label_names(selection)
        if lease is None:
            return names
        return sorted(set(names).union(*(block.label_names(selection) for block in lease)))

    def label_values(self, name: str, selection: Selection) -> list[str]:
        """Sorted values of one label of the selected series."""
        with self.head.exclusive():
            lease = self.blocks.lease(selection.mint, selection.maxt)
            values = self.head.label_values(name, selection)
        if lease is None:
            return values
        return sorted(set(values).union(*(block.label_values(name, selection) for block in lease)))

    def metadata(self, family: str = "") -> list[Metadata]:
        """Of all metric families, or of one."""
        return self.head.metadata(family)

    def exemplars(self, selectors: Sequence[tuple[Matcher, ...]], mint: int, maxt: int) -> list[SeriesExemplars]:
        """Exemplars between two times, both included, of series that satisfy one of the selectors; by labels."""
        return self.head.exemplars(selectors, mint, maxt)

    def flush(self) -> None:
        """Packs what is in memory into chunks."""
        self.head.flush()

    def maintain(self, now_ms: int) -> None:
        """What is due: files of dropped blocks, WAL sync, checkpoints. Raises `Unavailable` if the disk fails."""
        self.blocks.sweep()
        self.head.drop_metadata(now_ms, self.settings.metadata_retain_ms)
        self._wal.sync()
        logged = self._wal.bytes_written - self._wal_bytes_at_checkpoint
        late = now_ms - self._checkpoint_time_ms >= self.settings.checkpoint_interval_ms
        if logged >= self.settings.checkpoint_wal_bytes or (logged and late):
            self.checkpoint()

    def checkpoint(self) -> None:
        """Writes a checkpoint and drops the WAL before it. Raises `Unavailable`, and the WAL is then as it was."""
        with self._checkpoint_lock:
            if self._closed:
                return
            try:
                with self.head.exclusive():
                    facts, parts = self.head.checkpoint()
                    number = self._wal.rotate()
                    logged = self._wal.bytes_written
                    sync = self._files.prepare_sync()
                sync()
                write_checkpoint(self._checkpoints, number, facts, parts)
            except MimirRayError:
                self._checkpoint_failures += 1
                raise
            self._wal_bytes_at_checkpoint = logged
            self._checkpoint_time_ms = self._clock.now_ms()
            self._checkpoints_written += 1
            try:
                self._wal.truncate_before(number)
                drop_checkpoints_before(self._checkpoints, number)
                with self.head.exclusive():
                    # Only now: a restart from the older checkpoint would have needed them.
                    self._files.drop_before(int(facts["first_segment"]))
            except MimirRayError:
                self._wal_truncation_failures += 1
                raise

    def compact(self, until: int | None = None) -> list[BlockMeta]:
        """Cuts what is due into blocks and truncates the head; the blocks.

        Args:
            until: samples in order that are older (ms) are due, and late ones; none of the former are taken any more.
                None: ranges are due, and late samples with them, once the head spans one and a half.
                Upstream: tsdb/db.go Compact, tsdb/head.go compactable.

        Raises `Unavailable` and `Corruption`; blocks that were made until then stay, everything else is tried again.
        """
        with self._compaction_lock:
            if self._closed:
                return []
            before = None
            made: list[BlockMeta] = []
            try:
                if until is not None:
                    # What is appended meanwhile must not be below what is cut off. Without `until` it cannot be: the
                    # head takes nothing older than half a range before its newest.
                    before = self.head.refuse_before(until)
                while (due := self._due(until)) is not None:
                    made += self._cut_in_order(*due)
                if until is not None and until > self.head.floor:
                    self._uncollected = True
                    self.head.truncate(until)
            except BaseException:
                if before is not None:
                    self.head.refuse_before(before)
                raise
            if not self._uncollected and until is None:
                return made
            mark, late = self._cut_late()
            gone = self.head.collect(mark)
            self.head.renumber()
            if gone or late or self._uncollected:
                self.checkpoint()
            self._uncollected = False
            return made + late

    def compact_whole(self) -> list[BlockMeta]:
        """Cuts everything that the head has now into blocks."""
        newest = self.head.stats.max_time
        return self.compact(self.head.floor if newest is None else newest + 1)

    def _due(self, until: int | None) -> tuple[int, int] | None:
        """[mint, maxt) of the next block of samples in order."""
        stats = self.head.stats
        if stats.max_time is None:
            return None
        oldest, _ = self.head.oldest()
        width = self.settings.block_range_ms
        start = oldest // width * width
        if until is None:
            due, end = 2 * (stats.max_time - oldest) > 3 * width, start + width
        else:
            due, end = oldest < until, min(start + width, until)
        return (max(start, self.head.floor), end) if due else None

    def _cut_in_order(self, mint: int, maxt: int) -> list[BlockMeta]:
        meta = self._write_block(mint, maxt, HeadPart.IN_ORDER)
        with self.head.exclusive():
            if meta is not None:
                self.blocks.add(meta.ulid)
            self._uncollected = True
            self.head.truncate(maxt)
        return [meta] if meta is not None else []

    def _cut_late(self) -> tuple[int, list[BlockMeta]]:
        """(how many chunks of the head may be forgotten if they are late, the blocks)"""
        width = self.settings.block_range_ms
        mark, ranges = self.head.late_ranges(width)
        made = []
        for number in ranges:
            meta = self._write_block(number * width, (number + 1) * width, HeadPart.LATE)
            if meta is not None:
                # The head has the samples too until it forgets them all at once; read together they are one.
                self.blocks.add(meta.ulid)
                made.append(meta)
        return mark, made

    def _write_block(self, mint: int, maxt: int, part: HeadPart) -> BlockMeta | None:
        return block_from_head(
            self.head,
            mint,
            maxt,
            self.directory,
            make_ulid(self._clock.now_ms(), secrets.token_bytes(10)),
            hints=(OUT_OF_ORDER_HINT,) if part is HeadPart.LATE else (),
            segment_bytes=self.settings.block_segment_bytes,
            part=part,
        )

    @property
    def stats(self) -> DatabaseStats:
        return DatabaseStats(
            head=self.head.stats,
            wal_bytes_since_checkpoint=self._wal.bytes_written - self._wal_bytes_at_checkpoint,
            chunk_file_bytes=self._files.bytes,
            checkpoints=self._checkpoints_written,
            checkpoint_failures=self._checkpoint_failures,
            wal_truncation_failures=self._wal_truncation_failures,
            wal_failures=self._wal.failures,
            blocks=len(self.blocks.metas),
            block_bytes=self.blocks.bytes,
        )

    def close(self) -> None:
        """Makes the WAL durable and closes the files; readers that have begun may finish. Waits for a compaction."""
        with self._compaction_lock, self._checkpoint_lock:
            self._closed = True
            self._wal.close()
            self._files.close()
            self.blocks.close()
