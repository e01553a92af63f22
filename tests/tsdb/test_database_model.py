"""Any history of a database equals a dict of lists: the model below is what a beginner would write."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.clock import ManualClock
from mimir_ray.model.labels import Labels
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.series import STALE_NAN
from mimir_ray.promql.source import Selection
from mimir_ray.roles.api import WriteResult
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits
from mimir_ray.tsdb.wal.format import segment_numbers, segment_path
from mimir_ray.tsdb.wal.writer import WalSettings

RANGE_MS = 1000
POOL: list[Labels] = [
    (("__name__", "a"),),
    (("__name__", "a"), ("x", "1")),
    (("__name__", "a"), ("x", "2"), ("y", "ü")),
    (("__name__", "b"), ("x", "1")),
    (("__name__", "b"), ("x", "zero\0inside")),
    (("__name__", "c"), ("long", "v" * 300)),
]
SETTINGS = DatabaseSettings(
    head=HeadSettings(
        chunk_range_ms=RANGE_MS,
        samples_per_chunk=4,
        log_capacity_min=8,
        log_capacity_max=16,
        log_samples_per_series=1,
        late_log_capacity_max=4,
        dropped_series_min=2,
    ),
    wal=WalSettings(segment_bytes=2048, fsync="off"),
)
EVERYTHING = Selection((Matcher(MatchType.REGEX, "__name__", ".+"),), -(10**9), 10**9, batch_series=2)
Samples = list[tuple[int, int, float]]
"""(number in the pool, ms, value)"""


def bits(value: float) -> int:
    return int(np.array([value]).view(np.uint64)[0])


@dataclass
class Model:
    """Series by number: time to bits of the value that came first; last sample in order; newest of all."""

    window: int
    samples: dict[int, dict[int, int]] = field(default_factory=dict)
    last: dict[int, tuple[int, int]] = field(default_factory=dict)
    newest: int | None = None
    floor: int = -(10**9)
    """In-order samples before it are in blocks."""

    def push(self, part: Samples) -> Counter[str]:
        """Takes the known or the new samples of one batch; how often each reason refused one."""
        refused: Counter[str] = Counter()
        if not part:
            return refused
        newest = part[0][1] if self.newest is None else self.newest
        min_valid = max(newest - RANGE_MS // 2, self.floor)
        for number, time, value in part:
            last = self.last.get(number)
            if time >= min_valid and (last is None or time > last[0]):
                self.last[number] = time, bits(value)
            elif time >= min_valid and last is not None and time == last[0]:
                if last[1] != bits(value):
                    refused["sample-duplicate-timestamp"] += 1
                continue
            elif self.window:
                if time < newest - self.window:
                    refused["sample-timestamp-too-old"] += 1
                    continue
            else:
                refused["sample-timestamp-too-old" if time < min_valid else "sample-out-of-order"] += 1
                continue
            self.samples.setdefault(number, {}).setdefault(time, bits(value))
            self.newest = time if self.newest is None else max(self.newest, time)
        return refused


class Pair:
    """A database and its model, kept in step."""

    def __init__(self, directory: Path, window: int, like: Pair | None = None) -> None:
        """`like`: begin with what this one has on its disk at this moment, as another process would find it."""
        self.directory = directory
        self.model = Model(window)
        if like is not None:
            shutil.copytree(like.directory, directory)
            self.model = copy.deepcopy(like.model)
        self.references: dict[int, int] = {}
        self.database = self.open()

    def open(self) -> Database:
        self.references = {}
        return Database(self.directory, SETTINGS, ManualClock(0))

    def push(self, samples: Samples) -> None:
        known = [one for one in samples if one[0] in self.references]
        new = [one for one in samples if one[0] not in self.references]
        numbers = sorted({one[0] for one in new})
        batch = write_batch(
            self.database.head.incarnation,
            [(self.references[number], time, value) for number, time, value in known],
            [(POOL[number], [(t, v) for n, t, v in new if n == number]) for number in numbers],
        )
        result: WriteResult = self.database.push([batch], 0, PushLimits(out_of_order_window_ms=self.model.window))[0]
        assert result.error is None
        assert not result.stale
        assert not len(result.unknown)
        refused = self.model.push(known) + self.model.push(
            [one for number in numbers for one in new if one[0] == number]
        )
        assert refused == Counter({one.reason: one.count for one in result.refusals}) or refused == sum(
            (Counter({one.reason: one.count}) for one in result.refusals), Counter()
        )
        self.references.update(zip(numbers, result.new_references.tolist(), strict=True))

    def compact(self, until: int | None) -> None:
        """Series that are over lose their references."""
        self.database.compact(until)
        self.references = {}
        self.model.floor = max(self.model.floor, self.database.head.floor)
        assert until is None or self.model.floor >= until

    def content(self, selection: Selection = EVERYTHING) -> dict[Labels, dict[int, int]]:
        return content(self.database, selection)

    def check(self, mint: int = -(10**9), maxt: int = 10**9) -> None:
        expected = {
            POOL[number]: inside
            for number, samples in self.model.samples.items()
            if (inside := {time: value for time, value in samples.items() if mint <= time <= maxt})
        }
        assert self.content(Selection(EVERYTHING.matchers, mint, maxt, batch_series=2)) == expected


def content(database: Database, selection: Selection = EVERYTHING) -> dict[Labels, dict[int, int]]:
    found = {}
    for batch in database.select(selection):
        for row, labels in enumerate(batch.labels.to_labels()):
            part = slice(batch.offsets[row], batch.offsets[row + 1])
            times = batch.timestamps[part].tolist()
            assert times == sorted(set(times))
            found[labels] = dict(zip(times, batch.values[part].view(np.uint64).tolist(), strict=True))
    return found


values = st.sampled_from([0.0, -0.0, 1.0, 2.5, float("nan"), STALE_NAN])
pushes = st.lists(st.tuples(st.integers(0, len(POOL) - 1), st.integers(-800, 600), values), max_size=12)
steps = st.one_of(
    pushes,
    pushes,
    pushes,
    st.sampled_from(["flush", "checkpoint", "restart", "kill", "compact", "compact", "compact whole"]),
    st.integers(-500, 500),
    st.tuples(st.integers(-1000, 3000), st.integers(0, 2000)),
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=14), st.sampled_from([0, 700]))
def test_any_history_equals_a_dict_of_lists(history: list[object], window: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(Path(folder) / "0", window)
        at = 1000
        for turn, step in enumerate(history):
            match step:
                case list() as samples:
                    at += 400
                    pair.push([(number, at + offset, value) for number, offset, value in samples])
                case "flush":
                    pair.database.flush()
                case "checkpoint":
                    pair.database.checkpoint()
                case "compact":
                    pair.compact(None)
                case "compact whole":
                    pair.compact(None if pair.model.newest is None else pair.model.newest + 1)
                case int() as offset:
                    pair.compact(at + offset)
                case "restart":
                    pair.database.close()
                    pair.database = pair.open()
                case "kill":
                    # What is on the disk at this moment is what another process finds.
                    pair.directory = Path(folder) / f"{turn + 1}"
                    shutil.copytree(pair.database.directory, pair.directory)
                    pair.database.close()
                    pair.database = pair.open()
                case (mint, length):
                    pair.check(mint, mint + length)
            pair.check()
        pair.database.close()


@settings(deadline=None, max_examples=40)
@given(st.lists(pushes, min_size=1, max_size=5), pushes, st.booleans(), st.data())
def test_whatever_was_acknowledged_survives_a_cut_of_the_log_behind_it(
    before: list[Samples], last: Samples, checkpoint: bool, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(Path(folder) / "0", 700)
        for turn, samples in enumerate(before):
            pair.push([(number, 1000 + 100 * turn + offset, value) for number, offset, value in samples])
            if checkpoint and turn == 1:
                pair.database.checkpoint()
        acknowledged = pair.content()
        wal = pair.directory / "wal"
        size = segment_path(wal, segment_numbers(wal)[-1]).stat().st_size
        segments = len(segment_numbers(wal))
        pair.push([(number, 1600 + offset, value) for number, offset, value in last])
        everything = pair.content()
        pair.directory = Path(folder) / "1"
        shutil.copytree(pair.database.directory, pair.directory)
        pair.database.close()
        path = segment_path(pair.directory / "wal", segment_numbers(pair.directory / "wal")[-1])
        start = size if len(segment_numbers(wal)) == segments else 0
        cut = data.draw(st.integers(start, path.stat().st_size))
        with path.open("r+b") as file:
            file.truncate(cut)
        pair.database = pair.open()
        found = pair.content()
        for labels, samples in acknowledged.items():
            assert samples.items() <= found[labels].items()
        for labels, samples in found.items():
            assert samples.items() <= everything[labels].items()
        pair.database.close()
