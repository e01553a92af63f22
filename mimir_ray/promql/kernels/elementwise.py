"""Functions of one value that numpy has not, or not with Go's results.

Go's natural logarithm is fdlibm's; base 2 derives from it, and base 10 from base 2.
Go's Max and Min let an infinity win over NaN and tell the zeros apart.
"""

from __future__ import annotations

import math

import numpy as np

from mimir_ray.kernel import F64, Bool2, F64x2, OutBool2, OutF64x2, device, kernel

NATURAL, BASE_2, BASE_10 = range(3)

_HALF_SQRT_2 = math.sqrt(2.0) / 2.0
_ONE_BY_LN_2 = 1.4426950408889634
_LN_2_BY_LN_10 = 0.30102999566398119521
# ln 2 in two parts and the polynomial: fdlibm, e_log.c.
_LN_2_HIGH = 6.93147180369123816490e-01
_LN_2_LOW = 1.90821492927058770002e-10
_L1 = 6.666666666666735130e-01
_L2 = 3.999999999940941908e-01
_L3 = 2.857142874366239149e-01
_L4 = 2.222219843214978396e-01
_L5 = 1.818357216161805012e-01
_L6 = 1.531383769920937332e-01
_L7 = 1.479819860511658591e-01


@device
def natural_logarithm(value):  # type: ignore[no-untyped-def]
    if np.isnan(value) or value == np.inf:
        return value
    if value < 0.0:
        return np.nan
    if value == 0.0:
        return -np.inf
    fraction, exponent = math.frexp(value)
    if fraction < _HALF_SQRT_2:
        fraction *= 2.0
        exponent -= 1
    f = fraction - 1.0
    k = float(exponent)
    s = f / (2.0 + f)
    s2 = s * s
    s4 = s2 * s2
    t1 = s2 * (_L1 + s4 * (_L3 + s4 * (_L5 + s4 * _L7)))
    t2 = s4 * (_L2 + s4 * (_L4 + s4 * _L6))
    half_square = 0.5 * f * f
    return k * _LN_2_HIGH - ((half_square - (s * (half_square + (t1 + t2)) + k * _LN_2_LOW)) - f)


@device
def binary_logarithm(value):  # type: ignore[no-untyped-def]
    if value <= 0.0 or np.isnan(value) or value == np.inf:
        return natural_logarithm(value)
    fraction, exponent = math.frexp(value)
    if fraction == 0.5:  # exact for powers of two
        return float(exponent - 1)
    return natural_logarithm(fraction) * _ONE_BY_LN_2 + float(exponent)


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
