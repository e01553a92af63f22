"""Files of a block as read-only arrays."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mimir_ray.tsdb.append_file import storage_error


def map_file(path: Path | str) -> NDArray[np.uint8]:
    """uint8, read-only; stays valid as long as somebody holds it, whatever happens to the name.

    Raises `StorageFailed`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if not size:
                return np.empty(0, np.uint8)
            return np.frombuffer(mmap.mmap(descriptor, size, prot=mmap.PROT_READ), np.uint8)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error("map", path, error) from error
