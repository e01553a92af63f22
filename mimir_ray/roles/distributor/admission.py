"""What of a request is sound: its series, samples and metadata become a `PreparedWrite`.

Series that the tenant's cache knows were judged before. Of refused ones only the reason is remembered, for some
thousands: senders repeat those too, and judging one costs as much as passing a thousand known ones on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.errors import ClientError
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.distributor import errors, validation
from mimir_ray.roles.distributor.exemplars import sound_exemplars
from mimir_ray.roles.distributor.histograms import Refusals
from mimir_ray.roles.distributor.label_rules import LabelRules
from mimir_ray.roles.distributor.metrics import DistributorMetrics
from mimir_ray.roles.distributor.request import PreparedExemplars, PreparedWrite
from mimir_ray.roles.distributor.series_cache import SeriesCache
from mimir_ray.wire.exemplars import ExemplarScan
from mimir_ray.wire.protobuf import parse_labels
from mimir_ray.wire.write_scan import WriteScan

Owners = Callable[[NDArray[np.uint32]], NDArray[np.int16]]
"""From tokens uint32[M] to owners int16[M, RF], under the ring that the cache uses."""


_Sections = tuple[NDArray[np.intp], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]
"""Series, and where in the bytes their labels begin and end."""

Refused = dict[tuple[int, int], str]
"""Hash of a refused series → the reason under which it is counted."""
REFUSED_MAX = 10_000
PAUSE_AFTER = 256
"""Series without a kernel's blessing are judged in Python; after so many, others get their turn."""
REWRITTEN_AT_ONCE = 2048
"""Series whose labels rules change; after so many, likewise."""


@dataclass(slots=True)
class _Verdicts:
    """Of S series: whether they were judged, are sound, came in the form in which they are stored, are dropped without
    a word, have labels in the request as they are stored now (bool[S]); tokens, uint32[S]."""

    judged: NDArray[np.bool_]
    good: NDArray[np.bool_]
    canonical: NDArray[np.bool_]
    dropped: NDArray[np.bool_]
    rewritten: NDArray[np.bool_]
    tokens: NDArray[np.uint32]

    @classmethod
    def of_nothing(cls, series: int) -> _Verdicts:
        return cls(*np.zeros((5, series), np.bool_), np.zeros(series, np.uint32))


@dataclass(slots=True)
class Admission:
    """Judges one request of one tenant: `judge`, then `prepare`.

    `group`: under which refused samples are counted. `error`: the first thing that was refused; it is always judged in
    full.
    """

    tenant: TenantId
    token_seed: int
    cache: SeriesCache
    refused: Refused
    rules: LabelRules
    group: str
    now_ms: int
    metrics: DistributorMetrics
    scan: WriteScan
    exemplars: ExemplarScan | None = None
    error: ClientError | None = None
    ignored: int = 0
    """Samples left out that count as written: those that a request has twice."""
    _found: tuple[NDArray[np.int32], int] | None = None
    """What the cache said, for as long as nobody else had a turn."""
    _verdicts: _Verdicts | None = None

    async def judge(self) -> None:
        """Judges the series that the cache does not know. Raises `MalformedProtobuf`.

        Lets others have their turn where that takes long: the ring and the cache may have changed afterwards.
        """
        ids, missing = self._found = self.cache.find(self.scan.hash_low, self.scan.hash_high)
        if missing:
            self._verdicts = _Verdicts.of_nothing(len(self.scan))
            for _ in self._judge_series(np.flatnonzero(ids < 0)):
                self._found = None
                await asyncio.sleep(0)

    def prepare(self, owners: Owners) -> PreparedWrite:
        """What is to be written; gives sound new series their place in the cache."""
        cache, scan = self.cache, self.scan
        ids, missing = self._found or cache.find(scan.hash_low, scan.hash_high)
        if missing:
            if cache.make_room(missing):
                ids, missing = cache.find(scan.hash_low, scan.hash_high)
            self._admit_series(ids, owners)
        some_without = bool(missing) and int(ids.min()) < 0
        if cache.some_dropped:
            out = cache.dropped[ids] & (ids >= 0)
            if out.any():
                ids[out] = -1
                some_without = True
        rows, timestamps, values, start_timestamps = self._sound_samples(ids, some_without)
        starts, ends = scan.label_start, scan.label_end
        exemplars = self._sound_exemplars(ids)
        rewritten = None if self._verdicts is None else self._verdicts.rewritten
        if rows is not None:
            used = np.zeros(len(ids), np.bool_)
            used[rows] = True
            if exemplars is not None:
                used[exemplars.series] = True
            if not used.all():
                places = np.cumsum(used, dtype=np.int32) - np.int32(1)
                if exemplars is not None:
                    exemplars.series = places[exemplars.series].astype(np.int64)
                ids, starts, ends = ids[used], starts[used], ends[used]
                rows = places[rows]
                rewritten = None if rewritten is None else rewritten[used]
        canonical = cache.canonical[ids]
        return PreparedWrite(
            self.tenant,
            self.rules,
            scan.data,
            starts,
            ends,
            canonical if rewritten is None else canonical | rewritten,
            ids,
            cache.generation,
            cache.ring_version,
            rows,
            timestamps,
            values,
            self._sound_metadata(scan.metadata),
            scan.columns,
            start_timestamps,
            exemplars,
            scan.section_writer,
            scan.zeros_within_ms,
        )

    def refuse_histograms(self, refusals: Refusals) -> None:
        """Counts histograms that were refused before."""
        for error, count in refusals:
            self._refuse(error, count)

    def _refuse(self, error: ClientError, samples: int = 1) -> None:
        self._discard(errors.discard_reason(error), samples)
        if self.error is None:
            self.error = error

    def _discard(self, reason: str, samples: int) -> None:
        self.metrics.discarded_samples.labels(self.tenant, self.group, reason).inc(samples)

    def _admit_series(self, ids: NDArray[np.int32], owners: Owners) -> None:
        """Gives the sound ones among the series without id (-1) theirs."""
        new = np.flatnonzero(ids < 0)
        if self._verdicts is None:
            self._verdicts = _Verdicts.of_nothing(len(self.scan))
        verdicts = self._verdicts
        for _ in self._judge_series(new[~verdicts.judged[new]]):
            pass  # only what was forgotten in the meantime
        known = new[verdicts.good[new] | verdicts.dropped[new]]
        if len(known):
            ids[known] = self.cache.add(
                self.scan.hash_low[known],
                self.scan.hash_high[known],
                verdicts.tokens[known],
                verdicts.canonical[known],
                verdicts.dropped[known],
                owners(verdicts.tokens[known]),
            )

    def _judge_series(self, rows: NDArray[np.intp]) -> Iterator[None]:
        """Fills in the verdicts of these series; yields now and then."""
        scan, verdicts = self.scan, self._verdicts
        assert verdicts is not None
        verdicts.judged[rows] = True
        scan.need_labels(rows)
        starts, ends = scan.label_start[rows], scan.label_end[rows]
        data = np.frombuffer(scan.data, np.uint8)
        if self.rules.changes_sound_labels:
            good, tokens = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.uint32)
        else:
            good, tokens = self.rules.judge(data, starts, ends, self.token_seed)
        verdicts.canonical[rows] = good
        verdicts.good[rows], verdicts.tokens[rows] = good, tokens
        rest = rows[~good]
        kept: list[_Sections] = []
        if self.rules.only_removes:
            kept.append(self._take_sections(rest, *self.rules.sort(data, starts[~good], ends[~good])))
        elif self.rules.changes_sound_labels:
            if self.refused:
                low, high = scan.hash_low[rest].tolist(), scan.hash_high[rest].tolist()
                rest = rest[[key not in self.refused for key in zip(low, high, strict=True)]]
            for first in range(0, len(rest), REWRITTEN_AT_ONCE):
                part = rest[first : first + REWRITTEN_AT_ONCE]
                sections = self.rules.rewrite(scan.data, scan.label_start[part], scan.label_end[part])
                verdicts.dropped[part] = sections[1] == sections[2]
                kept.append(self._take_sections(part, *sections))
                yield
        rest = rows[~(verdicts.good[rows] | verdicts.dropped[rows])]
        for count, row in enumerate(rest.tolist(), 1):
            token = self._judge_one(row)
            if token is not None:
                verdicts.good[row], verdicts.tokens[row] = True, token
            if count % PAUSE_AFTER == 0:
                yield
        self._keep_sections(kept)

    def _judge_one(self, row: int) -> int | None:
        """The token of a series, or None if it is refused (which is noted)."""
        scan = self.scan
        key = int(scan.hash_low[row]), int(scan.hash_high[row])
        if self.error is not None and key in self.refused:
            self._discard(self.refused[key], 1)
            return None
        raw = parse_labels(scan.data, int(scan.label_start[row]), int(scan.label_end[row]))
        labels = self.rules.canonical(raw)
        if not labels:
            assert self._verdicts is not None
            self._verdicts.dropped[row] = True  # as upstream: without a word
            return None
        try:
            self.rules.validate(labels)
        except ClientError as error:
            self._refuse(error)
            if len(self.refused) >= REFUSED_MAX:
                self.refused.clear()
            self.refused[key] = errors.discard_reason(error)
            return None
        return validation.series_token(self.tenant, labels)

    def _take_sections(
        self, rows: NDArray[np.intp], data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> _Sections:
        """Judges these series by their labels as they would be stored; the sections of the sound ones.

        `ends` below or at `starts`: there are none.
        """
        verdicts = self._verdicts
        assert verdicts is not None
        there = ends > starts
        rows, starts, ends = rows[there], starts[there], ends[there]
        good, tokens = self.rules.judge(data, starts, ends, self.token_seed)
        rows = rows[good]
        verdicts.good[rows], verdicts.tokens[rows] = True, tokens[good]
        return rows, data, starts[good], ends[good]

    def _keep_sections(self, kept: Iterable[_Sections]) -> None:
        """From here on, these labels are those of their series in this request."""
        scan, verdicts = self.scan, self._verdicts
        assert verdicts is not None
        pieces, size = [scan.data], len(scan.data)
        for rows, data, starts, ends in kept:
            if len(rows):
                scan.label_start[rows], scan.label_end[rows] = starts + size, ends + size
                verdicts.rewritten[rows] = True
                pieces.append(data.tobytes())
                size += len(data)
        if len(pieces) > 1:
            scan.data = b"".join(pieces)

    def _sound_samples(
        self, ids: NDArray[np.int32], some_without: bool
    ) -> tuple[NDArray[np.int32] | None, NDArray[np.int64], NDArray[np.float64], NDArray[np.int64] | None]:
        """(rows, timestamps, values, start timestamps) of the samples to be written.

        rows None: series s has just sample s. `some_without`: not all series have an id.
        """
        scan = self.scan
        earliest, latest = validation.sample_bounds(self.rules.limits, self.now_ms)
        in_bounds = scan.latest <= latest and scan.earliest >= earliest
        if in_bounds and not scan.repeated and not some_without:
            rows = None if scan.one_sample_each else scan.sample_series
            return rows, scan.timestamps, scan.values, scan.start_timestamps
        keep = ids[scan.sample_series] >= 0
        if scan.repeated:
            again = np.zeros(scan.samples, np.bool_)
            again[1:] = (scan.sample_series[1:] == scan.sample_series[:-1]) & (
                scan.timestamps[1:] == scan.timestamps[:-1]
            )
            again &= keep
            self.ignored = int(again.sum())
            self._discard("sample_duplicate_timestamp", self.ignored)
            keep &= ~again
        outside = (scan.timestamps > latest) | (scan.timestamps < earliest)
        self._refuse_samples(scan, np.flatnonzero(outside & keep), latest)
        chosen = np.flatnonzero(keep & ~outside)
        starts = None if scan.start_timestamps is None else scan.start_timestamps[chosen]
        return scan.sample_series[chosen], scan.timestamps[chosen], scan.values[chosen], starts

    def _refuse_samples(self, scan: WriteScan, refused: NDArray[np.intp], latest: int) -> None:
        """Counts samples outside of the bounds; the first of each kind speaks for the others, in their order."""
        too_new = scan.timestamps[refused] > latest
        for kind in dict.fromkeys(too_new.tolist()):
            same = refused[too_new == kind]
            row = int(scan.sample_series[same[0]])
            scan.need_labels(np.array([row]))
            labels = parse_labels(scan.data, int(scan.label_start[row]), int(scan.label_end[row]))
            self._refuse(validation.sample_error(int(scan.timestamps[same[0]]), labels, kind), len(same))

    def _sound_exemplars(self, ids: NDArray[np.int32]) -> PreparedExemplars | None:
        """Those of sound series; their `series` are rows of the scan."""
        if self.exemplars is None:
            return None
        kept, refusals, dropped = sound_exemplars(self.scan, self.exemplars, ids, self.rules.limits, self.now_ms)
        for error, count in refusals:
            self.metrics.discarded_exemplars.labels(self.tenant, errors.discard_reason(error)).inc(count)
            if self.error is None:
                self.error = error
        for reason, count in dropped.items():
            self.metrics.discarded_exemplars.labels(self.tenant, reason).inc(count)
        return kept

    def _sound_metadata(self, metadata: tuple[Metadata, ...]) -> tuple[Metadata, ...]:
        kept = []
        for one in metadata:
            try:
                kept.append(validation.clean_metadata(one, self.rules.limits))
            except ClientError as error:
                self.metrics.discarded_metadata.labels(self.tenant, errors.discard_reason(error)).inc()
                if self.error is None:
                    self.error = error
        return tuple(kept)
