"""Snapshots of named arrays in one file, written whole or not at all.

`checkpoint.NNNNNNNN` is: magic, format version u32, header length u32, CRC-32C of the header u32; the header
as JSON (what the writer wants to remember, and a row a part: name, type, shape, offset, bytes, CRC-32C);
the parts, each at a multiple of 64 bytes. What the number means is the writer's choice; higher is newer.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.checksum import crc32c
from mimir_ray.errors import Corruption
from mimir_ray.tsdb.append_file import AppendFile, StorageFailed, buffer_bytes, storage_error, sync_directory

MAGIC = b"MRCHKPT\n"
VERSION = 1
_PREFIX = struct.Struct("<8sIII")
_ALIGNMENT = 64
_HEADER_BYTES_MAX = 16 << 20
_TYPES = frozenset(
    ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bytes")
)
_NAME = re.compile(r"checkpoint\.(\d{8})\Z")
_TEMPORARY = ".tmp"


@dataclass(eq=False)
class DamagedCheckpoint(Corruption):
    path: str
    reason: str

    def describe(self) -> str:
        return f"checkpoint {self.path} is damaged: {self.reason}"


@dataclass(slots=True)
class Checkpoint:
    """What a file held. `facts`: the writer's JSON; `parts`: arrays (read-only) and bytes by name."""

    number: int
    path: Path
    facts: dict[str, Any]
    parts: dict[str, Any]
    damaged: list[DamagedCheckpoint] = field(default_factory=list)
    """Newer checkpoints that could not be used (`latest_checkpoint`)."""


def checkpoint_path(directory: Path, number: int) -> Path:
    return directory / f"checkpoint.{number:08d}"


def checkpoint_numbers(directory: Path) -> list[int]:
    """Of all complete checkpoints, ascending."""
    if not directory.exists():
        return []
    return sorted(int(match.group(1)) for path in directory.iterdir() if (match := _NAME.match(path.name)))


def write_checkpoint(directory: Path, number: int, facts: Mapping[str, Any], parts: Mapping[str, Any]) -> Path:
    """Writes one file durably: afterwards it is there complete, or (`StorageFailed`) it is not there.

    Args:
        facts: anything JSON can say; small.
        parts: name to array (any shape, numbers or bools; copied only if not contiguous) or bytes.
    """
    rows: list[dict[str, Any]] = []
    buffers: list[Any] = []
    offset = 0
    for name, part in parts.items():
        if isinstance(part, np.ndarray):
            part = np.require(part, requirements="C")
            row: dict[str, Any] = {"name": name, "type": part.dtype.name, "shape": list(part.shape)}
            assert part.dtype.name in _TYPES, f"{name}: {part.dtype}"
        else:
            row = {"name": name, "type": "bytes", "shape": [buffer_bytes(part)]}
        size = buffer_bytes(part)
        # An empty array's buffer may have any address and no bytes: nothing to sum or write.
        rows.append(row | {"offset": offset, "bytes": size, "crc": crc32c(part) if size else 0})
        if size:
            padding = -size % _ALIGNMENT
            buffers += [part, bytes(padding)] if padding else [part]
            offset += size + padding
    header = json.dumps({"facts": dict(facts), "parts": rows}).encode()
    assert len(header) <= _HEADER_BYTES_MAX
    prefix = _PREFIX.pack(MAGIC, VERSION, len(header), crc32c(header))
    header_padding = bytes(-(len(prefix) + len(header)) % _ALIGNMENT)

    path = checkpoint_path(directory, number)
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        file = AppendFile(temporary, create=True)
        try:
            file.append([prefix, header, header_padding])
            for buffer in buffers:
                file.append([buffer])
            file.sync()
        finally:
            file.close()
        os.replace(temporary, path)
        sync_directory(directory)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error("write", path, error) from error
    except StorageFailed:
        temporary.unlink(missing_ok=True)
        raise
    return path


def checkpoint_part(path: Path, name: str) -> Any:
    """One part of a file, without reading the others. Raises as `load_checkpoint`; KeyError where there is none."""
    try:
        data = np.memmap(path, np.uint8, "r").view(np.ndarray) if path.stat().st_size else np.empty(0, np.uint8)
    except OSError as error:
        raise storage_error("read", path, error) from error
    header, start = _header(path, data)
    try:
        rows = {row["name"]: row for row in header["parts"]}
    except (KeyError, TypeError) as error:
        raise DamagedCheckpoint(str(path), f"header: {error!r}") from None
    return _part(path, rows[name], data, start)


def load_checkpoint(path: Path, mapped: bool = False) -> Checkpoint:
    """Reads and verifies one file; arrays are read-only.

    Args:
        mapped: arrays are views of the mapped file, whose pages can be dropped and read again; else in memory.

    Raises `DamagedCheckpoint`, or `StorageFailed` where the disk cannot be read.
    """
    try:
        size = path.stat().st_size
        data: NDArray[np.uint8] = np.memmap(path, np.uint8, "r") if mapped and size else np.fromfile(path, np.uint8)
    except OSError as error:
        raise storage_error("read", path, error) from error
    data = data.view(np.ndarray)
    data.flags.writeable = False
    header, start = _header(path, data)
    parts: dict[str, Any] = {}
    try:
        facts = header["facts"]
        for row in header["parts"]:
            parts[row["name"]] = _part(path, row, data, start)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DamagedCheckpoint(str(path), f"header: {error!r}") from None
    match = _NAME.match(path.name)
    return Checkpoint(int(match.group(1)) if match else -1, path, facts, parts)


def latest_checkpoint(directory: Path, mapped: bool = False) -> Checkpoint | None:
    """The newest undamaged checkpoint (`damaged` lists what was passed over), or None if there are none.

    Raises `DamagedCheckpoint` where there are some, but none that is good. Files of unfinished
    writes are removed.
    """
    if directory.exists():
        for path in directory.glob(f"checkpoint.*{_TEMPORARY}"):
            path.unlink(missing_ok=True)
    damaged: list[DamagedCheckpoint] = []
    for number in reversed(checkpoint_numbers(directory)):
        try:
            found = load_checkpoint(checkpoint_path(directory, number), mapped)
        except DamagedCheckpoint as error:
            damaged.append(error)
            continue
        found.damaged = damaged
        return found
    if damaged:
        raise damaged[0]
    return None


def drop_checkpoints_before(directory: Path, number: int) -> int:
    """Removes checkpoints of lower numbers; returns how many."""
    doomed = [one for one in checkpoint_numbers(directory) if one < number]
    try:
        for one in doomed:
            checkpoint_path(directory, one).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("remove", directory, error) from error
    return len(doomed)


def _header(path: Path, data: NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    """The parsed header and where the parts start."""
    if len(data) < _PREFIX.size:
        raise DamagedCheckpoint(str(path), "too short")
    magic, version, length, checksum = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise DamagedCheckpoint(str(path), "not a checkpoint")
    if version != VERSION:
        raise DamagedCheckpoint(str(path), f"format version {version}, expected {VERSION}")
    end = _PREFIX.size + length
    if length > _HEADER_BYTES_MAX or end > len(data):
        raise DamagedCheckpoint(str(path), "incomplete header")
    raw = data[_PREFIX.size : end].tobytes()
    if crc32c(raw) != checksum:
        raise DamagedCheckpoint(str(path), "checksum mismatch in the header")
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpoint(str(path), f"header: {error}") from None
    if not isinstance(header, dict):
        raise DamagedCheckpoint(str(path), "header is no object")
    return header, end + -end % _ALIGNMENT


def _part(path: Path, row: dict[str, Any], data: NDArray[np.uint8], start: int) -> Any:
    name, kind, shape, size = row["name"], row["type"], tuple(row["shape"]), row["bytes"]
    at = start + row["offset"]
    if kind not in _TYPES or at < start or size < 0 or at % _ALIGNMENT or any(extent < 0 for extent in shape):
        raise DamagedCheckpoint(str(path), f"part {name}: impossible description")
    dtype = np.dtype(np.uint8 if kind == "bytes" else kind)
    if math.prod(shape) * dtype.itemsize != size:
        raise DamagedCheckpoint(str(path), f"part {name}: {size} bytes for {kind} {shape}")
    if size and at + size > len(data):
        raise DamagedCheckpoint(str(path), f"part {name} is cut off")
    raw = data[at : at + size] if size else np.empty(0, np.uint8)
    if size and crc32c(raw) != row["crc"]:
        raise DamagedCheckpoint(str(path), f"checksum mismatch in part {name}")
    return raw.tobytes() if kind == "bytes" else raw.view(dtype).reshape(shape)
