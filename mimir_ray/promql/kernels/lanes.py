"""Many windows side by side, for functions that must walk over every sample of every window.

Such a function (a compensated sum, Welford's variance) is a chain of operations that wait for each other,
but windows do not wait for each other. `LANES` windows, of one series or several, take their k-th sample
together, so that the arithmetic becomes vector code: about five times as fast, with the same result bit by bit.

A kernel fills lanes with windows, one (series, step) each, and works them off when all are full.
"""

from __future__ import annotations

import numpy as np

from mimir_ray.kernel import device

LANES = 32
FLOAT_MAX = np.finfo(np.float64).max


@device
def longest_lane(size, filled):  # type: ignore[no-untyped-def]
    """The largest of the first `filled` sizes; the other lanes become empty."""
    longest = 0
    for j in range(filled):
        longest = max(longest, size[j])
    for j in range(filled, LANES):
        size[j] = 0
    return longest


@device
def gather_lanes(values, first, size, k, out):  # type: ignore[no-untyped-def]
    """The k-th value of each window, 0 where the window has no more."""
    for j in range(LANES):
        out[j] = values[first[j] + k] if k < size[j] else 0.0


@device
def add_term(value, total, rest):  # type: ignore[no-untyped-def]
    """`add_compensated` without branches."""
    new = total + value
    is_larger = abs(total) >= abs(value)
    larger = total if is_larger else value
    smaller = value if is_larger else total
    return new, 0.0 if abs(new) > FLOAT_MAX else rest + ((larger - new) + smaller)


@device
def add_lanes(terms, totals, rests):  # type: ignore[no-untyped-def]
    """Adds one term to each compensated sum. A term of 0 changes nothing, so empty lanes need no care."""
    for j in range(LANES):
        totals[j], rests[j] = add_term(terms[j], totals[j], rests[j])
