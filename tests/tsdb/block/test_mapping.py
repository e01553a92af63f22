from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mimir_ray.tsdb.append_file import StorageFailed
from mimir_ray.tsdb.block.mapping import map_file


def maps_of(path: Path) -> int:
    return sum(line.rstrip().endswith(str(path)) for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_mapped_file_shows_its_bytes_and_takes_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 100)
    before = len(os.listdir("/proc/self/fd"))
    data = map_file(path)
    assert len(os.listdir("/proc/self/fd")) == before
    assert data.tobytes() == bytes(range(256)) * 100
    assert not data.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        data[0] = 1


def test_it_stays_for_as_long_as_somebody_holds_a_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    data = map_file(str(path))
    part = data[2:4]
    assert maps_of(path) == 1
    del data
    assert maps_of(path) == 1
    os.unlink(path)
    assert part.tobytes() == b"cd"
    del part
    assert not any(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_nothing_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert map_file(tmp_path / "empty").tolist() == np.empty(0).tolist()
    with pytest.raises(StorageFailed):
        map_file(tmp_path / "missing")
    with pytest.raises(StorageFailed):
        map_file(tmp_path)
