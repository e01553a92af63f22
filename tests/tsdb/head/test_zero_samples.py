"""Zeros where series begin: the kernel beside a slow twin, and heads, logs and blocks that hold them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.clock import ManualClock
from mimir_ray.model.boxed import box
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.labels import Labels
from mimir_ray.model.selection import Selection
from mimir_ray.model.write import WriteBatch
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.head.sample_log import NO_TIME_MAX
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits
from mimir_ray.tsdb.head.zero_samples import find_zeros
from mimir_ray.tsdb.wal.writer import WalSettings

WITHIN = 20
NAMES: list[Labels] = [(("__name__", name),) for name in "abc"]
SETTINGS = DatabaseSettings(
    HeadSettings(samples_per_chunk=4, log_capacity_min=8, log_capacity_max=32, log_samples_per_series=1),
    WalSettings(fsync="off"),
)
EVERYTHING = Selection((), 0, 1 << 60, start_timestamps=True)
Sample = tuple[int, int, int]
"""(series, time, start)"""


def zeros_one_by_one(samples: list[Sample], last: list[int], min_valid: int) -> list[int]:
    """Slow twin: a sample at a time, in the order of the batch."""
    newest = dict(enumerate(last))
    found = []
    for at, (series, time, start) in enumerate(samples):
        if series not in newest:
            continue
        known = 0 < start < time and time - start <= WITHIN
        if known and start > newest[series] and start >= min_valid:
            found.append(at)
        newest[series] = max(newest[series], time)
    return found


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-2, 4), st.integers(0, 60), st.integers(-1, 60)), min_size=1, max_size=30),
    st.lists(st.just(NO_TIME_MAX) | st.integers(0, 60), min_size=3, max_size=3),
    st.just(NO_TIME_MAX + 1) | st.integers(0, 60),
)
def test_zeros_are_found_as_one_by_one(samples: list[Sample], last: list[int], min_valid: int) -> None:
    references = np.array([one[0] for one in samples], np.int32)
    times, starts = (np.array([one[at] for one in samples], np.int64) for at in (1, 2))
    found = find_zeros(references, times, starts, WITHIN, min_valid, np.array(last, np.int64))
    assert ([] if found is None else found.tolist()) == zeros_one_by_one(samples, last, min_valid)


def batch_of(samples: list[Sample]) -> WriteBatch:
    by_series = [(NAMES[one], [(time, 5.0) for n, time, _ in samples if n == one]) for one in range(len(NAMES))]
    batch = write_batch(new=by_series)
    ordered = [start for one in range(len(NAMES)) for n, _, start in samples if n == one]
    batch.new_start_timestamps = np.array(ordered, np.int64)
    batch.zeros_within_ms = WITHIN
    return batch


def content(database: Database) -> dict[tuple[int, int], tuple[float, int]]:
    """(series, time) to value and start."""
    found = {}
    for batch in database.select(EVERYTHING):
        starts = np.zeros(batch.samples, np.int64) if batch.start_timestamps is None else batch.start_timestamps
        for row, labels in enumerate(batch.labels.to_labels()):
            cut = slice(batch.offsets[row], batch.offsets[row + 1])
            for time, value, start in zip(
                batch.timestamps[cut].tolist(), batch.values[cut].tolist(), starts[cut].tolist(), strict=True
            ):
                found[NAMES.index(labels), time] = value, start
    return found


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 100), st.integers(0, 100)), min_size=1, max_size=6),
        max_size=5,
    ),
    st.booleans(),
)
def test_a_history_of_zeros_is_a_dict_of_samples_before_and_after_a_restart(
    pushes: list[list[Sample]], late: bool
) -> None:
    model: dict[tuple[int, int], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder), SETTINGS, ManualClock())
        for samples in pushes:
            ordered = [one for series in range(len(NAMES)) for one in samples if one[0] == series]
            for series, time, start in ordered:
                last = max((at for one, at in model if one == series), default=NO_TIME_MAX)
                if 0 < start < time and time - start <= WITHIN and start > last:
                    model[series, start] = 0.0
                    last = start
                if time > last or late:
                    model.setdefault((series, time), 5.0)
            limits = PushLimits(out_of_order_window_ms=1 << 40 if late else 0)
            (result,) = database.push([batch_of(samples)], 0, limits)
            assert result.error is None
            reasons = {one.reason for one in result.refusals}
            assert reasons <= {"sample-out-of-order", "sample-duplicate-timestamp"}
        assert {at: value for at, (value, _) in content(database).items()} == model
        before = content(database)
        database.close()
        database = Database(Path(folder), SETTINGS, ManualClock())
        assert content(database) == before
        database.close()


def test_a_refusal_names_the_sample_that_was_sent_and_not_its_zero(tmp_path: Path) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    database.push([batch_of([(1, 50, 0)])], 0)
    (result,) = database.push([batch_of([(0, 60, 55), (1, 40, 0), (2, 60, 50)])], 0)
    (refusal,) = result.refusals
    assert (refusal.reason, refusal.sample, refusal.timestamp) == ("sample-out-of-order", 1, 40)
    assert result.refused.tolist() == [1]
    assert content(database) == {
        (0, 55): (0.0, 55), (0, 60): (5.0, 55), (1, 50): (5.0, 0), (2, 50): (0.0, 50), (2, 60): (5.0, 50),
    }  # fmt: skip
    database.close()


def test_known_series_get_a_zero_after_a_reset_and_none_while_they_go_on(tmp_path: Path) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    (result,) = database.push([batch_of([(0, 10, 5)])], 0)
    for time, start in ((20, 5), (30, 5), (50, 45)):
        batch = write_batch(database.head.incarnation, known=[(int(result.new_references[0]), time, 7.0)])
        batch.start_timestamps, batch.zeros_within_ms = np.array([start], np.int64), WITHIN
        (pushed,) = database.push([batch], 0)
        assert not pushed.refusals and not len(pushed.unknown)
    assert {time: value for (_, time), (value, _) in content(database).items()} == {
        5: 0.0, 10: 5.0, 20: 7.0, 30: 7.0, 45: 0.0, 50: 7.0,
    }  # fmt: skip
    database.close()


@pytest.mark.parametrize("bounds", [None, (0.5, 1.0)])
def test_the_zero_of_a_histogram_is_an_empty_one_with_its_buckets(
    tmp_path: Path, bounds: tuple[float, ...] | None
) -> None:
    indexes, counts = np.array([0, 1], np.int32), np.array([1.0, 2.0])
    sent = FloatHistogram(
        2 if bounds is None else -53, 0.001 if bounds is None else 0.0, 0.0, 3.0, 4.5, 0, indexes, counts,
        custom_values=np.array(bounds or ()),
    )  # fmt: skip
    batch = write_batch(new=[(NAMES[0], [(20, 0.0), (30, 0.0)])])
    batch.new_values = box(np.array([0, 1]))
    batch.histograms = HistogramColumns.from_rows([sent, sent])
    batch.new_start_timestamps, batch.zeros_within_ms = np.array([15, 15], np.int64), WITHIN
    database = Database(tmp_path, SETTINGS, ManualClock())
    (result,) = database.push([batch], 0)
    assert result.error is None and not result.refusals
    for restart in (False, True):
        if restart:
            database.close()
            database = Database(tmp_path, SETTINGS, ManualClock())
        (found,) = database.select(EVERYTHING)
        assert found.timestamps.tolist() == [15, 20, 30] and found.histograms is not None
        empty, first, second = (found.histograms.columns.row(int(row)) for row in found.histograms.which)
        assert (empty.count, empty.sum, len(empty.positive)) == (0.0, 0.0, 0)
        assert (empty.schema, empty.zero_threshold) == (sent.schema, sent.zero_threshold)
        assert empty.custom_values.tolist() == sent.custom_values.tolist()
        assert first.equals(sent) and second.equals(sent)
    database.close()
