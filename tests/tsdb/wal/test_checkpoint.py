"""Checkpoints: whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mimir_ray.tsdb import append_file
from mimir_ray.tsdb.append_file import StorageFull
from mimir_ray.tsdb.wal.checkpoint import (
    DamagedCheckpoint,
    checkpoint_numbers,
    checkpoint_part,
    checkpoint_path,
    drop_checkpoints_before,
    latest_checkpoint,
    load_checkpoint,
    write_checkpoint,
)

PARTS: dict[str, Any] = {
    "values": np.array([1.5, np.nan, -0.0]),
    "matrix": np.arange(6, dtype=np.int32).reshape(2, 3),
    "flags": np.array([True, False]),
    "none": np.zeros((0, 4), np.uint16),
    "labels": b"some bytes",
    "nothing": b"",
}


def same(found: dict[str, Any]) -> bool:
    return list(found) == list(PARTS) and all(
        one == other
        if isinstance(one, bytes)
        else one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        for one, other in zip(found.values(), PARTS.values(), strict=True)
    )


@pytest.mark.parametrize("mapped", [False, True])
def test_what_was_written_is_loaded(tmp_path: Path, mapped: bool) -> None:
    write_checkpoint(tmp_path, 3, {"segment": 7, "end": 1 << 40}, PARTS)
    found = latest_checkpoint(tmp_path, mapped)
    assert found is not None
    assert (found.number, found.facts, found.damaged) == (3, {"segment": 7, "end": 1 << 40}, [])
    assert same(found.parts)
    assert not found.parts["values"].flags.writeable and found.parts["values"].flags.aligned


def test_a_part_is_read_without_the_others(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 3, {}, PARTS)
    assert same({name: checkpoint_part(path, name) for name in PARTS})
    with pytest.raises(KeyError):
        checkpoint_part(path, "other")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedCheckpoint):
        checkpoint_part(path, "values")


def test_strided_arrays_and_other_buffers_are_taken(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 0, {}, {"odd": np.arange(10)[1::2], "view": memoryview(b"abc")})
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.parts["odd"].tolist() == [1, 3, 5, 7, 9]
    assert found.parts["view"] == b"abc"


def test_a_checkpoint_without_parts_is_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, {"a": None}, {})
    found = latest_checkpoint(tmp_path)
    assert found is not None and (found.facts, found.parts) == ({"a": None}, {})


def test_there_may_be_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("mapped", [False, True])
def test_any_flipped_bit_that_matters_is_found(tmp_path: Path, mapped: bool) -> None:
    path = write_checkpoint(tmp_path, 1, {"a": 1}, PARTS)
    raw = path.read_bytes()
    for at in range(len(raw)):
        damaged = bytearray(raw)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        try:
            found = load_checkpoint(path, mapped)
        except DamagedCheckpoint:
            continue
        # Padding between the parts is nobody's.
        assert same(found.parts) and found.facts == {"a": 1} and raw[at] == 0


def test_a_file_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, {}, {"values": np.arange(8.0)})
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(DamagedCheckpoint):
            load_checkpoint(path)


def test_a_damaged_newest_one_falls_back_to_the_one_before(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, {"n": 1}, PARTS)
    newest = write_checkpoint(tmp_path, 2, {"n": 2}, PARTS)
    newest.write_bytes(newest.read_bytes()[:-100])
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.facts == {"n": 1}
    assert [error.path for error in found.damaged] == [str(newest)]


def test_nothing_but_damaged_ones_is_an_error(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, {}, {}).write_bytes(b"")
    with pytest.raises(DamagedCheckpoint, match="too short"):
        latest_checkpoint(tmp_path)


def test_older_ones_are_dropped(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        write_checkpoint(tmp_path, number, {}, {})
    assert drop_checkpoints_before(tmp_path, 10) == 2
    assert checkpoint_numbers(tmp_path) == [10]


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path, 1, {"n": 1}, PARTS)
    calls = []

    class FullDisk:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def writev(self, descriptor: int, pieces: list[Any]) -> int:
            calls.append(1)
            if len(calls) > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return os.writev(descriptor, pieces)

    with monkeypatch.context() as patched:
        patched.setattr(append_file, "os", FullDisk())
        for number in (1, 2):
            with pytest.raises(StorageFull):
                write_checkpoint(tmp_path, number, {"n": 2}, PARTS)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.00000001"]
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.facts == {"n": 1}


def test_an_unfinished_file_is_ignored_and_removed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, {"n": 1}, PARTS)
    unfinished = tmp_path / (checkpoint_path(tmp_path, 2).name + ".tmp")
    unfinished.write_bytes(b"half")
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.number == 1
    assert not unfinished.exists()
