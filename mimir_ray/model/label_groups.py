"""Equal label sets among many rows of codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def equal_rows(codes: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Rows in a stable order that puts equal ones side by side, and where each group begins: int64[G + 1]."""
    rows = np.ascontiguousarray(codes)
    if rows.shape[1] == 0:
        return np.arange(len(rows)), np.array([0, len(rows)], np.int64)
    keys = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    order = np.argsort(keys, kind="stable")
    changed = np.nonzero((rows[order[1:]] != rows[order[:-1]]).any(axis=1))[0] + 1
    return order, np.concatenate(([0], changed, [len(rows)])).astype(np.int64)
