"""CRC-32C inside kernels: for formats with a checksum a record, where a call a record would cost more than the sum.

Eight table look-ups take eight bytes (slicing by eight). Whole files: checksum.py, which is faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import device

from .bits import load64_le

_POLYNOMIAL = 0x82F63B78


def _tables() -> NDArray[np.uint32]:
    """uint32[8 * 256]: row k is the effect of a byte that k more bytes follow."""
    rows = np.empty((8, 256), np.uint32)
    row = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = np.where(row & 1, (row >> 1) ^ np.uint32(_POLYNOMIAL), row >> 1).astype(np.uint32)
    rows[0] = row
    for k in range(1, 8):
        rows[k] = (rows[k - 1] >> 8) ^ rows[0][rows[k - 1] & 0xFF]
    return rows.ravel()


_TABLES = _tables()
_BYTE = 0xFF


@device
def crc32c_between(data: Any, start: Any, end: Any) -> Any:
    """Of data[start:end], which the caller knows to be inside the array; as uint64."""
    state = np.uint64(0xFFFFFFFF)
    at = start
    while end - at >= 8:
        word = load64_le(data, at) ^ state
        state = np.uint64(
            _TABLES[1792 + np.int64(word & np.uint64(_BYTE))]
            ^ _TABLES[1536 + np.int64(word >> np.uint64(8) & np.uint64(_BYTE))]
            ^ _TABLES[1280 + np.int64(word >> np.uint64(16) & np.uint64(_BYTE))]
            ^ _TABLES[1024 + np.int64(word >> np.uint64(24) & np.uint64(_BYTE))]
            ^ _TABLES[768 + np.int64(word >> np.uint64(32) & np.uint64(_BYTE))]
            ^ _TABLES[512 + np.int64(word >> np.uint64(40) & np.uint64(_BYTE))]
            ^ _TABLES[256 + np.int64(word >> np.uint64(48) & np.uint64(_BYTE))]
            ^ _TABLES[np.int64(word >> np.uint64(56))]
        )
        at += 8
    while at < end:
        state = np.uint64(_TABLES[np.int64((state ^ np.uint64(data[at])) & np.uint64(_BYTE))]) ^ (state >> np.uint64(8))
        at += 1
    return state ^ np.uint64(0xFFFFFFFF)


@device
def load32_be(data: Any, at: Any) -> Any:
    """uint64 of data[at:at + 4], big-endian."""
    return (
        np.uint64(data[at]) << np.uint64(24)
        | np.uint64(data[at + 1]) << np.uint64(16)
        | np.uint64(data[at + 2]) << np.uint64(8)
        | np.uint64(data[at + 3])
    )


@device
def store32_be(out: Any, at: Any, word: Any) -> Any:
    """out[at:at + 4] = the low half of a uint64, big-endian; returns the position after it."""
    out[at] = np.uint8(word >> np.uint64(24) & np.uint64(_BYTE))
    out[at + 1] = np.uint8(word >> np.uint64(16) & np.uint64(_BYTE))
    out[at + 2] = np.uint8(word >> np.uint64(8) & np.uint64(_BYTE))
    out[at + 3] = np.uint8(word & np.uint64(_BYTE))
    return at + 4
