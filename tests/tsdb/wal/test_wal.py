"""The write-ahead log while the disk does what it should."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.clock import ManualClock
from mimir_ray.tsdb.append_file import AppendFile
from mimir_ray.tsdb.wal.reader import WalReader
from mimir_ray.tsdb.wal.writer import WalClosed, WalSettings, WalWriter


def open_wal(directory: Path, segment_bytes: int = 1 << 20, **settings: object) -> WalWriter:
    return WalWriter(directory, ManualClock(), WalSettings(segment_bytes=segment_bytes, **settings))  # type: ignore[arg-type]


def read(directory: Path, first: int | None = None) -> list[tuple[int, bytes]]:
    return [(record.type, record.payload) for record in WalReader(directory, first)]


def segments(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 255), st.lists(st.binary(max_size=40), max_size=3)), max_size=3), max_size=10
    ),
    st.integers(1, 200),
)
def test_records_come_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, calls: list[list[tuple[int, list[bytes]]]], segment_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("wal")
    wal = open_wal(directory, segment_bytes)
    for records in calls:
        wal.append(*records)
    expected = [(kind, b"".join(pieces)) for records in calls for kind, pieces in records]
    # Nothing is buffered in the process: another reader sees it before anything is closed or synced.
    assert read(directory) == expected
    wal.close()
    assert read(directory) == expected


def test_segments_stay_below_their_size_unless_one_call_is_larger(tmp_path: Path) -> None:
    wal = open_wal(tmp_path, 100)
    for size in (40, 40, 300, 10, 10):
        wal.append((1, [bytes(size)]))
    wal.close()
    assert [(name, (tmp_path / name).stat().st_size) for name in segments(tmp_path)] == [
        ("00000000", 98),
        ("00000001", 309),
        ("00000002", 38),
    ]


def test_the_records_of_one_call_share_a_segment(tmp_path: Path) -> None:
    wal = open_wal(tmp_path, 100)
    wal.append((1, [bytes(50)]))
    first = wal.append((1, [bytes(30)]), (2, [bytes(10)]))
    assert first == (1, 0)
    assert [record.segment for record in WalReader(tmp_path)] == [0, 1, 1]


def test_payloads_start_at_aligned_addresses(tmp_path: Path) -> None:
    wal = open_wal(tmp_path)
    for size in range(1, 30):
        wal.append((1, [bytes(size)]))
    for record in WalReader(tmp_path):
        assert np.frombuffer(record.payload, np.uint8).ctypes.data % 8 == 0


def test_arrays_are_written_without_the_caller_making_bytes(tmp_path: Path) -> None:
    wal = open_wal(tmp_path)
    values = np.array([1.5, np.nan])
    values.flags.writeable = False
    wal.append((7, [values, np.zeros(0, np.int32), memoryview(b"end")]))
    assert read(tmp_path) == [(7, values.tobytes() + b"end")]


def test_thousands_of_pieces_are_written_at_once(tmp_path: Path) -> None:
    wal = open_wal(tmp_path)
    wal.append((1, [bytes([n % 256]) for n in range(5000)]))
    assert read(tmp_path) == [(1, bytes(n % 256 for n in range(5000)))]


def test_reading_may_start_at_a_later_segment(tmp_path: Path) -> None:
    wal = open_wal(tmp_path)
    wal.append((1, [b"old"]))
    second = wal.rotate()
    wal.append((1, [b"new"]))
    assert read(tmp_path, second) == [(1, b"new")]
    assert wal.truncate_before(second) == 1
    assert segments(tmp_path) == [f"{second:08d}"]
    assert read(tmp_path) == [(1, b"new")]


def test_rotating_an_empty_segment_keeps_it(tmp_path: Path) -> None:
    wal = open_wal(tmp_path)
    assert wal.rotate() == wal.rotate() == 0
    wal.append((1, [b"a"]))
    assert wal.rotate() == 1


def test_the_current_segment_is_never_removed(tmp_path: Path) -> None:
    wal = open_wal(tmp_path)
    wal.append((1, [b"a"]))
    assert wal.truncate_before(100) == 0
    assert read(tmp_path) == [(1, b"a")]


def test_reopening_starts_a_segment_and_keeps_the_others(tmp_path: Path) -> None:
    for n in range(3):
        wal = open_wal(tmp_path)
        wal.append((n, [b"x"]))
        wal.close()
    open_wal(tmp_path).close()
    open_wal(tmp_path).close()
    assert read(tmp_path) == [(0, b"x"), (1, b"x"), (2, b"x")]
    assert len(segments(tmp_path)) == 4


def test_a_writer_never_goes_below_the_segment_that_a_checkpoint_names(tmp_path: Path) -> None:
    wal = WalWriter(tmp_path, ManualClock(), first=7)
    wal.append((1, [b"a"]))
    assert read(tmp_path, 7) == [(1, b"a")]


def test_a_closed_log_refuses_records(tmp_path: Path) -> None:
    wal = open_wal(tmp_path)
    wal.close()
    wal.close()
    with pytest.raises(WalClosed, match="shut down"):
        wal.append((1, [b"a"]))


def test_the_interval_policy_syncs_once_an_interval(tmp_path: Path) -> None:
    clock = ManualClock()
    wal = WalWriter(tmp_path, clock, WalSettings(fsync="interval", fsync_interval_s=1.0))
    counts = []
    for step_ms in (0, 999, 1, 500, 600):
        clock.advance_ms(step_ms)
        wal.append((1, [b"a"]))
        wal.sync()
        counts.append(wal.syncs)
    assert counts == [0, 0, 1, 1, 2]
    wal.sync(force=True)
    assert wal.syncs == 2, "nothing was left to sync"


def test_the_always_policy_syncs_what_is_not_synced_yet(tmp_path: Path) -> None:
    wal = open_wal(tmp_path, fsync="always")
    wal.append((1, [b"a"]))
    wal.sync()
    wal.sync()
    assert wal.syncs == 1


def test_the_off_policy_never_syncs(tmp_path: Path) -> None:
    wal = open_wal(tmp_path, 10, fsync="off")
    for _ in range(3):
        wal.append((1, [b"abc"]))
        wal.sync()
    wal.close()
    assert wal.syncs == 0


def test_threads_that_wait_together_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = open_wal(tmp_path, fsync="always")
    in_first, go_on = threading.Event(), threading.Event()
    real = AppendFile.prepare_sync
    started = []

    def slow_prepare(file: AppendFile) -> object:
        sync_now = real(file)

        def slow() -> None:
            started.append(1)
            if len(started) == 1:
                in_first.set()
                assert go_on.wait(10)
            sync_now()

        return slow

    monkeypatch.setattr(AppendFile, "prepare_sync", slow_prepare)

    def write() -> None:
        wal.append((1, [b"abc"]))
        written.release()
        wal.sync()

    written = threading.Semaphore(0)
    first = threading.Thread(target=write)
    first.start()
    assert in_first.wait(10)
    others = [threading.Thread(target=write) for _ in range(8)]
    for thread in others:
        thread.start()
    for _ in range(9):
        assert written.acquire(timeout=10)
    go_on.set()
    for thread in [first, *others]:
        thread.join(10)
    assert len(read(tmp_path)) == 9
    # The first alone, then one or two for the eight who came while it ran.
    assert 2 <= wal.syncs <= 3


def test_threads_append_whole_records(tmp_path: Path) -> None:
    wal = open_wal(tmp_path, 2000, fsync="always")

    def write(kind: int) -> None:
        for n in range(50):
            wal.append((kind, [bytes([kind]) * n, bytes([kind])]))
            wal.sync()

    threads = [threading.Thread(target=write, args=(kind,)) for kind in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    by_kind: dict[int, list[bytes]] = {kind: [] for kind in range(4)}
    for kind, payload in read(tmp_path):
        by_kind[kind].append(payload)
    assert by_kind == {kind: [bytes([kind]) * (n + 1) for n in range(50)] for kind in range(4)}
