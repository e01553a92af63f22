"""The bytes of a write-ahead log: a folder of segments `00000000`, `00000001`, … full of records.

A record is `[payload length u32][CRC-32C u32][type u8][payload]`, little-endian; the checksum covers
length, type and payload. No record spans two segments. Bytes that were cut off as damaged are kept beside
their segment as `<segment>-<offset>.corrupt`, whole segments behind damage as `<segment>.corrupt`.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

from mimir_ray.encoding.checksum import crc32c, crc32c_of_pieces

HEADER = struct.Struct("<IIB")
_CHECKED = struct.Struct("<IB")

SEGMENT_BYTES = 128 << 20
PAYLOAD_BYTES_MAX = (1 << 32) - 1

_SEGMENT = re.compile(r"\d{8}\Z")
_ASIDE = re.compile(r"(\d{8})(-\d+)?\.corrupt\Z")


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08d}"


def segment_numbers(directory: Path) -> list[int]:
    """Of all segments, ascending; [] where there is no folder."""
    if not directory.exists():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if _SEGMENT.match(path.name))


def set_aside_paths(directory: Path) -> list[tuple[int, Path]]:
    """(segment, path) of everything that repairs have set aside."""
    found = ((path, _ASIDE.match(path.name)) for path in directory.iterdir())
    return sorted((int(match.group(1)), path) for path, match in found if match)


def record_header(kind: int, pieces: list[Any], length: int) -> bytes:
    """The header of the record whose payload are these buffers, `length` bytes in all."""
    checksum = crc32c_of_pieces(pieces, crc32c(_CHECKED.pack(length, kind)))
    return HEADER.pack(length, checksum, kind)


def is_intact(length: int, checksum: int, kind: int, payload: bytes) -> bool:
    """Whether header fields and payload belong together."""
    return crc32c(payload, crc32c(_CHECKED.pack(length, kind))) == checksum
