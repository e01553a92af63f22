"""Bytewise order of many byte strings: of symbols, and of label sets written as big-endian pair ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import load64_be
from mimir_ray.kernel import I64, U8, OutBool, OutI64, device, kernel


@device
def _after(arena: Any, cuts: Any, left: Any, right: Any) -> Any:
    """Whether string `left` comes after `right`."""
    a, a_end = cuts[left], cuts[left + 1]
    b, b_end = cuts[right], cuts[right + 1]
    while a_end - a >= 8 and b_end - b >= 8:
        one, other = load64_be(arena, a), load64_be(arena, b)
        if one != other:
            return one > other
        a += 8
        b += 8
    while a < a_end and b < b_end:
        if arena[a] != arena[b]:
            return arena[a] > arena[b]
        a += 1
        b += 1
    return a_end - a > b_end - b


@kernel
def merge_sort(arena: U8, cuts: I64, order: OutI64, scratch: OutI64) -> None:
    """Sorts `order` (numbers of strings) stably; runs in order already are recognised. O(N log N) comparisons."""
    count = len(order)
    width = 1
    while width < count:
        for start in range(0, count - width, 2 * width):
            middle = start + width
            end = min(middle + width, count)
            if not _after(arena, cuts, order[middle - 1], order[middle]):
                continue
            for at in range(start, middle):
                scratch[at] = order[at]
            left = start
            right = middle
            write = start
            while left < middle and right < end:
                if _after(arena, cuts, scratch[left], order[right]):
                    order[write] = order[right]
                    right += 1
                else:
                    order[write] = scratch[left]
                    left += 1
                write += 1
            while left < middle:
                order[write] = scratch[left]
                left += 1
                write += 1
        width *= 2


@kernel
def differs_from_previous(arena: U8, cuts: I64, order: I64, out: OutBool) -> None:
    """out[i]: whether string order[i] is not the same as string order[i - 1]; strings arena[cuts[k]:cuts[k + 1]]."""
    for i in range(len(order)):
        size = cuts[order[i] + 1] - cuts[order[i]]
        different = i == 0
        if i > 0:
            one, other = cuts[order[i]], cuts[order[i - 1]]
            different = cuts[order[i - 1] + 1] - other != size
            if not different:
                for k in range(size):
                    if arena[one + k] != arena[other + k]:
                        different = True
                        break
        out[i] = different


def bytewise_order(arena: NDArray[np.uint8], cuts: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[N]: the strings arena[cuts[i]:cuts[i + 1]] from first to last, stable."""
    order = np.arange(len(cuts) - 1, dtype=np.int64)
    merge_sort(arena, cuts, order, np.empty(len(order), np.int64))
    return order
