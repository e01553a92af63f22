"""`tombstones`: which samples of a block are deleted. Format: prometheus/tsdb/docs/format/tombstones.md."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.checksum import crc32c
from mimir_ray.encoding.varint import read_uvarint, read_varint, write_uvarint, write_varint
from mimir_ray.kernel import I64, U8, OutF64, OutI64, OutU8, kernel
from mimir_ray.tsdb.append_file import storage_error

from .errors import DamagedBlock

TOMBSTONES_FILE = "tombstones"
_HEADER = struct.pack(">IB", 0x0130BA30, 1)


@dataclass(frozen=True, slots=True)
class Tombstones:
    """N deleted ranges, ascending by series: samples of series `references` (as in the index) in
    [mints, maxts] (ms, both included). All int64[N]."""

    references: NDArray[np.int64]
    mints: NDArray[np.int64]
    maxts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.references)

    @classmethod
    def none(cls) -> Tombstones:
        """Nothing is deleted."""
        return cls(*(np.empty(0, np.int64) for _ in range(3)))


@kernel
def encode_tombstones(references: I64, mints: I64, maxts: I64, out: OutU8) -> int:
    """30 bytes a range at most; returns how many."""
    at = 0
    for n in range(len(references)):
        at = write_uvarint(out, at, np.uint64(references[n]))
        at = write_varint(out, at, mints[n])
        at = write_varint(out, at, maxts[n])
    return at


@kernel
def decode_tombstones(data: U8, references: OutI64, mints: OutI64, maxts: OutI64) -> int:
    """Reads to the end of the data, which holds at most len(references) ranges; how many, or -1 for damage."""
    at = 0
    end = len(data)
    count = 0
    while at < end:
        reference, at, code = read_uvarint(data, at, end)
        low, at, second = read_varint(data, at, end)
        high, at, third = read_varint(data, at, end)
        if code != 0 or second != 0 or third != 0:
            return -1
        references[count] = np.int64(reference)
        mints[count] = low
        maxts[count] = high
        count += 1
    return count


@kernel
def remove_deleted(
    series: I64, references: I64, mints: I64, maxts: I64, offsets: OutI64, timestamps: OutI64, values: OutF64
) -> int:
    """Takes deleted samples out of B series, in place; returns how many are left in all.

    Args:
        series: int64[B], the reference of each series.
        references, mints, maxts: tombstones, ascending by series.
        offsets: int64[B + 1], read and written; timestamps, values: the samples.
    """
    write = np.int64(0)
    start = offsets[0]
    for b in range(len(series)):
        end = offsets[b + 1]
        first = np.searchsorted(references, series[b])
        offsets[b] = write
        for at in range(start, end):
            deleted = False
            n = first
            while n < len(references) and references[n] == series[b]:
                if mints[n] <= timestamps[at] <= maxts[n]:
                    deleted = True
                    break
                n += 1
            if not deleted:
                timestamps[write] = timestamps[at]
                values[write] = values[at]
                write += 1
        start = end
    offsets[len(series)] = write
    return write


def tombstones_bytes(stones: Tombstones) -> bytes:
    """The file's content."""
    out = np.empty(30 * len(stones), np.uint8)
    body = out[: encode_tombstones(stones.references, stones.mints, stones.maxts, out)].tobytes()
    # Upstream: tsdb/tombstones/tombstones.go WriteFile: the checksum leaves magic and version out.
    return _HEADER + body + crc32c(body).to_bytes(4, "big")


def read_tombstones(directory: Path) -> Tombstones:
    """Of the block in a folder; a missing file says that nothing is deleted. Raises `DamagedBlock`."""
    path = directory / TOMBSTONES_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Tombstones.none()
    except OSError as error:
        raise storage_error("read", path, error) from error
    if len(data) < len(_HEADER) + 4 or data[: len(_HEADER)] != _HEADER:
        raise DamagedBlock(str(path), 0, "no tombstones file of version 1")
    body = data[len(_HEADER) : -4]
    if crc32c(body).to_bytes(4, "big") != data[-4:]:
        raise DamagedBlock(str(path), len(data) - 4, "checksum mismatch")
    columns = tuple(np.empty(len(body) // 3 + 1, np.int64) for _ in range(3))
    count = decode_tombstones(np.frombuffer(body, np.uint8), *columns)
    if count < 0:
        raise DamagedBlock(str(path), len(_HEADER), "a range is malformed")
    order = np.argsort(columns[0][:count], kind="stable")
    return Tombstones(*(column[:count][order] for column in columns))
