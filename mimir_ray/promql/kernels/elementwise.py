"""Functions of one value that numpy has not, or not with Go's results.

Go's natural logarithm is fdlibm's; base 2 derives from it, and base 10 from base 2.
Go's Max and Min let an infinity win over NaN and tell the zeros apart.
"""

from __future__ import annotations

import math

import numpy as np

from mimir_ray.kernel import F64, Bool2, F64x2, OutBool2, OutF64x2, device, kernel
from mimir_ray.model.go_math import ONE_BY_LN_2, natural

NATURAL, BASE_2, BASE_10 = range(3)

_LN_2_BY_LN_10 = 0.30102999566398119521

natural_logarithm = device(natural)


@device
def binary_logarithm(value):  # type: ignore[no-untyped-def]
    if value <= 0.0 or np.isnan(value) or value == np.inf:
        return natural_logarithm(value)
    fraction, exponent = math.frexp(value)
    if fraction == 0.5:  # exact for powers of two
        return float(exponent - 1)
    return natural_logarithm(fraction) * ONE_BY_LN_2 + float(exponent)


@kernel
def logarithm(values: F64x2, base: int, out: OutF64x2) -> None:
    """Of [S, T] values to one of the bases above. Upstream: Go's math.Log, Log2, Log10."""
    for s in range(values.shape[0]):
        for t in range(values.shape[1]):
            if base == NATURAL:
                out[s, t] = natural_logarithm(values[s, t])
            elif base == BASE_2:
                out[s, t] = binary_logarithm(values[s, t])
            else:
                out[s, t] = binary_logarithm(values[s, t]) * _LN_2_BY_LN_10


@device
def go_max(x, y):  # type: ignore[no-untyped-def]
    if x == np.inf or y == np.inf:
        return np.inf
    if np.isnan(x) or np.isnan(y):
        return np.nan
    if x == 0.0 and y == 0.0:
        return y if math.copysign(1.0, x) < 0.0 else x
    return x if x > y else y


@device
def go_min(x, y):  # type: ignore[no-untyped-def]
    if x == -np.inf or y == -np.inf:
        return -np.inf
    if np.isnan(x) or np.isnan(y):
        return np.nan
    if x == 0.0 and y == 0.0:
        return x if math.copysign(1.0, x) < 0.0 else y
    return x if x < y else y


@kernel
def clamp(values: F64x2, present: Bool2, low: F64, high: F64, out: OutF64x2, out_present: OutBool2) -> None:
    """max(low[t], min(high[t], value)); nothing at steps where the bounds are crossed.

    Upstream: promql/functions.go clamp.
    """
    for s in range(values.shape[0]):
        for t in range(values.shape[1]):
            out[s, t] = go_max(low[t], go_min(high[t], values[s, t]))
            out_present[s, t] = present[s, t] and not high[t] < low[t]


@kernel
def extreme_of_two(left: F64x2, right: F64x2, wants_max: bool, out: OutF64x2) -> None:
    """The larger or smaller of two, with Go's rules; all of one shape."""
    for s in range(left.shape[0]):
        for t in range(left.shape[1]):
            x = left[s, t]
            y = right[s, t]
            out[s, t] = go_max(x, y) if wants_max else go_min(x, y)
