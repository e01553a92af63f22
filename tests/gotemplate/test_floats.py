from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.gotemplate.floats import format_float, parse_float


@given(st.floats(allow_nan=False), st.sampled_from("eEfgG"))
def test_the_shortest_form_reads_back_as_the_same_number(value: float, form: str) -> None:
    read = parse_float(format_float(value, form))
    assert read == value
    assert math.copysign(1, read) == math.copysign(1, value)


@pytest.mark.parametrize(
    ("value", "form", "precision", "text"),
    [
        (1.0, "E", -1, "1E+00"),
        (0.0, "E", -1, "0E+00"),
        (-0.0, "g", -1, "-0"),
        (1e6, "g", -1, "1e+06"),
        (999999.0, "g", -1, "999999"),
        (1e-5, "g", -1, "1e-05"),
        (123.456, "f", -1, "123.456"),
        (1e21, "f", -1, "1000000000000000000000"),
        (5e-324, "E", -1, "5E-324"),
        (1234567.0, "g", 4, "1.235e+06"),
        (0.5, "f", 0, "0"),
        (2.0, "g", 0, "2"),
        (math.inf, "f", 2, "+Inf"),
        (-math.inf, "g", -1, "-Inf"),
        (math.nan, "g", -1, "NaN"),
    ],
)
def test_known_forms(value: float, form: str, precision: int, text: str) -> None:
    assert format_float(value, form, precision) == text


@pytest.mark.parametrize("text", ["", "x", "1e", "0x10", ".", "+-1", "1 ", "+nan", "1__0"])
def test_what_is_no_float(text: str) -> None:
    assert parse_float(text) is None
