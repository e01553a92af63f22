"""How exemplars get into a head and out of it again: between the columns of a push and the exemplar store.

Upstream: tsdb/head_append.go AppendExemplar, pkg/ingester/ingester.go pushSamplesToAppender (what is told to the
sender), tsdb/exemplar.go Select.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.exemplars import Exemplar, ExemplarColumns, SeriesExemplars
from mimir_ray.model.matchers import Matcher, quote
from mimir_ray.model.write import Refusal
from mimir_ray.tsdb.exemplars import OUT_OF_ORDER, SERIES_MISSING, STORED, ExemplarStore
from mimir_ray.tsdb.index.postings import Postings
from mimir_ray.tsdb.index.series_index import SeriesIndex
from mimir_ray.tsdb.wal.records import Exemplars

from .settings import PushLimits

_REASONS = {SERIES_MISSING: "exemplar-series-missing", OUT_OF_ORDER: "exemplar-out-of-order"}


@dataclass(slots=True)
class TakenExemplars:
    """`stored`: for the journal, or None; `refused`: int32, those that are not in the store and are no duplicates."""

    stored: Exemplars | None
    refused: NDArray[np.int32]
    refusals: list[Refusal]


def take_exemplars(
    store: ExemplarStore, index: SeriesIndex, exemplars: ExemplarColumns, limits: PushLimits
) -> TakenExemplars:
    """Stores exemplars of one push. Without a capacity none is stored, without a word."""
    if not store.capacity:
        return TakenExemplars(None, np.arange(len(exemplars), dtype=np.int32), [])
    of_series = index.find(exemplars.series_labels, exemplars.series_offsets)
    references = of_series[exemplars.series]
    statuses = store.append(
        references, exemplars.timestamps, exemplars.values, exemplars.labels, exemplars.label_offsets,
        limits.out_of_order_window_ms,
    )  # fmt: skip
    taken = np.flatnonzero(statuses == STORED)
    stored = None
    if len(taken) == len(statuses):
        columns = exemplars.timestamps, exemplars.values, exemplars.labels, exemplars.label_offsets
        stored = (references, *columns)
    elif len(taken):
        cuts = exemplars.label_offsets.tolist()
        pieces = [exemplars.labels[cuts[e] : cuts[e + 1]] for e in taken.tolist()]
        offsets = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum([len(one) for one in pieces], out=offsets[1:])
        stored = references[taken], exemplars.timestamps[taken], exemplars.values[taken], b"".join(pieces), offsets
    refusals = []
    for status, reason in _REASONS.items():
        rows = np.flatnonzero(statuses == status)
        if len(rows) and not (status == OUT_OF_ORDER and limits.ignore_late_exemplars):
            refusals.append(_refusal(exemplars, reason, rows))
    return TakenExemplars(
        stored, np.flatnonzero((statuses == OUT_OF_ORDER) | (statuses == SERIES_MISSING)).astype(np.int32), refusals
    )


def _refusal(exemplars: ExemplarColumns, reason: str, rows: NDArray[np.intp]) -> Refusal:
    first = int(rows[0])
    series = int(exemplars.series[first])
    start, end = exemplars.series_offsets[series : series + 2].tolist()
    cut, stop = exemplars.label_offsets[first : first + 2].tolist()
    return Refusal(
        reason,
        first,
        int(exemplars.timestamps[first]),
        len(rows),
        _text(exemplars.series_labels[start:end]),
        exemplar=_text(exemplars.labels[cut:stop]),
    )


def _labels(section: bytes) -> tuple[tuple[str, str], ...]:
    """Of a label section that was found to be sound before."""
    index = SeriesIndex()
    references, _ = index.intern(section, np.array([0, len(section)], np.int64))
    return index.labels(references).labels(0)


def _text(section: bytes) -> str:
    return "{" + ", ".join(f"{name}={quote(value)}" for name, value in _labels(section)) + "}"


def find_exemplars(
    store: ExemplarStore,
    index: SeriesIndex,
    postings: Postings,
    selectors: Sequence[tuple[Matcher, ...]],
    mint: int,
    maxt: int,
) -> list[SeriesExemplars]:
    """Series with exemplars between two times, both included, that satisfy one of the selectors; by labels."""
    if not store.capacity or not selectors:
        return []
    selected = np.unique(np.concatenate([postings.select(matchers) for matchers in selectors]))
    references, timestamps, values, sections = store.select(selected, mint, maxt)
    if not len(references):
        return []
    # All label sets at once: exemplars' labels are a small index of their own.
    own = SeriesIndex()
    offsets = np.zeros(len(sections) + 1, np.int64)
    np.cumsum([len(one) for one in sections], out=offsets[1:])
    of_exemplars = own.labels(own.intern(b"".join(sections), offsets)[0]).to_labels()
    different, first = np.unique(references, return_index=True)
    of_series = index.labels(different).to_labels()
    ends = [*first[1:].tolist(), len(references)]
    times, numbers = timestamps.tolist(), values.tolist()
    found = [
        SeriesExemplars(labels, tuple(Exemplar(of_exemplars[at], numbers[at], times[at]) for at in range(start, end)))
        for labels, start, end in zip(of_series, first.tolist(), ends, strict=True)
    ]
    return sorted(found, key=lambda one: one.labels)
