"""`Head`: the recent series of one tenant in memory.

A sample goes into the log (sample_log.py); a full log is flushed: sorted by series and packed behind the open
chunks (chunks/open_chunks.py), and chunks that are full leave for the chunk files (closed_chunks.py). Late samples
take the same way on their own: log, then closed chunks of a chain that may overlap.

One lock guards everything. A reader holds it while matchers are resolved and the state of the selected series is
copied; arrays it takes along are append-only or replaced, never changed, so it decodes without the lock while
writes go on and still sees one moment of every series.

Records for the write-ahead log are handed to `journal` before `push` answers. If that fails, the samples are in memory
but not acknowledged; the records are kept and must be written before anything else is taken, so that
a sender who tries again is not told "stored" for what a restart would lose.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.errors import ClientError, MimirRayError, Unavailable
from mimir_ray.model.exemplars import ExemplarColumns, SeriesExemplars
from mimir_ray.model.histogram import HistogramColumns, HistogramPart
from mimir_ray.model.matchers import Matcher, quote
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import SeriesBatch
from mimir_ray.model.write import Refusal, WriteBatch, WriteResult
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.exemplars import ExemplarStore
from mimir_ray.tsdb.family_metadata import FamilyMetadata
from mimir_ray.tsdb.index.columns import IndexView, strings_of
from mimir_ray.tsdb.index.compaction import without_dropped
from mimir_ray.tsdb.index.interning import check_labels, shard_filter
from mimir_ray.tsdb.index.postings import Postings, walk_pairs
from mimir_ray.tsdb.index.series_index import SeriesIndex
from mimir_ray.tsdb.index.tokens import series_tokens
from mimir_ray.tsdb.wal import records as wal_records

from . import sample_log
from .activity import ActiveSeries, Activity, Selectors
from .exemplar_push import find_exemplars, take_exemplars
from .histogram_samples import number_histograms, resolve
from .histogram_store import HistogramStore, pack, unpack
from .memory import SampleMemory
from .new_series import MalformedBatch, intern_batch, labels_of_section
from .pick import HeadPart, HeadPick
from .reading import Look
from .sample_log import LATE_LENGTH, LOG_LENGTH, MAX_TIME, MIN_TIME, NO_TIME_MAX, NO_TIME_MIN
from .selected import SelectedSeries
from .settings import NO_LIMITS, HeadSettings, PushLimits
from .start_timestamps import StartsLook, StartTimestamps
from .stats import HeadStats
from .zero_samples import find_zeros, with_zeros

_REASONS = {
    sample_log.REFUSED_OUT_OF_ORDER: "sample-out-of-order",
    sample_log.REFUSED_TOO_OLD: "sample-timestamp-too-old",
    sample_log.REFUSED_DUPLICATE: "sample-duplicate-timestamp",
    sample_log.REFUSED_USER_LIMIT: "max-series-per-user",
    sample_log.REFUSED_METRIC_LIMIT: "max-series-per-metric",
}

Journal = Callable[[list[wal_records.Record]], None]


class Head:
    """Thread-safe; a SeriesSource. `files`: where full chunks go. `journal`: see the module; may be set later."""

    def __init__(self, files: ChunkFiles, settings: HeadSettings | None = None, journal: Journal | None = None) -> None:
        self.settings = settings = settings or HeadSettings()
        self.journal = journal
        self.incarnation = secrets.randbits(63)
        self._files = files
        self._lock = threading.RLock()
        self._index = SeriesIndex()
        self._postings = Postings(self._index)
        self._selected = SelectedSeries(self._index, self._postings)
        self._memory = SampleMemory(files, settings)
        self._histograms = HistogramStore()
        self._starts = StartTimestamps()
        self._counts = np.zeros(sample_log.STATUSES, np.int64)
        self._created = self._removed = 0
        self._metadata = FamilyMetadata(settings.metadata_families_max)
        self._exemplars = ExemplarStore(settings.exemplars_max)
        self._activity = Activity()
        self._unwritten: list[wal_records.Record] = []
        self._min_valid_time = NO_TIME_MAX

    # Writing

    def push(self, batches: Sequence[WriteBatch], now_ms: int, limits: PushLimits = NO_LIMITS) -> list[WriteResult]:
        """Takes samples of several requests, in order; one result each. `now_ms` is the time of the push."""
        with self._lock:
            try:
                self._write_journal([])
            except MimirRayError as error:
                return [WriteResult(self.incarnation, error=error) for _ in batches]
            records: list[wal_records.Record] = []
            results = [self._push_one(batch, now_ms, limits, records) for batch in batches]
            try:
                self._write_journal(records)
            except MimirRayError as error:
                return [WriteResult(self.incarnation, error=error) for _ in batches]
            return results

    def _write_journal(self, records: list[wal_records.Record]) -> None:
        if self.journal is None:
            return
        records = self._unwritten + records
        if records:
            try:
                self.journal(records)
            except MimirRayError:
                self._unwritten = records
                raise
            self._unwritten = []

    def _push_one(
        self, batch: WriteBatch, now_ms: int, limits: PushLimits, records: list[wal_records.Record]
    ) -> WriteResult:
        known = len(batch.references)
        if not known == len(batch.timestamps) == len(batch.values) or not (
            len(batch.new_series) == len(batch.new_timestamps) == len(batch.new_values)
        ):
            return WriteResult(self.incarnation, error=MalformedBatch("columns of different lengths"))
        starts, new_starts = batch.start_timestamps, batch.new_start_timestamps
        if (starts is not None and len(starts) != known) or (
            new_starts is not None and len(new_starts) != len(batch.new_series)
        ):
            return WriteResult(self.incarnation, error=MalformedBatch("start timestamps of other samples"))
        if len(batch.new_series) and not (
            batch.new_series.min() >= 0 and batch.new_series.max() < len(batch.label_offsets) - 1
        ):
            return WriteResult(self.incarnation, error=MalformedBatch("a sample of a series that is not in the batch"))
        stale = known > 0 and batch.incarnation != self.incarnation
        new_references = np.zeros(0, np.int32)
        refusals: list[Refusal] = []
        refused: list[NDArray[np.intp]] = []
        unknown = np.zeros(0, np.int32)
        # Labels are judged first: should they be malformed, nothing was stored yet.
        if len(batch.label_offsets) > 1:
            try:
                new_references = self._intern(batch, limits, records)
            except (ClientError, Unavailable) as error:
                return WriteResult(self.incarnation, error=error)
        if known and not stale:
            statuses = self._append(
                batch.references,
                batch.timestamps,
                batch.values,
                batch.histograms,
                starts,
                batch.zeros_within_ms,
                now_ms,
                limits,
                records,
                True,
            )
            if statuses is not None:
                self._refuse(statuses, batch, batch.references, batch.timestamps, 0, limits, refusals)
                unknown = np.flatnonzero(statuses == sample_log.UNKNOWN).astype(np.int32)
                refused.append(_refused(statuses))
        if len(batch.new_series):
            references = new_references[batch.new_series]
            statuses = self._append(
                references, batch.new_timestamps, batch.new_values, batch.histograms, new_starts,
                batch.zeros_within_ms, now_ms, limits, records, False,
            )  # fmt: skip
            if statuses is not None:
                self._refuse(statuses, batch, references, batch.new_timestamps, known, limits, refusals)
                refused.append(_refused(statuses) + known)
        if batch.metadata:
            refusals += self._learn(batch.metadata, now_ms, limits, records)
        result = WriteResult(self.incarnation, stale, np.maximum(new_references, np.int32(-1)), unknown)
        if batch.exemplars is not None and not stale and not len(unknown):
            result.refused_exemplars = self._take_exemplars(batch.exemplars, limits, records, refusals)
        if refusals:
            result.refusals = tuple(refusals)
        if refused:
            result.refused = np.concatenate(refused).astype(np.int32)
        return result

    def _intern(self, batch: WriteBatch, limits: PushLimits, records: list[wal_records.Record]) -> NDArray[np.int32]:
        references, created, record = intern_batch(self._index, batch, limits)
        if record is not None:
            self._created += created
            self._memory.reserve(len(self._index))
            records.append(record)
        return references

    def _append(
        self,
        references: NDArray[np.int32],
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        histograms: HistogramColumns | None,
        starts: NDArray[np.int64] | None,
        zeros_within_ms: int,
        now_ms: int,
        limits: PushLimits,
        records: list[wal_records.Record],
        known: bool,
    ) -> NDArray[np.uint8] | None:
        """Stores samples and records those taken; the statuses, or None if every sample was taken."""
        references = np.ascontiguousarray(references, np.int32)
        timestamps = np.ascontiguousarray(timestamps, np.int64)
        values = np.ascontiguousarray(values, np.float64)
        if known and len(references) and int(references.min()) < 0:
            # Negative ones mean "refused by a limit" to the kernel; from outside they are just unknown.
            references = np.where(references < 0, np.int32(2**31 - 1), references)
        newest = int(self._memory.marks[MAX_TIME])
        if newest == NO_TIME_MAX:
            newest = int(timestamps[0])
        # Upstream: tsdb/head.go appendableMinValidTime.
        min_valid = max(newest - self.settings.chunk_range_ms // 2, self._min_valid_time, NO_TIME_MAX + 1)
        own = None
        if zeros_within_ms and starts is not None:
            last_times = self._memory.last_times[: self._memory.series]
            zeros = find_zeros(references, timestamps, starts, zeros_within_ms, min_valid, last_times)
            if zeros is not None:
                own, references, timestamps, values, histograms, starts = with_zeros(
                    zeros, references, timestamps, values, histograms, starts
                )
        sent = values
        values, added = number_histograms(references, timestamps, values, histograms, self._memory, self._histograms)
        if added is not None:
            records.append(wal_records.encode_histograms(added[0], added[2], pack(added[1])))
        window = limits.out_of_order_window_ms
        late_min = max(newest - window, NO_TIME_MAX + 1)
        counts = np.zeros(sample_log.STATUSES, np.int64)
        statuses = self._memory.store(
            references,
            timestamps,
            values,
            self._index.dropped,
            False,
            min_valid,
            limits.out_of_order_window_ms,
            late_min,
            counts,
        )
        self._counts += counts
        if starts is not None or len(self._starts):
            changes = self._starts.take(references, timestamps, starts, statuses, len(self._index))
            if changes is not None:
                # Before the samples: one that is sent again since it was not acknowledged brings nothing new.
                records.append(wal_records.encode_start_timestamps(*changes))
        taken = int(counts[sample_log.IN_ORDER] + counts[sample_log.OUT_OF_ORDER])
        if taken == len(references):
            self._activity.note(len(self._index), references, sent, histograms, now_ms)
        else:
            fine = statuses <= sample_log.REPEATED
            self._activity.note(len(self._index), references[fine], sent[fine], histograms, now_ms)
        if counts[sample_log.IN_ORDER] == len(references):
            records.append(wal_records.encode_samples(references, timestamps, values))
            return None
        for status, late in ((sample_log.IN_ORDER, False), (sample_log.OUT_OF_ORDER, True)):
            if counts[status]:
                rows = np.flatnonzero(statuses == status)
                records.append(wal_records.encode_samples(references[rows], timestamps[rows], values[rows], late))
        if taken == len(references):
            return None
        return statuses if own is None else statuses[own]

    def _refuse(
        self,
        statuses: NDArray[np.uint8],
        batch: WriteBatch,
        references: NDArray[np.int32],
        timestamps: NDArray[np.int64],
        base: int,
        limits: PushLimits,
        refusals: list[Refusal],
    ) -> None:
        """Adds one refusal a reason: its first sample, and how many there were."""
        for status in np.unique(statuses).tolist():
            if status not in _REASONS:
                continue
            rows = np.flatnonzero(statuses == status)
            first = int(rows[0])
            reference = int(references[first])
            if reference >= 0:
                labels = self._index.labels(np.array([reference], np.int32)).labels(0)
            else:
                labels = labels_of_section(batch, int(batch.new_series[first]))
            limit = {
                sample_log.REFUSED_USER_LIMIT: limits.series_max,
                sample_log.REFUSED_METRIC_LIMIT: limits.metric_series_max,
            }.get(status, 0)
            text = ", ".join(f"{name}={quote(value)}" for name, value in labels)
            refusals.append(
                Refusal(_REASONS[status], base + first, int(timestamps[first]), len(rows), f"{{{text}}}", limit)
            )

    def _learn(
        self, metadata: Sequence[Metadata], now_ms: int, limits: PushLimits, records: list[wal_records.Record]
    ) -> list[Refusal]:
        new, refused = self._metadata.learn(metadata, now_ms, limits.metadata_families_max, limits.family_metadata_max)
        if new:
            records.append(wal_records.encode_metadata(new))
        kinds = dict.fromkeys(reason for _, reason in refused)
        return [
            Refusal(reason, 0, 0, len(same), f"{{__name__={quote(same[0].family)}}}")
            for reason in kinds
            if (same := [one for one, why in refused if why == reason])
        ]

    def _take_exemplars(
        self,
        exemplars: ExemplarColumns,
        limits: PushLimits,
        records: list[wal_records.Record],
        refusals: list[Refusal],
    ) -> NDArray[np.int32]:
        self._exemplars.resize(limits.exemplars_max)
        taken = take_exemplars(self._exemplars, self._index, exemplars, limits)
        if taken.stored is not None:
            records.append(wal_records.encode_exemplars(*taken.stored))
        refusals += taken.refusals
        return taken.refused

    def exemplars(self, selectors: Sequence[tuple[Matcher, ...]], mint: int, maxt: int) -> list[SeriesExemplars]:
        """Exemplars between two times, both included, of series that satisfy one of the selectors; by labels."""
        with self._lock:
            return find_exemplars(self._exemplars, self._index, self._postings, selectors, mint, maxt)

    @property
    def exemplar_store(self) -> ExemplarStore:
        """For its numbers."""
        return self._exemplars

    def drop_metadata(self, now_ms: int, retain_ms: int) -> int:
        """Forgets metadata that nobody sent for so long; returns how many entries."""
        with self._lock:
            return self._metadata.drop(now_ms, retain_ms)

    # Flushing

    def flush(self) -> None:
        """Packs both logs into chunks. What readers look at is not touched."""
        with self._lock:
            self._memory.flush()

    # Reading

    def select(self, selection: Selection) -> Iterator[SeriesBatch]:
        """The selected series as they are now, in the order in which they were first seen. See SeriesSource."""
        return self.pick(selection).batches()

    def pick(self, selection: Selection, part: HeadPart = HeadPart.ALL) -> HeadPick:
        """The selected series as they are now, to be read later."""
        with self._lock:
            references = self._references(selection, part)
            look = self._memory.look(references)
            if part is not HeadPart.ALL:
                look = look.in_order() if part is HeadPart.IN_ORDER else look.late()
            starts = self._starts.look() if selection.start_timestamps else None
            return HeadPick(selection, references, self._index, self._lock, look, self._histograms.pin(), starts)

    def snapshot(
        self, selection: Selection, part: HeadPart = HeadPart.ALL
    ) -> tuple[NDArray[np.int32], IndexView, Look, StartsLook | None]:
        """(references, labels, chunks, start timestamps if any is known) of the selected series, flushed: both logs of
        the look are empty."""
        with self._lock:
            self._memory.flush()
            picked = self.pick(selection, part)
            return picked.references, picked.view, picked.look, self._starts.look()

    def _references(self, selection: Selection, part: HeadPart = HeadPart.ALL) -> NDArray[np.int32]:
        """Of the selected series that may have samples in range, ascending. Caller holds the lock."""
        references = self._selected.of(selection.matchers)
        memory = self._memory
        if part is HeadPart.LATE or selection.maxt < memory.floor:
            wanted = np.zeros(len(references), np.bool_)
        else:
            wanted = memory.last_times[references] >= max(selection.mint, memory.floor)
        if part is not HeadPart.IN_ORDER:
            # Late samples may be newer than the last one in order: a series that rested is late, not out of order.
            wanted |= (memory.late_last[references] >= 0) | (memory.late_chunk_last[references] >= 0)
        in_range = wanted & (memory.min_times[references] <= selection.maxt)
        if not in_range.all():
            references = references[in_range]
        if selection.shard is not None and selection.shard.count > 1:
            kept = np.empty(len(references), np.int32)
            hashes = self._index.stable_hashes()
            found = shard_filter(references, hashes, selection.shard.index, selection.shard.count, kept)
            references = kept[:found]
        return references

    def label_names(self, selection: Selection) -> list[str]:
        """Sorted names of all labels of the selected series."""
        with self._lock:
            references = self._references(selection)
            view = self._index.view()
        return view.names(references)

    def label_values(self, name: str, selection: Selection) -> list[str]:
        """Sorted values of one label of the selected series."""
        with self._lock:
            index = self._index
            name_id = index.find_name(name)
            if name_id < 0:
                return []
            if not selection.matchers and selection.shard is None and self._covers(selection):
                pairs = np.empty(int(index.name_pairs[name_id]), np.int32)
                walk_pairs(int(index.name_heads[name_id]), -1, index.pair_previous, pairs)
                pairs = pairs[index.pair_series[pairs] > 0]
                return sorted(strings_of(index.pair_values[pairs], index.arena, index.symbol_cuts))
            references = self._references(selection)
            view = index.view()
        return view.values(references, name_id)

    def _covers(self, selection: Selection) -> bool:
        return selection.mint <= self._memory.marks[MIN_TIME] and selection.maxt >= self._memory.marks[MAX_TIME]

    def metadata(self, family: str = "") -> list[Metadata]:
        """Of all metric families by name, or of one."""
        with self._lock:
            return self._metadata.of(family)

    def series_count(self, matchers: Sequence[Matcher] = ()) -> int:
        """How many live series satisfy the matchers."""
        with self._lock:
            return len(self._postings.select(matchers)) if matchers else self._index.live

    def series_tokens(self, first: int, seed: int) -> NDArray[np.uint32]:
        """uint32: ring tokens of the series from reference `first` on; `seed`: the hash state after the tenant's id."""
        with self._lock:
            return series_tokens(self._index, first, seed)

    def live_among(self, references: NDArray[np.int32], incarnation: int) -> int:
        """How many of these series are live; 0 where the head has another incarnation by now."""
        with self._lock:
            return int((~self._index.dropped[references]).sum()) if incarnation == self.incarnation else 0

    def are_dropped(self, references: NDArray[np.int32], incarnation: int) -> bool:
        """Whether all these series are gone. False where the head has another incarnation by now."""
        with self._lock:
            return incarnation == self.incarnation and bool(self._index.dropped[references].all())

    def resolve(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], HistogramPart | None]:
        """Values as they are in chunks of a snapshot, as readers want them: histograms are numbers in NaNs there."""
        return resolve(values, self._histograms.pin())

    @property
    def has_histograms(self) -> bool:
        """Whether any native histogram was taken."""
        return bool(len(self._histograms))

    @property
    def stats(self) -> HeadStats:
        with self._lock:
            marks = self._memory.marks.tolist()
            empty = marks[MAX_TIME] == NO_TIME_MAX
            return HeadStats(
                series=self._index.live,
                references=len(self._index),
                min_time=None if empty else marks[MIN_TIME],
                max_time=None if empty else marks[MAX_TIME],
                log_samples=marks[LOG_LENGTH],
                late_log_samples=marks[LATE_LENGTH],
                closed_chunks=len(self._memory.closed),
                bytes=self._memory.bytes
                + self._index.bytes
                + self._postings.bytes
                + self._selected.bytes
                + self._histograms.bytes
                + self._exemplars.nbytes
                + self._starts.bytes
                + self._activity.bytes,
                appended=int(self._counts[sample_log.IN_ORDER] + self._counts[sample_log.OUT_OF_ORDER]),
                appended_late=int(self._counts[sample_log.OUT_OF_ORDER]),
                flushes=self._memory.flushes,
                created=self._created,
                removed=self._removed,
                symbol_bytes=self._index.symbol_bytes,
                selections=self._selected.stats,
            )

    def active_since(self, time_ms: int) -> int:
        """How many live series have an in-order sample at or after a time."""
        with self._lock:
            count = len(self._index)
            return int(((self._memory.last_times[:count] >= time_ms) & ~self._index.dropped[:count]).sum())

    def active_series(self, since_ms: int, selectors: Selectors = ()) -> ActiveSeries:
        """Live series that were written to at or after a time (ms, of the clock), and those that satisfy selectors.

        Selectors are evaluated once a series, as long as they are the same in every call.
        """
        with self._lock:
            self._activity.track(selectors)
            self._activity.learn(self._postings, len(self._index))
            return self._activity.count(self._active(since_ms))

    def _active(self, since_ms: int) -> NDArray[np.bool_]:
        return self._activity.active(since_ms, self._memory.last_times, self._index.dropped[: len(self._index)])

    # What is in blocks

    @property
    def floor(self) -> int:
        """Samples in order that are older (ms) are in blocks; -2^63: none are."""
        return self._memory.floor

    def refuse_before(self, time_ms: int) -> int:
        """Takes no samples in order that are older from now on; what held until now. Never below the floor."""
        with self._lock:
            before, self._min_valid_time = self._min_valid_time, max(time_ms, self._memory.floor)
            return before

    def truncate(self, time_ms: int) -> None:
        """Samples in order that are older are in blocks now: nobody who looks from now on sees them here.

        Their memory is given back by `collect`. Should the record fail, it is kept and comes before anything else in
        the log; a restart without it learns as much from the blocks. Raises what the journal raises.
        """
        with self._lock:
            if time_ms <= self._memory.floor:
                return
            self._memory.floor = time_ms
            self._min_valid_time = max(self._min_valid_time, time_ms)
            self._write_journal([wal_records.encode_truncated(time_ms)])

    def oldest(self) -> tuple[int, int]:
        """The time (ms) of the oldest sample in order, and of the oldest late one; 2^63 - 1: there is none."""
        with self._lock:
            return self._memory.oldest()

    def late_ranges(self, range_ms: int) -> tuple[int, list[int]]:
        """Flushes late samples; (a mark of how many there are, which multiples of `range_ms` they lie in)."""
        with self._lock:
            self._memory.flush_late()
            return len(self._memory.closed), self._memory.late_ranges(range_ms)

    def collect(self, late_mark: int = 0) -> int:
        """Gives back what is in blocks: samples below the floor, late ones up to the mark, series without samples.

        Nothing else may have been collected since the mark was given. References of those series answer "unknown" from
        now on; a new sample of the same labels makes a new series. Returns how many series went.
        """
        with self._lock:
            memory = self._memory
            memory.drop_before_floor(late_mark)
            # Numbers of histograms that late samples may refer to are kept, however old.
            oldest = min(memory.floor, memory.oldest()[1])
            self._histograms.drop_before(oldest)
            self._starts.drop_before(oldest)
            doomed = memory.without_samples() & ~self._index.dropped[: memory.series]
            references = np.flatnonzero(doomed).astype(np.int32)
            if len(references):
                self._drop(references)
                # Should this fail, the record is kept and comes before anything else in the log.
                self._write_journal([wal_records.encode_dropped(references)])
            return len(references)

    def renumber(self) -> bool:
        """Gives back what dropped series still take, once they are more than the others; whether it did.

        All references become invalid: the head has another incarnation then. Readers keep what they have. Holds the
        lock for some 0.5 µs a series that is left.
        """
        with self._lock:
            if len(self._index) - self._index.live <= max(self._index.live, self.settings.dropped_series_min):
                return False
            self._renumber()
            # Should this fail, the record is kept and comes before anything else in the log.
            self._write_journal([wal_records.encode_renumbered(len(self._index))])
            return True

    def _renumber(self) -> None:
        kept = ~self._index.dropped[: len(self._index)]
        self._memory.renumber(kept)
        self._starts.renumber(kept)
        self._exemplars.renumber(kept)
        self._activity.renumber(kept)
        self._index = without_dropped(self._index)
        self._postings = Postings(self._index)
        self._selected = SelectedSeries(self._index, self._postings, self._selected.stats)
        self.incarnation = secrets.randbits(63)

    def _drop(self, references: NDArray[np.int32]) -> None:
        self._removed += len(references)
        self._memory.drop(references)
        self._starts.drop(references)
        self._index.drop(references)
        self._postings.note_dropped(len(references))
        self._exemplars.forget(references)

    # Restart

    def exclusive(self) -> AbstractContextManager[Any]:
        """The lock, as a context in which nothing changes but by the caller."""
        return self._lock

    def checkpoint(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Flushes; (facts, parts) for wal/checkpoint.py, which later pushes do not change.

        Raises `StorageFailed` while full chunks cannot be written to the disk.
        """
        with self._lock:
            self.flush()
            self._write_journal([])
            parts = self._index.state() | self._memory.state() | self._histograms.state()
            parts |= self._starts.state()
            parts["metadata"] = wal_records.encode_metadata(self._metadata.of())[1][0]
            parts["exemplars"] = b"".join(
                bytes(one) for one in wal_records.encode_exemplars(*self._exemplars.export())[1]
            )
            first_segment = self._memory.closed.first_segment
            facts = {"chunks_end": self._files.end, "first_segment": first_segment, "series": len(self._index)}
            return facts, parts

    def restore(self, parts: dict[str, Any]) -> None:
        """Takes over what `checkpoint` gave; only into an empty head. The chunk files end where the facts say."""
        with self._lock:
            assert not len(self._index)
            self._index.restore(parts)
            self._memory.restore(parts, len(self._index))
            self._histograms.restore(parts)
            self._min_valid_time = self._memory.floor
            self._starts.restore(parts, len(self._index))
            self._metadata.restore(wal_records.decode_metadata(parts["metadata"]))
            if "exemplars" in parts:  # checkpoints of earlier versions have none
                self._exemplars.add(*wal_records.decode_exemplars(parts["exemplars"]))

    def replay(self, kind: int, payload: bytes) -> None:
        """Applies one record of the write-ahead log. Raises `InvalidRecord`."""
        try:
            self._replay(kind, payload)
        except ClientError as error:  # of a sender, it would be its mistake
            raise wal_records.InvalidRecord(kind, error.describe()) from error

    def _replay(self, kind: int, payload: bytes) -> None:
        with self._lock:
            if kind == wal_records.SERIES:
                series = wal_records.decode_series(payload)
                if series.first_reference != len(self._index):
                    raise wal_records.InvalidRecord(kind, f"first reference {series.first_reference}")
                _, created = self._index.intern(series.label_bytes, series.offsets)
                if len(created) != len(series):
                    raise wal_records.InvalidRecord(kind, "a series that is there already")
                self._memory.reserve(len(self._index))
            elif kind == wal_records.SAMPLES:
                samples = wal_records.decode_samples(payload)
                counts = np.zeros(sample_log.STATUSES, np.int64)
                # Late samples must not come back in order: those below the floor would be taken for what is in blocks.
                min_valid = NO_TIME_MIN if samples.late else NO_TIME_MAX
                self._memory.store(
                    samples.references, samples.timestamps, samples.values, self._index.dropped,
                    True, min_valid, 1, 0, counts,
                )  # fmt: skip
            elif kind == wal_records.HISTOGRAMS:
                first, newest, packed = wal_records.decode_histograms(payload)
                if first != self._histograms.end:
                    raise wal_records.InvalidRecord(kind, f"first number {first}")
                self._histograms.append(unpack(packed), newest)
            elif kind == wal_records.START_TIMESTAMPS:
                changes = wal_records.decode_start_timestamps(payload)
                if len(changes[0]) and int(changes[0].max()) >= len(self._index):
                    raise wal_records.InvalidRecord(kind, "a reference that does not exist")
                self._starts.add(changes, len(self._index))
            elif kind == wal_records.METADATA:
                self._metadata.restore(wal_records.decode_metadata(payload))
            elif kind == wal_records.EXEMPLARS:
                exemplars = wal_records.decode_exemplars(payload)
                if int(exemplars[0].max(initial=-1)) >= len(self._index):
                    raise wal_records.InvalidRecord(kind, "a reference that does not exist")
                if check_labels(np.frombuffer(exemplars[3], np.uint8), exemplars[4]) < 0:
                    raise wal_records.InvalidRecord(kind, "malformed labels")
                self._exemplars.add(*exemplars)
            elif kind == wal_records.DROPPED:
                references = wal_records.decode_dropped(payload)
                if len(references) and int(references.max()) >= len(self._index):
                    raise wal_records.InvalidRecord(kind, "a reference that does not exist")
                self._drop(references[~self._index.dropped[references]])
            elif kind == wal_records.TRUNCATED:
                self._memory.floor = max(self._memory.floor, wal_records.decode_truncated(payload))
                self._min_valid_time = self._memory.floor
            elif kind == wal_records.RENUMBERED:
                self._renumber()
                if len(self._index) != (count := wal_records.decode_renumbered(payload)):
                    raise wal_records.InvalidRecord(kind, f"{count} series, found {len(self._index)}")
            else:
                raise wal_records.InvalidRecord(kind, "unknown type")


def _refused(statuses: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Which samples were refused for good."""
    return np.flatnonzero((statuses >= sample_log.REFUSED_OUT_OF_ORDER) & (statuses != sample_log.UNKNOWN))
