"""Histogram samples on their way into a head, and out of it. See model/boxed.py and histogram_store.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.boxed import box, count_boxed, is_boxed, unbox, without_boxes
from mimir_ray.model.float_histogram import GAUGE, UNKNOWN, FloatHistogram
from mimir_ray.model.histogram import HistogramColumns, HistogramPart
from mimir_ray.model.series import NORMAL_NAN_BITS, STALE_NAN
from mimir_ray.tsdb.chunks.histogram_layout import stored_hint

from .histogram_store import HistogramStore, PinnedHistograms
from .memory import SampleMemory

Numbered = tuple[NDArray[np.float64], tuple[int, HistogramColumns, int] | None]
"""Values for the head, and what was added to the store: (first number, histograms, newest time in ms), or None."""


def number_histograms(
    references: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    histograms: HistogramColumns | None,
    memory: SampleMemory,
    store: HistogramStore,
) -> Numbered:
    """Puts the histograms of a batch into the store, with the counter reset hints that chunks would give them.

    `values`: floats, and boxed rows of `histograms`. A histogram that its series has at this time already gets the
    number it has, so that sending it again changes nothing.
    """
    if histograms is None:
        return without_boxes(values), None
    at = np.flatnonzero(is_boxed(values))
    rows = unbox(values[at])
    out = values.view(np.uint64).copy()
    out[at] = NORMAL_NAN_BITS
    known = rows < len(histograms)
    at, rows = at[known], rows[known]
    numbers = np.empty(len(at), np.int64)
    fresh: list[int] = []
    hints: list[int] = []
    in_batch: dict[int, tuple[int, FloatHistogram]] = {}
    floats = _floats_beside(references, timestamps, values, at)
    for place, (sample, row) in enumerate(zip(at.tolist(), rows.tolist(), strict=True)):
        reference, time = int(references[sample]), int(timestamps[sample])
        one = histograms.row(row)
        last_time, previous, number = _last(reference, memory, store, in_batch)
        if number >= 0 and time == last_time:
            there = previous or store.one(number)
            if there is not None and there.equals(one) and (there.hint == GAUGE) == (one.hint == GAUGE):
                numbers[place] = number
                continue
        if any(last_time < other < time for other in floats.get(reference, ())):
            previous = None  # a float in between ends a chunk
        hints.append(stored_hint(previous, one) if time > last_time else GAUGE if one.hint == GAUGE else UNKNOWN)
        numbers[place] = store.end + len(fresh)
        fresh.append(row)
        if time > last_time:
            in_batch[reference] = time, one
    added = None
    if fresh:
        columns = replace(histograms.take(np.array(fresh)), hint=np.array(hints, np.int8))
        newest = int(timestamps[at].max())
        added = store.append(columns, newest), columns, newest
    out[at] = box(numbers).view(np.uint64)
    return out.view(np.float64), added


def _floats_beside(
    references: NDArray[np.int32], timestamps: NDArray[np.int64], values: NDArray[np.float64], at: NDArray[np.intp]
) -> dict[int, list[int]]:
    """Times of the floats in the batch of series that have histograms in it too."""
    if len(at) == len(values):
        return {}
    found: dict[int, list[int]] = {}
    beside = np.isin(references, references[at])
    beside[at] = False
    for sample in np.flatnonzero(beside).tolist():
        found.setdefault(int(references[sample]), []).append(int(timestamps[sample]))
    return found


def _last(
    reference: int,
    memory: SampleMemory,
    store: HistogramStore,
    in_batch: dict[int, tuple[int, FloatHistogram]],
) -> tuple[int, FloatHistogram | None, int]:
    """(time of the series' last sample, that sample if it is a histogram at hand, its number or -1)."""
    if reference in in_batch:
        return *in_batch[reference], -1
    if not 0 <= reference < memory.series:
        return np.iinfo(np.int64).min, None, -1
    value = memory.last_values[reference : reference + 1]
    time = int(memory.last_times[reference])
    if not is_boxed(value)[0]:
        return time, None, -1
    number = int(unbox(value)[0])
    return time, store.recent(number), number


def resolve(values: NDArray[np.float64], store: PinnedHistograms) -> tuple[NDArray[np.float64], HistogramPart | None]:
    """Values as readers want them: of histograms their sums, and the histograms beside them."""
    if not len(store) or not count_boxed(values.view(np.uint64)):
        return values, None
    boxed = is_boxed(values)
    numbers, position = np.unique(unbox(values[boxed]), return_inverse=True)
    columns, found = store.read(numbers)
    row = np.where(found, np.cumsum(found) - 1, -1).astype(np.int32)[position]
    which = np.full(len(values), -1, np.int32)
    which[boxed] = row
    out = values.copy()
    # What was dropped by retention while its series was not is as good as no sample.
    out[boxed] = np.where(row >= 0, np.append(columns.sum, 0.0)[row], STALE_NAN)
    return out, HistogramPart(which, columns) if len(columns) else None
