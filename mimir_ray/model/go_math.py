"""Logarithms and powers of two with the last digits that Go gives them: bounds of histograms are compared by these.

After fdlibm (e_log.c, e_exp.c), as Go's math package is. `natural` is a part of kernels too
(promql/kernels/elementwise.py).
"""

from __future__ import annotations

import math

_HALF_SQRT_2 = math.sqrt(2.0) / 2.0
ONE_BY_LN_2 = 1.4426950408889634
# ln 2 in two parts, and the polynomials.
_LN_2_HIGH = 6.93147180369123816490e-01
_LN_2_LOW = 1.90821492927058770002e-10
_L1 = 6.666666666666735130e-01
_L2 = 3.999999999940941908e-01
_L3 = 2.857142874366239149e-01
_L4 = 2.222219843214978396e-01
_L5 = 1.818357216161805012e-01
_L6 = 1.531383769920937332e-01
_L7 = 1.479819860511658591e-01
_P1 = 1.66666666666666657415e-01
_P2 = -2.77777777770155933842e-03
_P3 = 6.61375632143793436117e-05
_P4 = -1.65339022054652515390e-06
_P5 = 4.13813679705723846039e-08


def log2(value: float) -> float:
    """Of a number that is not negative; exact for powers of two."""
    if value == 0 or math.isinf(value) or math.isnan(value):
        return natural(value)
    fraction, exponent = math.frexp(value)
    if fraction == 0.5:
        return float(exponent - 1)
    return natural(fraction) * ONE_BY_LN_2 + exponent


def natural(value: float) -> float:
    """The natural logarithm."""
    if math.isnan(value) or value == math.inf:
        return value
    if value < 0.0:
        return math.nan
    if value == 0.0:
        return -math.inf
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


def exp2(exponent: float) -> float:
    """2 to a power within a float's range, or NaN."""
    if math.isnan(exponent):
        return exponent
    whole = int(exponent + 0.5) if exponent > 0 else int(exponent - 0.5)
    t = exponent - whole
    high, low = t * _LN_2_HIGH, -t * _LN_2_LOW
    r = high - low
    square = r * r
    c = r - square * (_P1 + square * (_P2 + square * (_P3 + square * (_P4 + square * _P5))))
    return math.ldexp(1.0 - ((low - (r * c) / (2.0 - c)) - high), whole)
