"""Blocks on this machine: what is loaded of them, and reads of head and blocks together."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from mimir_ray.clock import ManualClock
from mimir_ray.model.labels import Labels
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.selection import Selection, Shard
from mimir_ray.testing.writes import write_batch
from mimir_ray.tsdb import joined
from mimir_ray.tsdb.append_file import StorageFailed
from mimir_ray.tsdb.block.errors import DamagedBlock
from mimir_ray.tsdb.database import Database, DatabaseSettings
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits
from mimir_ray.tsdb.local_blocks import DELETED_SUFFIX, LoadedIndexes, LocalBlocks
from mimir_ray.tsdb.wal.writer import WalSettings

RANGE = 1000
SETTINGS = DatabaseSettings(HeadSettings(chunk_range_ms=RANGE), WalSettings(fsync="off"))
SERIES: list[Labels] = [(("__name__", "m"), ("n", str(n))) for n in range(40)]
ALL = Selection((Matcher(MatchType.EQUAL, "__name__", "m"),), 0, 1 << 60)


def database(folder: Path, clock: ManualClock, indexes: LoadedIndexes | None = None) -> Database:
    """Samples at 0, 100, …, 3900 of which the first three ranges are in blocks; some late ones in a block and not."""
    one = Database(folder, SETTINGS, clock, indexes=indexes)
    for time in range(0, 4000, 100):
        one.push([write_batch(new=[(labels, [(time, float(time))]) for labels in SERIES])], 0)
    late = PushLimits(out_of_order_window_ms=4000)
    one.push([write_batch(new=[(labels, [(250, -1.0), (300, -2.0), (3950, 0.0)]) for labels in SERIES])], 0, late)
    assert len(one.compact()) == 4
    one.push([write_batch(new=[(labels, [(260, -3.0), (250, -4.0)]) for labels in SERIES])], 0, late)
    return one


EXPECTED = {time: float(time) for time in range(0, 4000, 100)} | {250: -1.0, 260: -3.0, 3950: 0.0}


def each(samples: dict[int, float]) -> dict[Labels, dict[int, float]]:
    return {labels: samples for labels in SERIES}  # noqa: C420


def content(one: Database, selection: Selection = ALL) -> dict[Labels, dict[int, float]]:
    found: dict[Labels, dict[int, float]] = {}
    for batch in one.select(selection):
        for row, labels in enumerate(batch.labels.to_labels()):
            assert labels not in found, "every series once"
            part = slice(batch.offsets[row], batch.offsets[row + 1])
            found[labels] = dict(zip(batch.timestamps[part].tolist(), batch.values[part].tolist(), strict=True))
    return found


@pytest.mark.parametrize("samples", [1 << 22, 300])
def test_series_are_read_whole_from_head_and_blocks_in_any_number_of_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    """Of two samples of one time the one that came first counts: 300 was in order, -1 at 250 came before -4."""
    monkeypatch.setattr(joined, "SAMPLES_PER_PART", samples)
    one = database(tmp_path, ManualClock())
    assert content(one) == each(EXPECTED)
    assert content(one, Selection(ALL.matchers, 150, 260)) == each(
        {time: value for time, value in EXPECTED.items() if 150 <= time <= 260}
    )
    whole: dict[Labels, dict[int, float]] = {}
    for index in range(3):
        part = content(one, Selection(ALL.matchers, 0, 1 << 60, Shard(index, 3), batch_series=4))
        assert not part.keys() & whole.keys()
        whole |= part
    assert whole == each(EXPECTED)
    sizes = [len(batch) for batch in one.select(Selection(ALL.matchers, 0, 1 << 60, batch_series=7))]
    assert max(sizes) <= 7
    assert sum(sizes) == len(SERIES)
    limited = content(one, Selection(ALL.matchers, 0, 1 << 60, limit_series=5))
    assert list(limited.values()) == [EXPECTED] * 5
    names = content(one, Selection(ALL.matchers, 0, 1 << 60, labels_only=True))
    assert names == each({})
    one.close()


def test_indexes_of_blocks_are_forgotten_when_idle_and_beyond_the_bytes(tmp_path: Path) -> None:
    clock = ManualClock()
    indexes = LoadedIndexes(clock, idle_s=600)
    one = database(tmp_path / "a", clock, indexes)
    assert indexes.bytes == 0
    content(one)
    loaded = indexes.bytes
    assert loaded > 0
    indexes.sweep()
    assert indexes.bytes == loaded
    clock.advance_ms(601_000)
    reader = one.select(ALL)
    indexes.sweep()
    assert indexes.bytes == loaded, "used just now"
    clock.advance_ms(601_000)
    indexes.sweep()
    assert (indexes.bytes, indexes.unloads) == (0, 4)
    assert sum(batch.samples for batch in reader) == len(SERIES) * len(EXPECTED), "loaded again"
    one.close()
    assert indexes.bytes == 0
    few = LoadedIndexes(clock, bytes_max=loaded // 2)
    one = Database(tmp_path / "a", SETTINGS, clock, indexes=few)
    content(one)
    few.sweep()
    assert 0 < few.bytes <= loaded // 2
    one.close()


def test_what_was_not_finished_is_removed_and_what_is_damaged_is_told(tmp_path: Path) -> None:
    one = database(tmp_path, ManualClock())
    ulid = one.blocks.metas[0].ulid
    one.close()
    (tmp_path / f"{ulid}{DELETED_SUFFIX}").mkdir()
    (tmp_path / f"{ulid[:-1]}Z.tmp-for-creation").mkdir()
    blocks = LocalBlocks(tmp_path, LoadedIndexes(ManualClock()))
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []
    assert len(blocks.metas) == 4
    assert blocks.bytes > 0
    (tmp_path / ulid / "index").write_bytes(b"nonsense")
    with pytest.raises((DamagedBlock, StorageFailed)):
        LocalBlocks(tmp_path, LoadedIndexes(ManualClock()))


def test_labels_are_those_of_head_and_blocks(tmp_path: Path) -> None:
    one = Database(tmp_path, SETTINGS, ManualClock())
    one.push([write_batch(new=[((("__name__", "old"), ("a", "1")), [(0, 1.0)])])], 0)
    one.compact_whole()
    one.push([write_batch(new=[((("__name__", "new"), ("b", "2")), [(5000, 1.0)])])], 0)
    assert one.label_names(Selection((), 0, 9000)) == ["__name__", "a", "b"]
    assert one.label_values("__name__", Selection((), 0, 9000)) == ["new", "old"]
    assert one.label_values("__name__", Selection((), 1, 9000)) == ["new"]
    assert one.estimate_samples(Selection((), 0, 9000)) > 0
    one.close()


def test_reads_while_heads_are_cut_see_every_sample_that_was_there(tmp_path: Path) -> None:
    """Readers begin at every point of compactions that go on beside them."""
    one = Database(tmp_path, SETTINGS, ManualClock())
    problems: list[str] = []
    written = 0
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            least = written
            for labels, samples in content(one).items():
                times = np.array(sorted(samples))
                if len(times) < least or (times != 100 * np.arange(len(times))).any():
                    problems.append(f"{labels}: {len(times)} samples of {least}")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(120):
        one.push([write_batch(new=[(labels, [(100 * turn, 1.0)]) for labels in SERIES[:5]])], 0)
        written = turn + 1
        if turn % 5 == 4:
            one.compact()
        if turn % 50 == 49:
            one.compact_whole()
    done.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert len(one.blocks.metas) >= 10
    one.close()
