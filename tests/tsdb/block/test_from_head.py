from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.model.boxed import box
from mimir_ray.model.float_histogram import GAUGE, UNKNOWN, FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.labels import Labels
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import STALE_NAN, STALE_NAN_BITS
from mimir_ray.testing.blocks import ULID, content
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.block import from_head
from mimir_ray.tsdb.block.from_head import block_from_head
from mimir_ray.tsdb.block.reader import Block
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.compact.merge import merge_blocks
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits

OTHER = "01BX5ZZKBKACTAV9WEVGEMMVS0"
LIMITS = PushLimits(out_of_order_window_ms=1 << 40)


def labels_of_number(number: int) -> Labels:
    return (("__name__", f"m{number % 2}"), ("n", str(number)))


pushes = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 400), st.floats(allow_nan=False)), min_size=1, max_size=120
)


@given(pushes, st.integers(0, 400), st.integers(1, 400), st.integers(1, 7))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_block_answers_as_the_head_it_was_cut_from(
    tmp_path: Path, samples: list[tuple[int, int, float]], mint: int, length: int, samples_per_chunk: int
) -> None:
    shutil.rmtree(tmp_path)
    head = Head(ChunkFiles(tmp_path / "head"), HeadSettings(samples_per_chunk=samples_per_chunk, chunk_range_ms=100))
    for number, (key, part) in enumerate(itertools.groupby(samples, key=lambda one: one[0])):
        points = [(time, value) for _, time, value in part]
        head.push([write_batch(new=[(labels_of_number(key), points)])], 0, LIMITS)
        if number % 3 == 0:
            head.flush()
    expected = content(head, Selection((), mint, mint + length - 1))
    meta = block_from_head(head, mint, mint + length, tmp_path / "blocks", ULID)
    if meta is None:
        assert not expected
        assert not list((tmp_path / "blocks").iterdir())
        return
    block = Block(tmp_path / "blocks" / ULID)
    assert content(block) == expected
    assert meta.stats.samples == sum(map(len, expected.values()))
    assert meta.stats.series == len(expected)
    series = block.series()
    rows = np.arange(len(series.references), dtype=np.int32)
    table, _ = block.chunk_table(rows, 0, 1 << 40)
    for start, end in itertools.pairwise(table.offsets.tolist()):
        assert (table.maxts[start : end - 1] < table.mints[start + 1 : end]).all(), "chunks are disjoint"


def test_chunks_inside_the_range_keep_their_bytes(tmp_path: Path) -> None:
    head = Head(ChunkFiles(tmp_path / "head"), HeadSettings(chunk_range_ms=1000))
    points = [(time, float(time * time)) for time in range(0, 3000, 5)]
    head.push([write_batch(new=[(labels_of_number(1), points)])], 0)
    head.flush()
    stored = (tmp_path / "head").joinpath("000001").read_bytes()
    meta = block_from_head(head, 1000, 2000, tmp_path, ULID)
    assert meta is not None
    assert meta.stats.chunks == 2
    table, data = Block(tmp_path / ULID).chunk_table(np.zeros(1, np.int32), 0, 3000)
    assert table.counts.tolist() == [120, 80]
    for start, length in zip(table.starts.tolist(), table.lengths.tolist(), strict=True):
        assert data[0][start : start + length].tobytes() in stored


@pytest.mark.parametrize("mint", [501, 1001])
def test_an_empty_range_makes_no_block(tmp_path: Path, mint: int) -> None:
    head = Head(ChunkFiles(tmp_path / "head"))
    head.push([write_batch(new=[(labels_of_number(1), [(500, 1.0)])])], 0)
    assert block_from_head(head, mint, mint + 10, tmp_path / "blocks", ULID) is None
    assert not list((tmp_path / "blocks").iterdir())


HISTOGRAM_PUSHES = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 400), st.integers(-20, 60), st.booleans(), st.sampled_from([0, 0, 0, 5, 9])
    ),
    min_size=1,
    max_size=100,
)


def sample_of(kind: int, time: int, amount: int) -> float | FloatHistogram:
    """A float, a marker, or a histogram (integer or not) that often grows with time."""
    if kind == 0 or amount < -15:
        return float(amount)
    if amount < -12:
        return FloatHistogram(sum=STALE_NAN)
    counts = np.array([time, amount + 30, 7 * time // 3], np.float64) + (0.5 if kind == 2 else 0)
    return FloatHistogram(
        3, 0.25, 1.0, float(counts.sum()) + 1, float(amount), GAUGE if kind == 3 else UNKNOWN,
        np.array([-1, 0, 5 + amount % 2], np.int32), counts,
    )  # fmt: skip


def with_histograms(source: Any, selection: Selection) -> dict[Labels, list[tuple[int, Any]]]:
    """As `content`, with histograms where there are some: numbers that say all about one."""
    found: dict[Labels, list[tuple[int, Any]]] = {}
    for batch in source.select(selection):
        for row, labels in enumerate(batch.labels.to_labels()):
            points = found[labels] = []
            for at in range(int(batch.offsets[row]), int(batch.offsets[row + 1])):
                value: Any = int(batch.values[at : at + 1].view(np.uint64)[0])
                if batch.histograms is not None and batch.histograms.which[at] >= 0:
                    one = batch.histograms.at(at).compact()
                    value = (
                        value, one.schema, one.zero_threshold, one.zero_count, one.count, one.hint == GAUGE,
                        one.positive.tolist(), one.positive_counts.tolist(), one.negative.tolist(),
                    )  # fmt: skip
                    if value[0] == STALE_NAN_BITS:
                        value = ("stale histogram",)
                start = 0 if batch.start_timestamps is None else int(batch.start_timestamps[at])
                points.append((int(batch.timestamps[at]), (value, start)))
    return found


@given(HISTOGRAM_PUSHES, st.integers(0, 400), st.integers(1, 400), st.integers(1, 7), st.booleans())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_histograms_and_start_timestamps_become_chunks_that_have_them(
    tmp_path: Path,
    samples: list[tuple[int, int, int, bool, int]],
    mint: int,
    length: int,
    samples_per_chunk: int,
    with_starts: bool,
) -> None:
    shutil.rmtree(tmp_path)
    head = Head(ChunkFiles(tmp_path / "head"), HeadSettings(samples_per_chunk=samples_per_chunk, chunk_range_ms=100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_head, "SAMPLES_PER_BATCH", 3)
        for key, time, amount, flush, start in samples:
            value = sample_of(key, time, amount)
            if isinstance(value, float):
                batch = write_batch(new=[(labels_of_number(key), [(time, value)])])
            else:
                batch = write_batch(new=[(labels_of_number(key), [(time, float(box(np.zeros(1, np.int64))[0]))])])
                batch.histograms = HistogramColumns.from_rows([value])
            if with_starts and key != 1:
                batch.new_start_timestamps = np.full(1, start, np.int64)
            head.push([batch], 0, LIMITS)
            if flush:
                head.flush()
        expected = with_histograms(head, Selection((), mint, mint + length - 1, start_timestamps=True))
        meta = block_from_head(head, mint, mint + length, tmp_path / "blocks", ULID)
    if meta is None:
        assert not expected
        return
    everything = Selection((), 0, 1 << 40, start_timestamps=True)
    block = Block(tmp_path / "blocks" / ULID)
    assert with_histograms(block, everything) == expected
    kinds = [isinstance(value, tuple) for points in expected.values() for _, (value, _) in points]
    assert meta.stats.histogram_samples == sum(kinds)
    assert meta.stats.float_samples == len(kinds) - sum(kinds)
    # Cut at other places and packed anew, so that chunks overlap that are not the same.
    inner = merge_blocks([block], mint + 3, mint + length - 2, tmp_path / "inner", ULID, samples_per_chunk=3)
    blocks = [block, block] if inner is None else [Block(tmp_path / "inner" / ULID), block]
    merged = merge_blocks(blocks, mint, mint + length, tmp_path / "blocks", OTHER, samples_per_chunk=3)
    assert merged is not None and merged.stats.samples == meta.stats.samples
    assert with_histograms(Block(tmp_path / "blocks" / OTHER), everything) == expected
    without = block_from_head(head, mint, mint + length, tmp_path / "without", ULID, start_timestamps=False)
    assert without is not None
    table, _ = Block(tmp_path / "without" / ULID).chunk_table(np.arange(len(expected), dtype=np.int32), 0, 1 << 40)
    assert set(table.encodings.tolist()) <= {1, 2, 3}
