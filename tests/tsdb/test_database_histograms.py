"""Histogram samples in a database: in order, late, twice, mixed with floats, over restarts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mimir_ray.clock import ManualClock
from mimir_ray.model.boxed import box
from mimir_ray.model.float_histogram import GAUGE, NOT_RESET, UNKNOWN, FloatHistogram
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.labels import Labels
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.selection import Selection
from mimir_ray.model.write import WriteResult
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.head import histogram_store
from mimir_ray.tsdb.head.settings import NO_LIMITS, HeadSettings, PushLimits
from mimir_ray.tsdb.wal.writer import WalSettings

START = 3_600_000
H: Labels = (("__name__", "h"),)
ALL = Selection((Matcher(MatchType.REGEX, "__name__", ".+"),), 0, 1 << 60)
SETTINGS = DatabaseSettings(
    HeadSettings(samples_per_chunk=4, log_capacity_min=16, log_capacity_max=64, log_samples_per_series=1),
    WalSettings(fsync="off"),
)
Value = float | FloatHistogram


def of_count(count: float, hint: int = UNKNOWN) -> FloatHistogram:
    half = count / 2
    return FloatHistogram(
        0, 0.001, 0.0, count, count * 2, hint, np.array([0, 1], np.int32), np.array([half, half], np.float64)
    )


def push(
    database: Database, points: Sequence[tuple[int, Value]], limits: PushLimits = NO_LIMITS, labels: Labels = H
) -> WriteResult:
    rows = [value for _, value in points if isinstance(value, FloatHistogram)]
    boxes = iter(box(np.arange(len(rows), dtype=np.int64)))
    batch = write_batch(new=[(labels, [(START + at, 0.0) for at, _ in points])])
    values = [next(boxes) if isinstance(value, FloatHistogram) else np.float64(value) for _, value in points]
    batch.new_values = np.array(values, np.float64)
    batch.histograms = HistogramColumns.from_rows(rows) if rows else None
    (result,) = database.push([batch], START, limits)
    assert result.error is None
    return result


def content(database: Database, labels: Labels = H) -> list[tuple[int, float | tuple[float, int]]]:
    """(time, float or (count, hint)) of a series."""
    found: list[tuple[int, float | tuple[float, int]]] = []
    for batch in database.select(ALL):
        for row, each in enumerate(batch.labels.to_labels()):
            if each != labels:
                continue
            for at in range(int(batch.offsets[row]), int(batch.offsets[row + 1])):
                time = int(batch.timestamps[at]) - START
                part = batch.histograms
                if part is not None and part.which[at] >= 0:
                    one = part.at(at)
                    assert batch.values[at] == one.sum == one.count * 2
                    found.append((time, (one.count, one.hint)))
                else:
                    found.append((time, float(batch.values[at])))
    return found


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path, SETTINGS, ManualClock())


def test_floats_and_histograms_of_one_series_come_back_in_order(database: Database) -> None:
    push(database, [(0, 1.0), (10, of_count(4)), (20, of_count(6)), (30, 2.0), (40, of_count(8))])
    assert content(database) == [
        (0, 1.0), (10, (4, UNKNOWN)), (20, (6, NOT_RESET)), (30, 2.0), (40, (8, UNKNOWN)),
    ]  # fmt: skip


def test_hints_say_what_a_chunk_would_know(database: Database) -> None:
    for at, one in enumerate((of_count(4), of_count(6), of_count(2), of_count(4), of_count(8, GAUGE))):
        push(database, [(at, one)])
    assert [value for _, value in content(database)] == [
        (4, UNKNOWN), (6, NOT_RESET), (2, UNKNOWN), (4, NOT_RESET), (8, GAUGE),
    ]  # fmt: skip


def test_sending_a_histogram_again_changes_nothing(database: Database) -> None:
    points = [(0, of_count(2)), (10, of_count(4))]
    push(database, points)
    result = push(database, points[1:])
    assert not result.refusals
    assert [value for _, value in content(database)] == [(2, UNKNOWN), (4, NOT_RESET)]


def test_another_histogram_of_the_same_time_is_a_duplicate(database: Database) -> None:
    push(database, [(0, of_count(2))])
    (refusal,) = push(database, [(0, of_count(4))]).refusals
    assert refusal.reason == "sample-duplicate-timestamp"


def test_late_histograms_find_their_place(database: Database) -> None:
    push(database, [(0, of_count(2)), (20, of_count(6))])
    push(database, [(10, of_count(4))], PushLimits(out_of_order_window_ms=1000))
    assert [time for time, _ in content(database)] == [0, 10, 20]
    assert content(database)[1] == (10, (4, UNKNOWN))


def test_a_float_that_looks_like_a_number_is_nan(database: Database) -> None:
    push(database, [(0, of_count(2))])
    push(database, [(10, float(box(np.array([0]))[0]))])
    assert np.isnan(content(database)[1][1])


def test_a_number_beyond_the_batch_is_nan(database: Database) -> None:
    batch = write_batch(new=[(H, [(START, 0.0)])])
    batch.new_values = box(np.array([7]))
    batch.histograms = HistogramColumns.from_rows([of_count(2)])
    database.push([batch], START)
    assert np.isnan(content(database)[0][1])


@pytest.mark.parametrize("checkpoint", [False, True])
def test_histograms_survive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: bool) -> None:
    monkeypatch.setattr(histogram_store, "BLOCK_HISTOGRAMS", 7)
    database = Database(tmp_path, SETTINGS, ManualClock())
    for turn in range(30):
        push(database, [(turn * 10, of_count(turn))])
        if checkpoint and turn in (9, 20):
            database.checkpoint()
    before = content(database)
    assert len(before) == 30
    database.close()
    again = Database(tmp_path, SETTINGS, ManualClock())
    assert content(again) == before
    push(again, [(300, of_count(31))])
    time, (count, _) = content(again)[-1]  # type: ignore[misc]
    assert (time, count) == (300, 31)
    again.close()
