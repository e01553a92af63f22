"""How many samples a query looks at, step by step.

A float counts as one sample, a histogram as many as fit into its size in upstream's memory. `total`: a window counts at
every step that it serves. `read`: only what the step before has not seen. What a subquery looks at counts as read by
the step that uses it; its total is that of the windows over its answers.
Upstream: util/stats/query_stats.go QuerySamples, promql/value.go HPoint.size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.histogram import HistogramColumns, HistogramPart
from mimir_ray.model.series import SeriesBatch
from mimir_ray.promql.kernels.steps import window_sizes
from mimir_ray.promql.plan import nodes

_HISTOGRAM_BYTES = 168 + 8
"""Upstream: FloatHistogram.Size of one without buckets, and the time."""
_ITEM_BYTES = 8
"""Of a span, a bucket, or an upper bound."""
_SAMPLE_BYTES = 16


class SampleTally:
    """`total`, `read`: int64[T], of T steps."""

    __slots__ = ("read", "total")

    def __init__(self, steps: int) -> None:
        self.total = np.zeros(steps, np.int64)
        self.read = np.zeros(steps, np.int64)

    def add(self, total: NDArray[np.int64], read: NDArray[np.int64] | None = None) -> None:
        """Counts samples by step; `read` is the same as `total` if not given."""
        self.total += total
        self.read += total if read is None else read

    def add_windows(
        self, batch: SeriesBatch, ends: NDArray[np.int64], range_ms: int, steps: nodes.Steps, from_storage: bool
    ) -> None:
        """Counts the windows (end - range_ms, end] of all series; ends as of `Window`."""
        bits, weights = batch.values.view(np.uint64), sample_weights(batch)
        total, read = np.zeros((2, len(ends)), np.int64)
        window_sizes(batch.offsets, batch.timestamps, bits, weights, ends, range_ms, total)
        if from_storage:
            moves = len(ends) > 1 and ends[1] > ends[0]
            if moves:
                fresh_ms = min(range_ms, steps.step_ms)
                window_sizes(batch.offsets, batch.timestamps, bits, weights, ends, fresh_ms, read)
            read[0] = total[0]
        self.add(total, read)

    def add_once(self, child: SampleTally) -> None:
        """Takes over what one step counted that stands for all."""
        self.total += child.total.sum()
        self.read[0] += child.read.sum()

    def add_subquery(self, child: SampleTally, inner: nodes.Steps, steps: nodes.Steps, node: nodes.Subquery) -> None:
        """Takes over what the steps of a subquery have read; not those that no window sees."""
        if steps.count <= 1:
            self.read[0] += child.read.sum()
            return
        times = inner.times + node.offset_ms
        at = np.clip(-(-(times - steps.start_ms) // steps.step_ms), 0, steps.count - 1)
        seen = times > steps.times[at] - node.range_ms
        np.add.at(self.read, at[seen], child.read[seen])


def sample_weights(batch: SeriesBatch) -> NDArray[np.int64]:
    """int64[N], for how many samples each counts; empty where each is one."""
    if batch.histograms is None:
        return np.zeros(0, np.int64)
    return cell_weights(batch.histograms)


def cell_weights(part: HistogramPart) -> NDArray[np.int64]:
    """The same of cells of any shape, some of which are histograms."""
    sizes = histogram_weights(part.columns)
    return np.where(part.here, sizes[part.which] if len(sizes) else 1, 1)


def histogram_weights(columns: HistogramColumns) -> NDArray[np.int64]:
    """int64[H]: for how many samples each histogram counts."""
    items = np.zeros(len(columns), np.int64)
    for offsets, indexes in (
        (columns.positive_offsets, columns.positive),
        (columns.negative_offsets, columns.negative),
    ):
        begins = np.ones(len(indexes) + 1, np.int64)
        begins[1:-1] = indexes[1:] != indexes[:-1] + 1
        begins[offsets] = 1
        spans = np.zeros(len(indexes) + 1, np.int64)
        np.cumsum(begins[:-1], out=spans[1:])
        items += np.diff(offsets) + np.diff(spans[offsets])
    lengths = np.array([*(len(one) for one in columns.bounds), 0], np.int64)
    items += lengths[columns.custom]
    return (_HISTOGRAM_BYTES + _ITEM_BYTES * items) // _SAMPLE_BYTES
