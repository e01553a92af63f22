"""Attribute values as text, as Go prints them."""

from __future__ import annotations

from typing import Any

import pytest

from mimir_ray.wire.otlp.values import as_text, plain_float


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("x", "x"),
        (True, "true"),
        (-5, "-5"),
        (1.0, "1"),
        (0.5, "0.5"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1e-7, "1e-7"),
        (1.5e-9, "1.5e-9"),
        (1e-6, "0.000001"),
        (float("nan"), "NaN"),
        (b"\x00\xff", "AP8="),
        (["a", 1, {"b": None}], '["a",1,{"b":null}]'),
        ({"b": 1, "a": "<"}, '{"a":"<","b":1}'),
    ],
)
def test_values_are_text(value: Any, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.005, "0.005"), (10.0, "10"), (1e-9, "0.000000001"), (1e22, "1" + "0" * 22), (float("inf"), "+Inf")],
)
def test_bounds_have_no_exponent(value: float, text: str) -> None:
    assert plain_float(value) == text
