"""A database whose head is cut into blocks again and again answers as one that keeps everything in its head.

Floats, native histograms, stale markers, start timestamps; in order and late.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.clock import ManualClock
from mimir_ray.model.boxed import box
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.labels import Labels
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import STALE_NAN
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits
from mimir_ray.tsdb.wal.writer import WalSettings

from .test_database_histograms import of_count

RANGE_MS = 1000
SERIES: list[Labels] = [(("__name__", name), ("x", "1")) for name in "abc"]
SETTINGS = DatabaseSettings(
    HeadSettings(
        chunk_range_ms=RANGE_MS,
        samples_per_chunk=4,
        log_capacity_min=8,
        log_capacity_max=16,
        log_samples_per_series=1,
        late_log_capacity_max=4,
        dropped_series_min=1,
    ),
    WalSettings(fsync="off"),
)
ANY_AGE = PushLimits(out_of_order_window_ms=1 << 40)
ALL = Selection(
    (Matcher(MatchType.REGEX, "__name__", ".+"),), -(1 << 40), 1 << 40, batch_series=2, start_timestamps=True
)
Point = tuple[int, int, float | None, int]
"""(series, ms, a float or None for a histogram, start timestamp)"""


def push(database: Database, points: Sequence[Point]) -> None:
    for number, labels in enumerate(SERIES):
        mine = [one for one in points if one[0] == number]
        if not mine:
            continue
        histograms = [of_count(float(2 * (time % 7))) for _, time, value, _ in mine if value is None]
        boxes = iter(box(np.arange(len(histograms), dtype=np.int64)))
        batch = write_batch(new=[(labels, [(time, 0.0) for _, time, _, _ in mine])])
        batch.new_values = np.array([next(boxes) if value is None else value for _, _, value, _ in mine], np.float64)
        batch.histograms = HistogramColumns.from_rows(histograms) if histograms else None
        batch.new_start_timestamps = np.array([start for *_, start in mine], np.int64)
        (result,) = database.push([batch], 0, ANY_AGE)
        assert result.error is None
        assert not result.refusals


def content(database: Database, selection: Selection = ALL) -> dict[tuple[Labels, int], Any]:
    found: dict[tuple[Labels, int], Any] = {}
    for batch in database.select(selection):
        starts = batch.start_timestamps
        for row, labels in enumerate(batch.labels.to_labels()):
            for at in range(int(batch.offsets[row]), int(batch.offsets[row + 1])):
                value: Any = int(batch.values[at : at + 1].view(np.uint64)[0])
                if batch.histograms is not None and batch.histograms.which[at] >= 0:
                    one = batch.histograms.at(at)
                    value = (
                        one.schema,
                        one.count,
                        one.sum,
                        one.zero_count,
                        one.positive.tolist(),
                        one.positive_counts.tolist(),
                    )
                key = labels, int(batch.timestamps[at])
                assert key not in found, "every sample once"
                found[key] = value, 0 if starts is None else int(starts[at])
    return found


points = st.lists(
    st.tuples(
        st.integers(0, len(SERIES) - 1),
        st.integers(-900, 600),
        st.sampled_from([None, None, 1.0, 2.5, float("nan"), STALE_NAN]),
        st.sampled_from([0, 0, 500, 1500]),
    ),
    max_size=10,
)
steps = st.one_of(points, points, st.sampled_from(["compact", "whole", "restart", "checkpoint"]))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=4, max_size=16))
def test_blocks_change_no_answer(history: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cut = Database(Path(folder) / "cut", SETTINGS, ManualClock())
        whole = Database(Path(folder) / "whole", SETTINGS, ManualClock())
        at = 10_000
        known: set[tuple[int, int]] = set()
        for step in history:
            match step:
                case list():
                    at += 700
                    fresh: list[Point] = []
                    for series, offset, value, start in step:
                        if (series, at + offset) not in known:
                            known.add((series, at + offset))
                            fresh.append((series, at + offset, value, start))
                    for database in (cut, whole):
                        push(database, fresh)
                case "compact":
                    cut.compact()
                case "whole":
                    cut.compact_whole()
                case "checkpoint":
                    cut.checkpoint()
                case "restart":
                    cut.close()
                    cut = Database(Path(folder) / "cut", SETTINGS, ManualClock())
            assert content(cut) == content(whole)
        some = Selection(ALL.matchers, at - 2000, at - 500, start_timestamps=True)
        assert content(cut, some) == content(whole, some)
        cut.close()
        whole.close()
