"""Whether a block may be compacted: the order of its chunks, as its index has them.

A quick look before and after a merge, which reads chunks itself and sorts series; all that can be wrong with a block is
found by tsdb/block/verify.py.
Upstream: pkg/storage/tsdb/block/index.go GatherBlockHealthStats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.index_format import INDEX_FILE
from mimir_ray.tsdb.block.index_reader import IndexFile
from mimir_ray.tsdb.block.meta import read_meta

_ALWAYS = 1 << 62
_SERIES_PER_BATCH = 1 << 16


class OutOfOrderChunks(DamagedBlock):
    """Chunks of one series that overlap, or do not follow each other in time."""


def check_index(folder: Path) -> None:
    """Reads the index of the block in a folder through. Raises `DamagedBlock`, `OutOfOrderChunks`, `StorageFailed`."""
    meta = read_meta(folder)
    path = folder / INDEX_FILE
    index = IndexFile(path)
    series = index.series()
    for first in range(0, len(series.references), _SERIES_PER_BATCH):
        rows = np.arange(first, min(first + _SERIES_PER_BATCH, len(series.references)), dtype=np.int32)
        cuts, mints, maxts, _, overlapping = index.chunk_lists(series, rows, -_ALWAYS, _ALWAYS)
        if overlapping.any():
            at = int(series.references[rows[np.flatnonzero(overlapping)[0]]])
            raise OutOfOrderChunks(
                str(path), at * 16, f"{int(overlapping.sum())} series have chunks that are out of order or overlap"
            )
        outside = (mints < meta.min_time) | (maxts >= meta.max_time) | (maxts < mints)
        if outside.any():
            row = int(np.searchsorted(cuts, np.flatnonzero(outside)[0], side="right")) - 1
            raise DamagedBlock(
                str(path), int(series.references[rows[row]]) * 16,
                f"{int(outside.sum())} chunks are outside of the block's time range [{meta.min_time}, {meta.max_time})",
            )  # fmt: skip
