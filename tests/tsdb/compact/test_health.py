"""The quick look at a block before it is compacted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mimir_ray.model.labels import LabelColumns, labels_of
from mimir_ray.testing.blocks import ULID, make_block
from mimir_ray.tsdb.block.chunk_merge import encode_runs
from mimir_ray.tsdb.block.decode import Samples
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.block.meta import read_meta, write_meta
from mimir_ray.tsdb.block.writer import write_block
from mimir_ray.tsdb.compact.health import OutOfOrderChunks, check_index

SERIES = [
    (labels_of({"__name__": "up", "i": str(number)}), [(1000 + at, 1.0) for at in range(30)]) for number in range(5)
]


def test_a_block_that_is_well_passes(tmp_path: Path) -> None:
    make_block(tmp_path, SERIES, samples_per_chunk=10)
    check_index(tmp_path / ULID)


@pytest.mark.parametrize(("min_time", "max_time"), [(1001, 1030), (1000, 1029)])
def test_chunks_outside_of_the_range_are_found(tmp_path: Path, min_time: int, max_time: int) -> None:
    make_block(tmp_path, SERIES, samples_per_chunk=10)
    meta = read_meta(tmp_path / ULID)
    meta.min_time, meta.max_time = min_time, max_time
    write_meta(tmp_path / ULID, meta)
    with pytest.raises(DamagedBlock, match="5 chunks are outside of the block's time range"):
        check_index(tmp_path / ULID)


def test_chunks_out_of_order_are_found(tmp_path: Path) -> None:
    """As some old versions wrote them: the second chunk of a series begins inside the first."""
    times = np.concatenate((np.arange(10), np.arange(5, 15))).astype(np.int64)
    table, data = encode_runs(Samples(np.array([0, 10, 20]), times, np.zeros(20)))
    table = table.take(np.arange(2), np.array([0, 2]))
    write_block(tmp_path, ULID, LabelColumns.from_labels([SERIES[0][0]]), table, [data], 0, 20)
    with pytest.raises(OutOfOrderChunks, match="1 series have chunks that are out of order or overlap"):
        check_index(tmp_path / ULID)


def test_a_damaged_index_is_found(tmp_path: Path) -> None:
    make_block(tmp_path, SERIES)
    path = tmp_path / ULID / "index"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DamagedBlock):
        check_index(tmp_path / ULID)
