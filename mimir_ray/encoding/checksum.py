"""CRC-32C (Castagnoli), the checksum of every file format here and in Prometheus' blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import google_crc32c
import numpy as np

Buffer = Any
"""bytes, memoryview, or a C-contiguous numpy array of any type: its memory is read in place."""


def crc32c(data: Buffer, state: int = 0) -> int:
    """Of the bytes of `data`, going on from `state` (the checksum of what comes before)."""
    # The library takes bytes and arrays as they are, but no memoryviews and bytearrays.
    direct = isinstance(data, bytes | np.ndarray)
    return int(google_crc32c.extend(state, data if direct else np.frombuffer(data, np.uint8)))


def crc32c_of_pieces(pieces: Iterable[Buffer], state: int = 0) -> int:
    """Of the pieces' bytes, one after the other."""
    for piece in pieces:
        state = crc32c(piece, state)
    return state
