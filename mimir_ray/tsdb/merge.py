"""Merges what several holders of the same series returned: by time, one sample a timestamp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import F64, I64, OutF64, OutI64, kernel
from mimir_ray.model.histogram import HistogramPart
from mimir_ray.model.label_groups import equal_rows
from mimir_ray.model.labels import LabelColumns, StringTable
from mimir_ray.model.series import SeriesBatch, concat_starts


def merge_batches(holders: Sequence[Sequence[SeriesBatch]]) -> Iterator[SeriesBatch]:
    """One batch with all series of all holders, each once.

    Where two holders have a sample of one timestamp, the first holder's stays: replicas got the same
    writes, and a sample that differs was refused by whoever had the other. Upstream:
    pkg/querier/batch (mergeIterator), storage/merge.go ChainSampleIterator.
    """
    parts = [batch for batches in holders for batch in batches if len(batch)]
    if not parts:
        return
    table = StringTable()
    labels = LabelColumns.concat([part.labels.rebase(table) for part in parts])
    order, groups = equal_rows(labels.codes)
    starts, ends = _bounds(parts)
    timestamps = np.concatenate([part.timestamps for part in parts])
    values = np.concatenate([part.values for part in parts])
    histograms = HistogramPart.concat([(part.histograms, part.values.shape) for part in parts])
    began = concat_starts(parts)
    if len(groups) - 1 == len(labels):
        offsets = np.append(starts, ends[-1])
        yield SeriesBatch(labels, offsets, timestamps, values, histograms, began)
        return
    first = order[groups[:-1]]
    offsets = np.zeros(len(first) + 1, np.int64)
    merged_timestamps = np.empty_like(timestamps)
    merged_values = np.empty_like(values)
    # Where a sample is more than a float, the kernel is told which sample it is, not what is in it.
    plain = histograms is None and began is None
    merged = values if plain else np.arange(len(values), dtype=np.float64)
    count = merge_groups(
        starts[order], ends[order], groups, timestamps, merged, offsets, merged_timestamps, merged_values
    )
    merged_values = merged_values[:count]
    if not plain:
        samples = merged_values.astype(np.int64)
        merged_values = values[samples]
        histograms = None if histograms is None else histograms[samples]
        began = None if began is None else began[samples]
    yield SeriesBatch(labels.take(first), offsets, merged_timestamps[:count], merged_values, histograms, began)


def _bounds(parts: Sequence[SeriesBatch]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each series' samples begin and end in the concatenation of all parts' samples."""
    base = np.cumsum([0, *(part.samples for part in parts)])
    starts = np.concatenate([part.offsets[:-1] + at for part, at in zip(parts, base, strict=False)])
    ends = np.concatenate([part.offsets[1:] + at for part, at in zip(parts, base, strict=False)])
    return starts, ends


@kernel
def merge_groups(
    starts: I64,
    ends: I64,
    groups: I64,
    timestamps: I64,
    values: F64,
    offsets: OutI64,
    merged_timestamps: OutI64,
    merged_values: OutF64,
) -> int:
    """Merges the members of each group by time.

    Args:
        starts, ends: int64[R], the samples of each member, members of a group side by side.
        groups: int64[G + 1], group g is members groups[g]:groups[g + 1].
        offsets: int64[G + 1], written.

    Returns the number of samples written. The smallest head of all members is taken, members in order:
    few members, so no heap.
    """
    out = 0
    position = starts.copy()
    for group in range(len(groups) - 1):
        offsets[group] = out
        first, last = groups[group], groups[group + 1]
        while True:
            best = -1
            for member in range(first, last):
                at = position[member]
                if at < ends[member] and (best < 0 or timestamps[at] < timestamps[position[best]]):
                    best = member
            if best < 0:
                break
            time = timestamps[position[best]]
            merged_timestamps[out] = time
            merged_values[out] = values[position[best]]
            out += 1
            for member in range(first, last):
                if position[member] < ends[member] and timestamps[position[member]] == time:
                    position[member] += 1
    offsets[len(groups) - 1] = out
    return out
