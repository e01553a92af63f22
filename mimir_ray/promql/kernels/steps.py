"""Instant selectors: the newest sample that each step sees within the lookback."""

from __future__ import annotations

import numpy as np

from mimir_ray.kernel import F64, I64, U64, OutBool2, OutF64x2, OutI64, kernel
from mimir_ray.model.series import STALE_NAN_BITS

_STALE = np.uint64(STALE_NAN_BITS)


@kernel
def newest_samples(
    offsets: I64, timestamps: I64, values: F64, bits: U64, ends: I64, lookback_ms: int, times: bool,
    out: OutF64x2, present: OutBool2,
) -> int:  # fmt: skip
    """For every series and step the newest sample in (end - lookback_ms, end]; a staleness marker hides it.

    Args:
        offsets: int64[S + 1]; timestamps (ms, ascending per series), values, bits (`values` as uint64): [N].
        ends: int64[T], ms, not descending.
        times: give the sample's time in seconds instead of its value.
        out, present: [S, T], written; `out` is 0 where nothing is present.

    Returns how many points are present. O(N + S * T).
    """
    found = 0
    steps = len(ends)
    for s in range(len(offsets) - 1):
        low = offsets[s]
        high = offsets[s + 1]
        at = low
        if steps == 1:
            at = high
            while at > low and timestamps[at - 1] > ends[0]:
                at -= 1
        for t in range(steps):
            end = ends[t]
            while at < high and timestamps[at] <= end:
                at += 1
            seen = at > low and timestamps[at - 1] > end - lookback_ms and bits[at - 1] != _STALE
            present[s, t] = seen
            if seen:
                found += 1
                out[s, t] = timestamps[at - 1] / 1000.0 if times else values[at - 1]
            else:
                out[s, t] = 0.0
    return found


@kernel
def window_sizes(
    offsets: I64, timestamps: I64, bits: U64, weights: I64, ends: I64, range_ms: int, sizes: OutI64
) -> None:
    """Adds to `sizes` (int64[T]) how many samples, markers not counted, all series have in each step's window.

    `weights`: int64[N], for how many each counts; empty where each is one.
    """
    weighted = len(weights) > 0
    for s in range(len(offsets) - 1):
        low = offsets[s]
        at = low
        high = offsets[s + 1]
        count = 0
        for t in range(len(ends)):
            while at < high and timestamps[at] <= ends[t]:
                if bits[at] != _STALE:
                    count += weights[at] if weighted else 1
                at += 1
            while low < at and timestamps[low] <= ends[t] - range_ms:
                if bits[low] != _STALE:
                    count -= weights[low] if weighted else 1
                low += 1
            sizes[t] += count


@kernel
def select_window(
    offsets: I64, timestamps: I64, bits: U64, start: int, end: int,
    out_offsets: OutI64, keep: OutI64,
) -> int:  # fmt: skip
    """Finds the samples in (start, end] that are no staleness markers.

    Writes their indices into `keep` (room for N) and the new offsets; returns how many there are.
    """
    count = 0
    out_offsets[0] = 0
    for s in range(len(offsets) - 1):
        for i in range(offsets[s], offsets[s + 1]):
            if start < timestamps[i] <= end and bits[i] != _STALE:
                keep[count] = i
                count += 1
        out_offsets[s + 1] = count
    return count
