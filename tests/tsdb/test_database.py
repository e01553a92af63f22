from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from mimir_ray.clock import ManualClock
from mimir_ray.model.labels import Labels
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.selection import Selection
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb import database as database_module
from mimir_ray.tsdb.append_file import StorageFull
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.head.settings import HeadSettings
from mimir_ray.tsdb.wal.checkpoint import checkpoint_numbers
from mimir_ray.tsdb.wal.format import segment_numbers
from mimir_ray.tsdb.wal.writer import WalSettings

HOUR = 3_600_000
ALL = Selection((Matcher(MatchType.REGEX, "__name__", ".+"),), 0, 1 << 60, batch_series=3)
SERIES: list[Labels] = [(("__name__", "m"), ("n", str(n))) for n in range(8)]
HEAD = HeadSettings(samples_per_chunk=4, log_capacity_min=16, log_capacity_max=64, log_samples_per_series=1)
SETTINGS = DatabaseSettings(HEAD, WalSettings(fsync="off"))


def push(database: Database, turn: int, step_ms: int = 15_000) -> None:
    """One sample for every series."""
    points = [(labels, [(HOUR + turn * step_ms, float(turn))]) for labels in SERIES]
    result = database.push([write_batch(new=points)], 0)[0]
    assert result.error is None
    assert not result.refusals


def turns(database: Database) -> dict[Labels, list[float]]:
    found = {}
    for batch in database.select(ALL):
        for row, labels in enumerate(batch.labels.to_labels()):
            found[labels] = batch.values[batch.offsets[row] : batch.offsets[row + 1]].tolist()
    return found


def test_progress_of_a_replay_ends_with_everything(tmp_path: Path) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    push(database, 1)
    database.close()
    seen: list[tuple[int, int]] = []
    Database(tmp_path, SETTINGS, ManualClock(), lambda done, total: seen.append((done, total))).close()
    assert seen[-1][0] == seen[-1][1] > 0


def test_a_checkpoint_replaces_the_log_before_it(tmp_path: Path) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    database.push([write_batch(metadata=(Metadata("m", "gauge", "help"),))], 0)
    for turn in range(10):
        push(database, turn)
        if turn in (3, 6):
            database.checkpoint()
    assert len(segment_numbers(tmp_path / "wal")) == 1
    assert len(checkpoint_numbers(tmp_path / "checkpoints")) == 1
    before = turns(database)
    database.close()
    again = Database(tmp_path, SETTINGS, ManualClock())
    assert again.replayed.records == 3
    assert turns(again) == before == {labels: [float(turn) for turn in range(10)] for labels in SERIES}
    assert again.metadata("m") == [Metadata("m", "gauge", "help")]
    again.close()


def test_a_checkpoint_that_fails_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    for turn in range(9):
        push(database, turn)

    def full(*_: object) -> Path:
        raise StorageFull("write", "x", errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(database_module, "write_checkpoint", full)
        with pytest.raises(StorageFull):
            database.checkpoint()
    push(database, 9)
    database.close()
    again = Database(tmp_path, SETTINGS, ManualClock())
    assert turns(again) == {labels: [float(turn) for turn in range(10)] for labels in SERIES}
    again.close()


def test_chunks_that_the_disk_refuses_stay_in_memory_until_it_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())

    def full(*_: object) -> int:
        raise StorageFull("write", "x", errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(ChunkFiles, "append", full)
        for turn in range(20):
            push(database, turn)
        expected = {labels: [float(turn) for turn in range(20)] for labels in SERIES}
        assert turns(database) == expected
        with pytest.raises(StorageFull):
            database.checkpoint()
    push(database, 20)
    database.checkpoint()
    database.close()
    again = Database(tmp_path, SETTINGS, ManualClock())
    assert turns(again) == {labels: [*values, 20.0] for labels, values in expected.items()}
    again.close()


def test_maintenance_takes_a_checkpoint_by_size_or_by_time(tmp_path: Path) -> None:
    clock = ManualClock()
    settings = DatabaseSettings(HEAD, WalSettings(fsync="off"), checkpoint_wal_bytes=2000, checkpoint_interval_ms=HOUR)
    database = Database(tmp_path, settings, clock)
    database.maintain(clock.now_ms())
    clock.advance_ms(2 * HOUR)
    database.maintain(clock.now_ms())
    assert database.stats.checkpoints == 0, "nothing was logged"
    push(database, 1)
    database.maintain(clock.now_ms())
    assert database.stats.checkpoints == 1, "long ago"
    push(database, 2)
    database.maintain(clock.now_ms())
    assert database.stats.checkpoints == 1
    for turn in range(3, 20):
        push(database, turn)
    database.maintain(clock.now_ms())
    assert database.stats.checkpoints == 2, "too much"
    database.close()


def test_compaction_moves_ranges_into_blocks_and_forgets_their_series_chunks_and_files_but_not_for_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChunkFiles.__init__, "__defaults__", (256,))
    database = Database(tmp_path, SETTINGS, ManualClock())
    idle: Labels = (("__name__", "idle"),)
    database.push([write_batch(new=[(idle, [(HOUR, 1.0)])])], 0)
    for turn in range(40):
        push(database, turn, HOUR // 8)
    database.flush()
    segments = len(list((tmp_path / "chunks_head").iterdir()))
    expected = {labels: [float(turn) for turn in range(40)] for labels in SERIES} | {idle: [1.0]}
    reader = database.select(ALL)
    first = next(reader)
    metas = database.compact()
    assert [(meta.min_time // HOUR, meta.max_time // HOUR) for meta in metas] == [(0, 2), (2, 4)]
    assert metas[0].compaction.sources == [metas[0].ulid]
    assert database.compact() == [], "nothing more is due"
    assert database.stats.head.series == len(SERIES)
    assert len(list((tmp_path / "chunks_head").iterdir())) < segments
    assert len(segment_numbers(tmp_path / "wal")) == 1
    assert turns(database) == expected
    assert database.label_values("__name__", Selection((), 4 * HOUR, 9 * HOUR)) == ["m"]
    late = write_batch(new=[(idle, [(3 * HOUR, 1.0)])])
    assert [one.reason for one in database.push([late], 0)[0].refusals] == ["sample-timestamp-too-old"]
    rest = [batch.samples for batch in reader]
    assert first.samples + sum(rest) == 1 + 40 * len(SERIES), "the reader came before"
    database.close()
    again = Database(tmp_path, SETTINGS, ManualClock())
    assert turns(again) == expected
    assert again.label_values("__name__", ALL) == ["idle", "m"]
    assert again.label_names(ALL) == ["__name__", "n"]
    again.close()


def test_a_dropped_block_stays_readable_for_who_came_before_and_its_files_go_after_that(tmp_path: Path) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    push(database, 0)
    (meta,) = database.compact_whole()
    reader = database.select(ALL)
    database.blocks.drop([meta.ulid])
    assert turns(database) == {}
    database.maintain(0)
    assert (tmp_path / meta.ulid).exists()
    assert sum(batch.samples for batch in reader) == len(SERIES)
    del reader
    database.maintain(0)
    assert not (tmp_path / meta.ulid).exists()
    database.close()


def test_a_whole_compaction_takes_older_samples_no_more_unless_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    push(database, 2)
    lagging = write_batch(new=[((("__name__", "slow"),), [(HOUR + 15_000, 1.0)])])

    def full(*_: object, **__: object) -> None:
        raise StorageFull("write", "x", errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(database_module, "block_from_head", full)
        with pytest.raises(StorageFull):
            database.compact_whole()
    assert not database.push([lagging], 0)[0].refusals
    assert len(database.compact_whole()) == 1
    assert database.stats.head.series == 0
    again = write_batch(new=[((("__name__", "slower"),), [(HOUR + 15_000, 1.0)])])
    assert [one.reason for one in database.push([again], 0)[0].refusals] == ["sample-timestamp-too-old"]
    assert database.compact_whole() == []
    push(database, 3)
    assert {tuple(values) for values in turns(database).values()} == {(2.0, 3.0), (1.0,)}
    database.close()


def test_a_pushed_batch_that_is_sent_again_changes_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path, SETTINGS, ManualClock())
    batch = write_batch(new=[(labels, [(HOUR, float("nan"))]) for labels in SERIES])
    first, again = database.push([batch, batch], 0)
    assert not first.refusals
    assert not again.refusals
    assert np.array_equal(first.new_references, again.new_references)
    assert database.stats.head.appended == len(SERIES)
    database.close()
