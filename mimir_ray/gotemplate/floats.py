"""Floats as Go writes them. Upstream: strconv/ftoa.go, fmt/format.go fmtFloat."""

from __future__ import annotations

import math
import re

_DECIMAL = re.compile(
    r"[+-]?(?:\d+(?:_?\d)*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\Z|[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?\d+\Z"
)
_WORDS = frozenset({"inf", "infinity", "nan"})


def format_float(value: float, form: str, precision: int = -1) -> str:
    """`strconv.FormatFloat(value, form, precision, 64)` for the forms e E f F g G; precision -1: shortest exact."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if precision >= 0:
        # C and Go agree on digits; C writes at least two digits of an exponent too.
        return f"%.{max(precision, 1) if form in 'gG' else precision}{form}" % value
    digits, point, sign = _shortest(value)
    if form in "fF":
        return sign + _fixed(digits, point)
    exponent = point - 1
    if form in "gG" and -4 <= exponent < 6:
        return sign + _fixed(digits, point)
    mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
    letter = "E" if form in "EG" else "e"
    return f"{sign}{mantissa}{letter}{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def parse_float(text: str) -> float | None:
    """`strconv.ParseFloat`, None where it fails on syntax; too large is infinite."""
    if _DECIMAL.match(text) and "_" not in text:
        return float.fromhex(text) if "x" in text.lower() else float(text)
    bare = text[1:] if text[:1] in ("+", "-") else text
    if bare.lower() not in _WORDS or (bare.lower() == "nan" and bare != text):
        return None
    return float(text)


def _shortest(value: float) -> tuple[str, int, str]:
    """(digits without zeros at the ends, where the decimal point stands in them, sign)."""
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if value == 0:
        return "0", 1, sign
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    point = len(whole) + int(exponent or 0)
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    return stripped.rstrip("0"), point, sign


def _fixed(digits: str, point: int) -> str:
    if point <= 0:
        return f"0.{'0' * -point}{digits}" if digits != "0" else "0"
    if len(digits) <= point:
        return digits + "0" * (point - len(digits))
    return f"{digits[:point]}.{digits[point:]}"
