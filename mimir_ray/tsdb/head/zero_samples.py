"""Samples of value 0 at the time since when a series counts, so that its first increase is seen.

A series that begins with 5 at 12:00 and counts since 11:59 rose by 5 in that minute, which `rate` sees only where a
sample says 0 at 11:59. Such a sample is never late: once the series has a newer one, the start is old news, since every
sample of a counter repeats it.

Upstream: pkg/ingester pushSamplesToAppender; tsdb/head_append.go AppendSTZeroSample, AppendHistogramSTZeroSample.
Differs: a start that is older than the head takes is passed over in silence, where upstream answers 400.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I32, I64, OutBool, kernel
from mimir_ray.model.boxed import box, is_boxed, unbox
from mimir_ray.model.float_histogram import RESET
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.tsdb.head.sample_log import NO_TIME_MAX

Columns = tuple[
    NDArray[np.intp],
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.float64],
    HistogramColumns | None,
    NDArray[np.int64],
]


def find_zeros(
    references: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    starts: NDArray[np.int64],
    within_ms: int,
    min_valid: int,
    last_times: NDArray[np.int64],
) -> NDArray[np.intp] | None:
    """Which of N samples have a zero before them, ascending; None: none.

    Args:
        references: those that are no series' (negative ones, ones too large) have none.
        starts: int64[N], since when the samples count (ms; 0: not known).
        within_ms, min_valid: how long before its sample a zero may lie, and the oldest time (ms) that is taken.
        last_times: int64[S], of each series its newest sample in order.
    """
    wanted = np.zeros(len(references), np.bool_)
    if not mark_zeros(references, timestamps, starts, within_ms, min_valid, last_times, np.empty(0, np.int64), wanted):
        return None
    # Now in the order of the series: what came before in the batch counts too.
    order = np.argsort(references, kind="stable")
    mark_zeros(references, timestamps, starts, within_ms, min_valid, last_times, order, wanted)
    return np.flatnonzero(wanted)


@kernel
def mark_zeros(
    references: I32,
    timestamps: I64,
    starts: I64,
    within_ms: int,
    min_valid: int,
    last_times: I64,
    order: I64,
    wanted: OutBool,
) -> int:
    """See `find_zeros`; how many there are.

    Args:
        order: int64[N], by series; or empty, and each sample is judged as if it were the only one.
        wanted: bool[N], written.
    """
    count = 0
    series = np.int64(-1)
    newest = np.int64(NO_TIME_MAX)
    for place in range(len(references)):
        i = order[place] if len(order) else np.int64(place)
        reference = np.int64(references[i])
        wanted[i] = False
        if reference < 0 or reference >= len(last_times):
            continue
        if reference != series or len(order) == 0:
            series = reference
            newest = last_times[reference]
        start, time = starts[i], timestamps[i]
        if 0 < start < time and time - start <= within_ms and start > newest and start >= min_valid:
            wanted[i] = True
            count += 1
        newest = max(newest, time)
    return count


def with_zeros(
    zeros: NDArray[np.intp],
    references: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    histograms: HistogramColumns | None,
    starts: NDArray[np.int64],
) -> Columns:
    """(where the samples are now, and the columns) with a zero before each of these samples; of a histogram, an empty
    one with the same buckets that says that it is a reset."""
    own = np.arange(len(references)) + np.searchsorted(zeros, np.arange(len(references)), side="right")
    of_zeros = np.zeros(len(zeros), np.float64)
    boxed = is_boxed(values[zeros])
    if histograms is not None:
        boxed &= unbox(values[zeros]) < len(histograms)
    if histograms is not None and boxed.any():
        rows = unbox(values[zeros[boxed]])
        of_zeros[boxed] = box(len(histograms) + np.arange(len(rows)))
        histograms = HistogramColumns.concat([histograms, _emptied(histograms.take(rows))])
    return (
        own,
        np.insert(references, zeros, references[zeros]),
        np.insert(timestamps, zeros, starts[zeros]),
        np.insert(values, zeros, of_zeros),
        histograms,
        np.insert(starts, zeros, starts[zeros]),
    )


def _emptied(columns: HistogramColumns) -> HistogramColumns:
    count = len(columns)
    none, offsets = np.zeros(0), np.zeros(count + 1, np.int64)
    return HistogramColumns(
        columns.schema, np.full(count, RESET, np.int8), columns.zero_threshold, np.zeros(count), np.zeros(count),
        np.zeros(count), offsets, none.astype(np.int32), none, offsets, none.astype(np.int32), none,
        columns.custom, columns.bounds,
    )  # fmt: skip
