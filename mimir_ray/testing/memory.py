"""Memory whose neighbour must not be touched: looking past its end kills the process."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)


def at_the_edge(data: bytes) -> np.ndarray:
    """uint8 array of the data, directly in front of a page that nobody may read."""
    page = mmap.PAGESIZE
    readable = -(-max(len(data), 1) // page) * page
    mapped = mmap.mmap(-1, readable + page)
    array = np.frombuffer(mapped, np.uint8)
    address = ctypes.c_void_p(array.ctypes.data + readable)
    assert _libc.mprotect(address, ctypes.c_size_t(page), 0) == 0
    mapped[readable - len(data) : readable] = data
    return array[readable - len(data) : readable]
