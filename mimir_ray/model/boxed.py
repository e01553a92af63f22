"""Histograms among floats: a number in a NaN.

On the write path and in chunks a sample is a float64. One that is a histogram is a NaN whose top 16 bits are
`0x7FF9` (quiet, and none of those that Prometheus gives a meaning) and whose other 48 are the number of a histogram
kept beside the floats: a row of `WriteBatch.histograms` on the way, a number of the head's histogram store after that.
So samples of both kinds are ordered, checked, logged, packed and merged by the same code. NaNs of this form that
a sender means as floats become plain NaN (`without_boxes`) before they could be taken for numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import U64, kernel

from .series import NORMAL_NAN_BITS

_TAG = np.uint64(0x7FF9)
_SHIFT = np.uint64(48)
_NUMBER = np.uint64((1 << 48) - 1)


def box(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers, 0 <= each < 2^48, as floats."""
    return (numbers.astype(np.uint64) | (_TAG << _SHIFT)).view(np.float64)


def is_boxed(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values stand for histograms."""
    return (values.view(np.uint64) >> _SHIFT) == _TAG


@kernel
def count_boxed(bits: U64) -> int:
    """How many values, given as their bits, stand for histograms; one pass at the speed of memory."""
    tag = np.uint64(0x7FF9)
    shift = np.uint64(48)
    count = 0
    for i in range(len(bits)):
        count += (bits[i] >> shift) == tag
    return count


def unbox(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The numbers in values that are boxed."""
    return (values.view(np.uint64) & _NUMBER).astype(np.int64)


def without_boxes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values with plain NaNs for those that only look like numbers; itself where there are none."""
    if not count_boxed(values.view(np.uint64)):
        return values
    bits = values.view(np.uint64).copy()
    bits[is_boxed(values)] = NORMAL_NAN_BITS
    return bits.view(np.float64)
