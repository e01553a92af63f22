"""Windows of range functions: which samples each step sees.

Every range kernel walks one series at a time with two cursors that only move right, so a series costs
O(N + T) whatever the range. The windows here are what all of them share; the functions stand in
rate.py, over_time.py, quantile.py and regression.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import F64, I64, U64, OutF64, OutI64, device, kernel
from mimir_ray.model.series import STALE_NAN_BITS, SeriesBatch


@dataclass(frozen=True, slots=True)
class Window:
    """The windows of T steps, in sample time.

    `ends`: int64[T], ms, not descending, the right edges (inclusive) with offset and `@` already applied.
    `range_ms`: > 0; step t sees samples in (ends[t] - range_ms, ends[t]]: left-open, as in Prometheus 3.
    `times`: int64[T], ms, the evaluation times of the steps, for functions that speak of the query's time.
    `lookback_ms`: how far beyond their edges `anchored` and `smoothed` windows see.
    """

    ends: NDArray[np.int64]
    range_ms: int
    times: NDArray[np.int64]
    lookback_ms: int = 0


@device
def advance(timestamps, at, stop, bound):  # type: ignore[no-untyped-def]
    """The first index in [at, stop) whose timestamp is beyond `bound`, or `stop`."""
    while at < stop and timestamps[at] <= bound:
        at += 1
    return at


@device
def leap(timestamps, at, stop, bound, guess):  # type: ignore[no-untyped-def]
    """As `advance`, but tries first to go on by `guess` samples: by what the step before went.

    Regular scrapes take a comparison or two however many samples a step has. No guess is wrong.
    """
    if guess > 1 and at + guess <= stop and timestamps[at + guess - 1] <= bound:
        at += guess
    while at < stop and timestamps[at] <= bound:
        at += 1
    return at


@device
def longest_series(offsets):  # type: ignore[no-untyped-def]
    """The largest number of samples that one series has: how long scratch arrays must be."""
    longest = 0
    for s in range(len(offsets) - 1):
        longest = max(longest, offsets[s + 1] - offsets[s])
    return longest


@kernel
def first_equal(bits: U64, wanted: int) -> int:
    """The index of the first element equal to `wanted` (read as unsigned), or -1."""
    pattern = np.uint64(wanted)
    block = 256
    for start in range(0, len(bits), block):
        stop = min(start + block, len(bits))
        seen = 0
        for i in range(start, stop):  # without a way out, so that it becomes vector code
            seen += bits[i] == pattern
        if seen:
            for i in range(start, stop):
                if bits[i] == pattern:
                    return i
    return -1


@kernel
def copy_unequal(
    offsets: I64, timestamps: I64, values: F64, bits: U64, unwanted: int,
    out_offsets: OutI64, out_timestamps: OutI64, out_values: OutF64,
) -> None:  # fmt: skip
    """Copies all samples but those of one bit pattern.

    Args:
        offsets: int64[S + 1]; timestamps, values: [N]; bits: `values` as uint64[N].
        unwanted: the bit pattern.
        out_offsets: int64[S + 1], out_timestamps, out_values: at least [N]; written from index 0 on.
    """
    pattern = np.uint64(unwanted)
    count = 0
    out_offsets[0] = 0
    for s in range(len(offsets) - 1):
        for i in range(offsets[s], offsets[s + 1]):
            if bits[i] != pattern:
                out_timestamps[count] = timestamps[i]
                out_values[count] = values[i]
                count += 1
        out_offsets[s + 1] = count


def without_stale(batch: SeriesBatch) -> SeriesBatch:
    """The batch without staleness markers, which are no samples of a range window; itself if it has none."""
    bits = batch.values.view(np.uint64)
    if first_equal(bits, STALE_NAN_BITS) < 0:
        return batch
    if batch.histograms is not None or batch.start_timestamps is not None:
        return chosen_samples(batch, bits != np.uint64(STALE_NAN_BITS))
    offsets = np.empty_like(batch.offsets)
    timestamps = np.empty(len(batch.timestamps), np.int64)
    values = np.empty(len(batch.values), np.float64)
    copy_unequal(batch.offsets, batch.timestamps, batch.values, bits, STALE_NAN_BITS, offsets, timestamps, values)
    return SeriesBatch(batch.labels, offsets, timestamps[: offsets[-1]], values[: offsets[-1]])


def chosen_samples(batch: SeriesBatch, chosen: NDArray[np.bool_], floats: bool = False) -> SeriesBatch:
    """Only these samples of every series; `floats`: there is no histogram among them."""
    before = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(chosen, out=before[1:])
    histograms = None if floats or batch.histograms is None else batch.histograms[chosen]
    starts = None if batch.start_timestamps is None else batch.start_timestamps[chosen]
    return SeriesBatch(
        batch.labels, before[batch.offsets], batch.timestamps[chosen], batch.values[chosen], histograms, starts
    )
