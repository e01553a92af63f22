"""UTF-8 for kernels: whether bytes are text."""

from __future__ import annotations

from typing import Any

import numpy as np

from mimir_ray.encoding.bits import load64_le
from mimir_ray.kernel import device


@device
def is_ascii(data: Any, start: Any, end: Any) -> Any:
    """Whether no byte of data[start:end] is 0x80 or more."""
    found = np.uint64(0)
    at = start
    while end - at >= 8:
        found |= load64_le(data, at)
        at += 8
    while at < end:
        found |= np.uint64(data[at])
        at += 1
    return found & np.uint64(0x8080808080808080) == 0


@device
def is_utf8(data: Any, start: Any, end: Any) -> Any:
    """Whether data[start:end] is UTF-8 (RFC 3629, section 4)."""
    if is_ascii(data, start, end):
        return True
    at = start
    while at < end:
        byte = data[at]
        at += 1
        if byte < 0x80:
            continue
        low, high = np.uint8(0x80), np.uint8(0xBF)
        if 0xC2 <= byte <= 0xDF:
            more = 1
        elif 0xE0 <= byte <= 0xEF:
            more = 2
            if byte == 0xE0:
                low = np.uint8(0xA0)
            elif byte == 0xED:
                high = np.uint8(0x9F)
        elif 0xF0 <= byte <= 0xF4:
            more = 3
            if byte == 0xF0:
                low = np.uint8(0x90)
            elif byte == 0xF4:
                high = np.uint8(0x8F)
        else:
            return False
        if end - at < more or data[at] < low or data[at] > high:
            return False
        for place in range(at + 1, at + more):
            if data[place] < 0x80 or data[place] > 0xBF:
                return False
        at += more
    return True
