"""`Database`: everything one tenant has on one machine: head, write-ahead log, chunk files, checkpoints.

    <directory>/wal/           records since the last checkpoint (wal/)
    <directory>/chunks_head/   full chunks of the head (chunks/files.py)
    <directory>/checkpoints/   checkpoint.N: the head without its newest samples; replay starts at WAL segment N

A checkpoint is taken when much was logged since the last one, or long ago: flush, note where chunk files and WAL
are, copy what would change (all under the head's lock, some tens of ms a million series), then write the file while
pushes go on, then remove older WAL segments. A restart cuts the chunk files back to where the checkpoint saw
their end, restores the columns, and replays the WAL, which makes the same chunks again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mimir_ray.clock import Clock
from mimir_ray.errors import MimirRayError
from mimir_ray.model.exemplars import SeriesExemplars
from mimir_ray.model.matchers import Matcher
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.write import WriteBatch, WriteResult

from .chunks.files import ChunkFiles
from .head.head import Head, HeadStats
from .head.settings import NO_LIMITS, HeadSettings, PushLimits
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
    metadata_retain_ms: int = 600_000
    """Metadata is forgotten when nobody has sent it for so long."""
    retention_ms: int = 0
    """Series whose newest sample is older than this are dropped, and full chunks that are; 0: never."""


@dataclass(frozen=True, slots=True)
class DatabaseStats:
    head: HeadStats
    wal_bytes_since_checkpoint: int
    chunk_file_bytes: int
    checkpoints: int
    """Written since the start."""
    checkpoint_failures: int


class Database:
    """One tenant's database; thread-safe; a SeriesSource. The constructor restores and replays.

    Args:
        directory: made if it is not there.
        progress: see `Progress`.

    `replayed` says what the replay found. Raises `Corruption` where stored bytes make no sense, `Unavailable` where the
    disk fails.
    """

    def __init__(
        self, directory: Path, settings: DatabaseSettings, clock: Clock, progress: Progress | None = None
    ) -> None:
        self.directory = directory
        self.settings = settings
        self._clock = clock
        self._checkpoint_lock = threading.Lock()
        self._checkpoints_written = 0
        self._checkpoint_failures = 0
        self._files = ChunkFiles(directory / "chunks_head")
        self.head = Head(self._files, settings.head)
        self.replayed: WalReport
        first = self._restore(progress)
        self._wal = WalWriter(directory / "wal", clock, settings.wal, first=first)
        self._wal_bytes_at_checkpoint = -self.replayed.bytes_read
        self._checkpoint_time_ms = clock.now_ms()
        self.head.journal = self._journal

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

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """See SeriesSource.select."""
        return self.head.select(selection)

    def label_names(self, selection: Selection) -> list[str]:
        """Sorted names of all labels of the selected series."""
        return self.head.label_names(selection)

    def label_values(self, name: str, selection: Selection) -> list[str]:
        """Sorted values of one label of the selected series."""
        return self.head.label_values(name, selection)

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
        """What is due: retention, WAL sync, checkpoints. Raises `Unavailable` if the disk fails."""
        if self.settings.retention_ms:
            self.head.drop_older_than(now_ms - self.settings.retention_ms)
            self.head.drop_chunks_before(now_ms - self.settings.retention_ms)
        self.head.drop_metadata(now_ms, self.settings.metadata_retain_ms)
        self._wal.sync()
        logged = self._wal.bytes_written - self._wal_bytes_at_checkpoint
        late = now_ms - self._checkpoint_time_ms >= self.settings.checkpoint_interval_ms
        if logged >= self.settings.checkpoint_wal_bytes or (logged and late):
            self.checkpoint()

    def checkpoint(self) -> None:
        """Writes a checkpoint and drops the WAL before it. Raises `Unavailable`, and the WAL is then as it was."""
        with self._checkpoint_lock:
            try:
                with self.head.exclusive():
                    facts, parts = self.head.checkpoint()
                    self._files.sync()
                    number = self._wal.rotate()
                    logged = self._wal.bytes_written
                write_checkpoint(self._checkpoints, number, facts, parts)
            except MimirRayError:
                self._checkpoint_failures += 1
                raise
            self._wal_bytes_at_checkpoint = logged
            self._checkpoint_time_ms = self._clock.now_ms()
            self._checkpoints_written += 1
            self._wal.truncate_before(number)
            drop_checkpoints_before(self._checkpoints, number)
            with self.head.exclusive():
                # Only now: a restart from the older checkpoint would have needed them.
                self._files.drop_before(int(facts["first_segment"]))

    @property
    def stats(self) -> DatabaseStats:
        return DatabaseStats(
            head=self.head.stats,
            wal_bytes_since_checkpoint=self._wal.bytes_written - self._wal_bytes_at_checkpoint,
            chunk_file_bytes=self._files.bytes,
            checkpoints=self._checkpoints_written,
            checkpoint_failures=self._checkpoint_failures,
        )

    def close(self) -> None:
        """Makes the WAL durable and closes the files; readers that have begun may finish."""
        self._wal.close()
        self._files.close()
