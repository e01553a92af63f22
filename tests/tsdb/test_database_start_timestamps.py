"""Start timestamps in a database: any history of samples, restarts and drops equals a dict."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.clock import ManualClock
from mimir_ray.model.labels import Labels
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.selection import Selection
from mimir_ray.model.write import WriteBatch
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.head import start_timestamps as module
from mimir_ray.tsdb.head.new_series import MalformedBatch
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits
from mimir_ray.tsdb.wal.writer import WalSettings

NAMES: list[Labels] = [(("__name__", name),) for name in "abc"]
SETTINGS = DatabaseSettings(
    HeadSettings(samples_per_chunk=4, log_capacity_min=8, log_capacity_max=32, log_samples_per_series=1),
    WalSettings(fsync="off"),
)
ANY_AGE = PushLimits(out_of_order_window_ms=1 << 40)
EVERYTHING = Selection((Matcher(MatchType.REGEX, "__name__", ".+"),), 0, 1 << 60, start_timestamps=True)
Sample = tuple[int, int, int]
"""(number in NAMES, time, start timestamp)"""


def batch_of(samples: Sequence[Sample], plain: bool = False) -> WriteBatch:
    by_series = [(NAMES[one], [(time, 1.0) for n, time, _ in samples if n == one]) for one in range(len(NAMES))]
    batch = write_batch(new=by_series)
    if not plain:
        ordered = [start for one in range(len(NAMES)) for n, _, start in samples if n == one]
        batch.new_start_timestamps = np.array(ordered, np.int64)
    return batch


def push(database: Database, batch: WriteBatch) -> None:
    (result,) = database.push([batch], 0, ANY_AGE)
    assert result.error is None


def content(database: Database) -> dict[tuple[int, int], int]:
    """(series, time) to start timestamp."""
    found = {}
    for batch in database.select(EVERYTHING):
        starts = np.zeros(batch.samples, np.int64) if batch.start_timestamps is None else batch.start_timestamps
        for row, labels in enumerate(batch.labels.to_labels()):
            cut = slice(batch.offsets[row], batch.offsets[row + 1])
            for time, start in zip(batch.timestamps[cut].tolist(), starts[cut].tolist(), strict=True):
                found[NAMES.index(labels), time] = start
    return found


_samples = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 30), st.sampled_from([0, 0, 5, 5, 9, 12])), min_size=1, max_size=8
)
_steps = st.lists(
    st.tuples(st.just("push"), _samples)
    | st.tuples(st.sampled_from(["push plain", "known"]), _samples)
    | st.tuples(st.sampled_from(["restart", "checkpoint", "compact", "look"]), st.just([])),
    max_size=12,
)


@given(_steps)
@settings(deadline=None)
def test_any_history_keeps_the_start_timestamp_of_each_sample(steps: list[tuple[str, list[Sample]]]) -> None:
    model: dict[tuple[int, int], int] = {}
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder), SETTINGS, clock)
        for what, samples in steps:
            if what in ("push", "push plain", "known"):
                batch = batch_of(samples, plain=what == "push plain")
                if what == "known":
                    (named,) = database.push([batch_of([])], 0)
                    batch.references = named.new_references[batch.new_series]
                    batch.timestamps, batch.values = batch.new_timestamps, batch.new_values
                    batch.start_timestamps, batch.new_start_timestamps = batch.new_start_timestamps, None
                    batch.new_series, batch.new_timestamps = batch.new_series[:0], batch.new_timestamps[:0]
                    batch.new_values, batch.incarnation = batch.new_values[:0], named.incarnation
                push(database, batch)
                for number, time, start in sorted(samples, key=lambda one: one[0]):
                    if time != max((at for one, at in model if one == number), default=0):  # that one is a repetition
                        model[number, time] = 0 if what == "push plain" else start
            elif what == "restart":
                database.close()
                database = Database(Path(folder), SETTINGS, clock)
            elif what == "checkpoint":
                database.checkpoint()
            elif what == "compact":
                database.head._starts._compact_at = 0
                database.head._starts.drop_before(0)
            assert content(database) == model
        database.close()


def test_a_look_is_of_one_moment(tmp_path: Path) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    push(database, batch_of([(0, 10, 5), (0, 20, 5)]))
    (before,) = list(database.select(EVERYTHING))
    later = database.select(EVERYTHING)
    push(database, batch_of([(0, 15, 7), (0, 30, 25)]))
    (batch,) = list(later)
    assert batch.start_timestamps is not None and before.start_timestamps is not None
    assert batch.start_timestamps.tolist() == before.start_timestamps.tolist() == [5, 5]


def test_nobody_gets_start_timestamps_unasked_and_a_head_without_any_has_none(tmp_path: Path) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    push(database, batch_of([(0, 10, 0)], plain=True))
    assert [batch.start_timestamps for batch in database.select(EVERYTHING)] == [None]
    assert database.head._starts.bytes == 0
    push(database, batch_of([(0, 20, 5)]))
    plain = Selection(EVERYTHING.matchers, 0, 100)
    assert [batch.start_timestamps for batch in database.select(plain)] == [None]


def test_a_counter_that_goes_on_costs_nothing_and_one_change_a_reset(tmp_path: Path) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    push(database, batch_of([(0, time, 5 if time < 50 else 49) for time in range(10, 100)]))
    assert len(database.head._starts) == 2


def test_dropped_series_take_their_start_timestamps_along(tmp_path: Path) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    push(database, batch_of([(0, 10, 5), (1, 1000, 7)]))
    database.head.truncate(500)
    assert database.head.collect() == 2  # c, which has no samples, too
    push(database, batch_of([(0, 2000, 0)], plain=True))
    assert content(database) == {(0, 2000): 0, (1, 1000): 7}
    database.checkpoint()
    database.close()
    database = Database(tmp_path, SETTINGS, ManualClock())
    assert content(database) == {(0, 2000): 0, (1, 1000): 7}
    assert len(database.head._starts) == 1


def test_retention_keeps_what_newer_samples_count_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMPACT_MIN", 4)
    database = Database(tmp_path, SETTINGS, ManualClock())
    push(database, batch_of([(0, time, time - 1) for time in range(10, 50)] + [(1, 10, 3), (1, 60, 3)]))
    starts = database.head._starts
    starts._compact_at = 4
    starts.drop_before(40)
    assert len(starts) == 11
    kept = {key: start for key, start in content(database).items() if key[1] >= 40}
    assert kept == {(0, time): time - 1 for time in range(40, 50)} | {(1, 60): 3}


def test_start_timestamps_of_other_samples_are_refused(tmp_path: Path) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    batch = batch_of([(0, 10, 5)])
    batch.new_start_timestamps = np.zeros(2, np.int64)
    (result,) = database.push([batch], 0)
    assert isinstance(result.error, MalformedBatch)
