"""Logarithms and powers of two as Go has them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.go_math import exp2, log2


@given(st.floats(1e-300, 1e300))
def test_they_are_those_of_mathematics_but_for_the_last_digit(value: float) -> None:
    assert log2(value) == pytest.approx(math.log2(value), rel=1e-15, abs=1e-15)
    assert exp2(log2(value)) == pytest.approx(value, rel=1e-12)


@given(st.integers(-1000, 1000))
def test_powers_of_two_are_exact(exponent: int) -> None:
    assert log2(math.ldexp(1.0, exponent)) == exponent
    assert exp2(float(exponent)) == math.ldexp(1.0, exponent)


def test_the_edges() -> None:
    assert log2(0.0) == -math.inf
    assert log2(math.inf) == math.inf
    assert math.isnan(log2(math.nan))
    assert math.isnan(exp2(math.nan))


def test_the_last_digit_is_gos() -> None:
    assert exp2(1.5) == 2.82842712474619  # the C library says 2.8284271247461903
    assert log2(2.82842712474619) == 1.5
