"""What a chunk of histograms can take: when a histogram continues the chunk of the one before it.

A chunk holds histograms of one schema, zero threshold and set of custom bounds, without a counter reset within.
So the first sample of a chunk has no counter reset hint (who knows what was before it), later ones have
`NOT_RESET`, and gauge histograms keep to chunks of their own.
Upstream: tsdb/chunkenc/float_histogram.go appendable, appendableGauge; histogram_meta.go counterResetHint.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.model.float_histogram import GAUGE, NOT_RESET, RESET, UNKNOWN, Counts, FloatHistogram, Indexes
from mimir_ray.model.series import STALE_NAN_BITS


def is_stale(histogram: FloatHistogram) -> bool:
    """Whether it is a staleness marker."""
    return int(np.float64(histogram.sum).view(np.uint64)) == STALE_NAN_BITS


def continues_chunk(previous: FloatHistogram, current: FloatHistogram) -> bool:
    """Whether `current` may stand in the chunk that ends with `previous` (with the hint it was sent with)."""
    if (previous.hint == GAUGE) != (current.hint == GAUGE):
        return False
    if current.hint == RESET:
        return False
    if is_stale(current):
        return True
    if is_stale(previous):
        return False
    if current.schema != previous.schema or current.zero_threshold != previous.zero_threshold:
        return False
    if current.has_custom_buckets and not np.array_equal(current.custom_values, previous.custom_values):
        return False
    if current.hint == GAUGE:
        return True
    if current.count < previous.count or current.zero_count < previous.zero_count:
        return False
    return _grew(previous.positive, previous.positive_counts, current.positive, current.positive_counts) and _grew(
        previous.negative, previous.negative_counts, current.negative, current.negative_counts
    )


def _grew(before: Indexes, counts_before: Counts, now: Indexes, counts: Counts) -> bool:
    if len(before) == len(now) and (before == now).all():
        return bool((counts_before <= counts).all())
    at = np.searchsorted(now, before)
    found = np.zeros(len(before), np.bool_) if not len(now) else now[np.minimum(at, len(now) - 1)] == before
    there = np.zeros(len(before))
    there[found] = counts[at[found]]
    return bool((counts_before <= there).all()) and not bool((~found & (counts_before != 0)).any())


def stored_hint(previous: FloatHistogram | None, current: FloatHistogram) -> int:
    """The hint with which a histogram comes back out of storage; `previous`: the last of its chunk so far, or None."""
    if current.hint == GAUGE:
        return GAUGE
    return UNKNOWN if previous is None or not continues_chunk(previous, current) else NOT_RESET
