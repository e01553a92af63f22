"""Segment files of closed chunks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from mimir_ray.tsdb import append_file
from mimir_ray.tsdb.append_file import StorageFull
from mimir_ray.tsdb.chunks.files import ChunkFiles, DamagedChunkFile, offset_of, segment_of


def block(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


def read(files: ChunkFiles, position: int, size: int) -> bytes:
    return files.view(segment_of(position))[offset_of(position) :][:size].tobytes()


def test_what_was_appended_is_read_at_its_position(tmp_path: Path) -> None:
    files = ChunkFiles(tmp_path, segment_bytes=1000)
    blocks = [block(n, size) for n, size in enumerate([1, 400, 399, 2000, 8, 900])]
    positions = [files.append(one) for one in blocks]
    assert positions == sorted(positions)
    assert [read(files, at, len(one)) for at, one in zip(positions, blocks, strict=True)] == [
        one.tobytes() for one in blocks
    ]
    assert files.segments == [1, 2, 3]
    assert files.verify() == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001", "000002", "000003"]


def test_a_view_stays_as_it_is_when_the_file_grows_or_goes(tmp_path: Path) -> None:
    files = ChunkFiles(tmp_path, segment_bytes=200)
    files.append(block(1, 50))
    view = files.view(1)
    before = view.tobytes()
    files.append(block(2, 10))
    assert len(files.view(1)) > len(view)
    files.append(block(3, 90))
    files.drop_before(2)
    assert files.segments == [2]
    assert view.tobytes() == before
    assert not view.flags.writeable


def test_a_restart_cuts_back_to_the_remembered_end_and_goes_on(tmp_path: Path) -> None:
    files = ChunkFiles(tmp_path, segment_bytes=200)
    kept = files.append(block(1, 100))
    end = files.end
    for n in range(2, 9):
        files.append(block(n, 90))
    files.close()

    files = ChunkFiles(tmp_path, segment_bytes=200)
    assert files.truncate_to(end) > 0
    assert (files.end, files.segments) == (end, [1])
    again = files.append(block(20, 60))
    assert read(files, kept, 100) == block(1, 100).tobytes()
    assert read(files, again, 60) == block(20, 60).tobytes()
    assert files.verify() == 2


def test_truncating_to_zero_removes_everything(tmp_path: Path) -> None:
    files = ChunkFiles(tmp_path)
    files.append(b"abc")
    assert files.truncate_to(0) > 0
    assert (files.end, files.segments, files.bytes) == (0, [], 0)
    files.append(b"def")
    assert files.verify() == 1


def test_files_that_end_before_the_remembered_end_are_refused(tmp_path: Path) -> None:
    files = ChunkFiles(tmp_path)
    files.append(b"abc")
    end = files.end
    files.close()
    os.truncate(tmp_path / "000001", 10)
    with pytest.raises(DamagedChunkFile):
        ChunkFiles(tmp_path).truncate_to(end)


def test_the_last_segment_is_never_dropped(tmp_path: Path) -> None:
    files = ChunkFiles(tmp_path)
    files.append(b"abc")
    assert files.drop_before(99) == 0
    assert files.segments == [1]


@pytest.mark.parametrize("at", range(40))
def test_a_flipped_byte_is_found(tmp_path: Path, at: int) -> None:
    files = ChunkFiles(tmp_path)
    files.append(b"chunks chunks chunks 123")
    files.close()
    raw = bytearray((tmp_path / "000001").read_bytes())
    raw[at] ^= 0x10
    (tmp_path / "000001").write_bytes(raw)
    with pytest.raises(DamagedChunkFile):
        ChunkFiles(tmp_path).verify()


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ChunkFiles(tmp_path)
    files.append(b"before")
    end = files.end

    def half(descriptor: int, pieces: list[bytes]) -> int:
        return os.write(descriptor, bytes(pieces[0])[:7])

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(append_file, "os", Patched(writev=half, write=full))
        with pytest.raises(StorageFull, match="No space left"):
            files.append(b"too much")
    assert files.end == end
    files.append(b"after")
    assert files.verify() == 2


class Patched:
    """The os module with some functions replaced."""

    def __init__(self, **functions: object) -> None:
        self._functions = functions

    def __getattr__(self, name: str) -> object:
        return self._functions.get(name) or getattr(os, name)
