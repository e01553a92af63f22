"""The write-ahead log when bytes are cut, flipped or made up, and when the disk refuses."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.clock import ManualClock
from mimir_ray.tsdb import append_file
from mimir_ray.tsdb.append_file import StorageFailed, StorageFull
from mimir_ray.tsdb.wal.format import HEADER
from mimir_ray.tsdb.wal.reader import WalReader, WalReport
from mimir_ray.tsdb.wal.writer import WalClosed, WalSettings, WalWriter

PAYLOADS = [bytes([n]) * (7 * n % 23) for n in range(12)]


def write(directory: Path, payloads: list[bytes] = PAYLOADS, segment_bytes: int = 1 << 20) -> WalWriter:
    wal = WalWriter(directory, ManualClock(), WalSettings(segment_bytes, fsync="off"))
    for payload in payloads:
        wal.append((1, [payload]))
    return wal


def replay(directory: Path) -> tuple[list[bytes], WalReport]:
    reader = WalReader(directory)
    return [record.payload for record in reader], reader.report


def only_segment(directory: Path) -> Path:
    return directory / "00000000"


def test_a_log_cut_at_any_byte_gives_every_whole_record(tmp_path: Path) -> None:
    write(tmp_path / "whole")
    raw = only_segment(tmp_path / "whole").read_bytes()
    ends = [0]
    for payload in PAYLOADS:
        ends.append(ends[-1] + HEADER.size + len(payload))
    for cut in range(len(raw) + 1):
        directory = tmp_path / f"cut-{cut}"
        directory.mkdir()
        only_segment(directory).write_bytes(raw[:cut])
        whole = sum(end <= cut for end in ends[1:])
        found, report = replay(directory)
        assert found == PAYLOADS[:whole]
        assert (report.torn_bytes, report.damage, report.bytes_lost) == (cut - ends[whole], "", 0)
        # Repaired: the next replay finds nothing to complain about, and a writer goes on behind it.
        assert only_segment(directory).stat().st_size == ends[whole]
        write(directory, [b"next"])
        found, report = replay(directory)
        assert found == [*PAYLOADS[:whole], b"next"]
        assert (report.torn_bytes, report.damage) == (0, "")
        shutil.rmtree(directory)


def test_a_writer_repairs_a_torn_end_itself(tmp_path: Path) -> None:
    write(tmp_path)
    path = only_segment(tmp_path)
    os.truncate(path, path.stat().st_size - 1)
    write(tmp_path, [b"next"])
    found, report = replay(tmp_path)
    assert found == [*PAYLOADS[:-1], b"next"]
    assert not report.damage


def test_any_flipped_bit_ends_the_replay_before_its_record(tmp_path: Path) -> None:
    write(tmp_path / "whole")
    raw = only_segment(tmp_path / "whole").read_bytes()
    starts, at = [], 0
    for payload in PAYLOADS:
        starts.append(at)
        at += HEADER.size + len(payload)
    for bit in range(8 * len(raw)):
        damaged = bytearray(raw)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        directory = tmp_path / "flipped"
        directory.mkdir()
        only_segment(directory).write_bytes(damaged)
        intact = sum(start <= bit >> 3 for start in starts) - 1
        found, report = replay(directory)
        assert found == PAYLOADS[:intact]
        cut = len(raw) - starts[intact]
        assert report.torn_bytes + report.bytes_lost == cut
        assert bool(report.damage) == bool(report.bytes_lost)
        assert only_segment(directory).stat().st_size == starts[intact]
        if report.damage:
            assert [path.read_bytes() for path in report.set_aside] == [bytes(damaged[starts[intact] :])]
        shutil.rmtree(directory)


@given(st.binary(max_size=200), st.integers(0, 12))
def test_made_up_bytes_never_become_records(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, good: int
) -> None:
    directory = tmp_path_factory.mktemp("wal")
    write(directory, PAYLOADS[:good])
    with only_segment(directory).open("ab") as file:
        file.write(garbage)
    found, report = replay(directory)
    assert found == PAYLOADS[:good]
    assert report.torn_bytes + report.bytes_lost == len(garbage)
    assert replay(directory)[1].damage == ""


def test_zeros_at_the_end_are_a_torn_tail(tmp_path: Path) -> None:
    write(tmp_path)
    with only_segment(tmp_path).open("ab") as file:
        file.write(bytes(10_000))
    found, report = replay(tmp_path)
    assert found == PAYLOADS
    assert (report.torn_bytes, report.damage) == (10_000, "")


def test_damage_in_an_earlier_segment_sets_the_later_ones_aside(tmp_path: Path) -> None:
    write(tmp_path, segment_bytes=60)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert len(sizes) > 3
    before = [record.payload for record in WalReader(tmp_path) if record.segment == 0]
    second = tmp_path / "00000001"
    raw = bytearray(second.read_bytes())
    raw[HEADER.size] ^= 1
    second.write_bytes(raw)

    found, report = replay(tmp_path)
    assert found == before
    assert report.records == len(before)
    assert "00000001 at byte 0: checksum mismatch" in report.damage
    assert report.bytes_lost == sum(sizes.values()) - sizes["00000000"]
    assert {path.name for path in report.set_aside} == {
        "00000001-0.corrupt",
        *(f"{name}.corrupt" for name in sizes if name > "00000001"),
    }
    assert (tmp_path / "00000001-0.corrupt").read_bytes() == raw

    wal = write(tmp_path, [b"next"])
    found, report = replay(tmp_path)
    assert (found, report.damage) == ([*before, b"next"], "")
    wal.rotate()
    wal.truncate_before(1000)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".corrupt")] == []


def test_a_torn_record_in_an_earlier_segment_is_damage(tmp_path: Path) -> None:
    write(tmp_path, segment_bytes=60)
    first = only_segment(tmp_path)
    os.truncate(first, first.stat().st_size - 1)
    _, report = replay(tmp_path)
    assert report.damage and report.set_aside


def test_a_missing_segment_ends_the_replay(tmp_path: Path) -> None:
    write(tmp_path, segment_bytes=60)
    before = [record.payload for record in WalReader(tmp_path) if record.segment == 0]
    (tmp_path / "00000001").unlink()
    found, report = replay(tmp_path)
    assert found == before
    assert report.damage == "segment 00000001 is missing"
    assert not (tmp_path / "00000002").exists()


def test_a_missing_first_segment_gives_nothing(tmp_path: Path) -> None:
    write(tmp_path, segment_bytes=60)
    (tmp_path / "00000001").unlink()
    reader = WalReader(tmp_path, first=1)
    assert list(reader) == []
    assert reader.report.damage == "segment 00000001 is missing"


def test_a_replay_that_was_broken_off_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    os.truncate(only_segment(tmp_path), 50)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    next(iter(WalReader(tmp_path)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class Patched:
    """The os module with some functions replaced."""

    def __init__(self, **functions: object) -> None:
        self._functions = functions

    def __getattr__(self, name: str) -> object:
        return self._functions.get(name) or getattr(os, name)


def refuse(code: int) -> object:
    def refusing(*args: object) -> int:
        raise OSError(code, os.strerror(code))

    return refusing


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, StorageFull), (errno.EIO, StorageFailed)])
@pytest.mark.parametrize("taken", [0, 1, HEADER.size, 15])
def test_a_write_that_fails_half_way_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StorageFailed], taken: int
) -> None:
    wal = write(tmp_path, [b"before"])
    position = wal.position

    def some(descriptor: int, pieces: list[bytes]) -> int:
        return os.write(descriptor, b"".join(pieces)[:taken]) if taken else refuse(code)()  # type: ignore[operator]

    with monkeypatch.context() as patched:
        patched.setattr(append_file, "os", Patched(writev=some, write=refuse(code)))
        with pytest.raises(kind):
            wal.append((1, [b"0123456789"]))
    assert (wal.position, wal.failures) == (position, 1)
    wal.append((1, [b"after"]))
    assert replay(tmp_path)[0] == [b"before", b"after"]


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = write(tmp_path, [])

    def some(descriptor: int, pieces: list[bytes]) -> int:
        return os.write(descriptor, b"".join(pieces)[:5])

    def one(descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data[:1])

    monkeypatch.setattr(append_file, "os", Patched(writev=some, write=one))
    wal.append((1, [b"0123456789"]), (2, [b"ab"]))
    assert replay(tmp_path)[0] == [b"0123456789", b"ab"]


def test_remains_that_cannot_be_cut_off_stop_the_log_until_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = write(tmp_path, [b"before"])

    def some(descriptor: int, pieces: list[bytes]) -> int:
        return os.write(descriptor, b"".join(pieces)[:5])

    with monkeypatch.context() as patched:
        broken = Patched(writev=some, write=refuse(errno.EIO), ftruncate=refuse(errno.EIO))
        patched.setattr(append_file, "os", broken)
        for _ in range(2):
            with pytest.raises(StorageFailed):
                wal.append((1, [b"0123456789"]))
    wal.append((1, [b"after"]))
    assert replay(tmp_path)[0] == [b"before", b"after"]


def test_a_failed_sync_closes_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = WalWriter(tmp_path, ManualClock(), WalSettings(fsync="always"))
    wal.append((1, [b"before"]))
    with monkeypatch.context() as patched:
        patched.setattr(append_file, "os", Patched(fdatasync=refuse(errno.EIO)))
        with pytest.raises(StorageFailed, match="Input/output error"):
            wal.sync()
    with pytest.raises(WalClosed, match="Input/output error"):
        wal.sync()
    with pytest.raises(WalClosed):
        wal.append((1, [b"after"]))
    wal.close()
    assert replay(tmp_path)[0] == [b"before"]


def test_no_room_for_the_next_segment_keeps_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = write(tmp_path, [b"x" * 50], segment_bytes=60)
    with monkeypatch.context() as patched:
        patched.setattr(append_file, "os", Patched(open=refuse(errno.ENOSPC)))
        with pytest.raises(StorageFull):
            wal.append((1, [b"y" * 50]))
    wal.append((1, [b"z" * 50]))
    assert replay(tmp_path)[0] == [b"x" * 50, b"z" * 50]


def test_acknowledged_records_survive_the_death_of_the_process(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from mimir_ray.clock import ManualClock
from mimir_ray.tsdb.wal.writer import WalSettings, WalWriter
wal = WalWriter(Path(sys.argv[1]), ManualClock(), WalSettings(fsync="off"))
for n in range(100):
    wal.append((n, [b"payload"]))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, env={**os.environ})
    assert done.returncode == -9
    assert [record.type for record in WalReader(tmp_path)] == list(range(100))
