"""Files of a block as read-only arrays."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.tsdb.append_file import storage_error

_LIBC = ctypes.CDLL(None, use_errno=True)
_MMAP = _LIBC.mmap
_MMAP.restype = ctypes.c_void_p
_MMAP.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64
)  # fmt: skip
_MUNMAP = _LIBC.munmap
_MUNMAP.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


class _Mapping:
    """Memory that shows a file, as numpy takes it; given back when the last array over it is gone.

    Python's own `mmap` keeps a file descriptor open for each, and a process may have a thousand of them: fewer than a
    store-gateway has blocks.
    """

    __slots__ = ("__array_interface__", "_address", "_size")

    def __init__(self, descriptor: int, size: int) -> None:
        """Raises OSError."""
        address = _MMAP(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address is None or address == _FAILED:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        self._address, self._size = address, size
        self.__array_interface__: dict[str, Any] = {
            "version": 3, "typestr": "|u1", "shape": (size,), "data": (address, True)
        }  # fmt: skip

    def __del__(self, unmap: Callable[[int, int], int] = _MUNMAP) -> None:
        if hasattr(self, "_address"):
            unmap(self._address, self._size)


def map_file(path: Path | str) -> NDArray[np.uint8]:
    """uint8, read-only; stays valid as long as somebody holds it, whatever happens to the name.

    Raises `StorageFailed`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            return np.asarray(_Mapping(descriptor, size)) if size else np.empty(0, np.uint8)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error("map", path, error) from error
