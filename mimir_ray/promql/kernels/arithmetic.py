"""Arithmetic and comparison of binary operators on float arrays. NumPy's own loops are the kernels here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARITHMETIC: dict[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
}
COMPARISON: dict[str, Callable[..., Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def binary_values(op: str, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """`left op right` of two scalars' arrays; comparisons give 0 or 1. Upstream: promql/engine.go scalarBinop."""
    with np.errstate(all="ignore"):
        if op in ARITHMETIC:
            return ARITHMETIC[op](left, right)  # type: ignore[no-any-return]
        return COMPARISON[op](left, right).astype(np.float64)  # type: ignore[no-any-return]
