"""What string and number tokens mean.

Upstream: util/strutil/quote.go Unquote; parser.number, which asks Go's strconv.
"""

from __future__ import annotations

import math
import re

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.matchers import quote

_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_SIMPLE = {"a": b"\a", "b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r", "t": b"\t", "v": b"\v"}
_UNDERSCORES = re.compile(r"(?:0[xX])?_?[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*\Z")
_DECIMAL = re.compile(r"[0-9]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?\Z")
_INT64_MAX = (1 << 63) - 1


def unquote(token: str) -> str:
    """The text of a quoted string. Bytes that are no UTF-8 (`"\\xff"`) become lone surrogates: see `is_utf8`."""
    body = token[1:-1]
    if token[0] == "`" or "\\" not in body:
        return body
    out = bytearray()
    at = 0
    for found in _ESCAPE.finditer(body):
        out += body[at : found.start()].encode()
        at = found.end()
        byte, short, long, octal, simple = found.groups()
        if byte or octal:
            out.append(int(byte, 16) if byte else int(octal, 8) & 0xFF)
        elif short or long:
            out += chr(int(short or long, 16)).encode("utf-8", "replace")
        else:
            out += _SIMPLE.get(simple) or simple.encode()
    return (bytes(out) + body[at:].encode()).decode("utf-8", "surrogateescape")


def parse_number(token: str) -> float:
    """A number token's value; `0x1f`, `017`, `1_000`, `1.5e3`, `Inf`, `NaN`.

    Raises `InvalidArgument` with Go's text where it is none or too large for a double.
    """
    if token.isdigit() and (token[0] != "0" or len(token) == 1):
        value = int(token)
        return float(value) if value <= _INT64_MAX else _parse_float(token)
    lower = token.lower()
    if lower in ("inf", "nan"):
        return float(lower)
    digits = lower.replace("_", "")
    if "_" not in lower or _UNDERSCORES.match(lower):
        if digits.startswith("0x") and len(digits) > 2:
            whole = int(digits, 16) if re.fullmatch("[0-9a-f]+", digits[2:]) else None
            if whole is not None and whole <= _INT64_MAX:
                return float(whole)
        elif re.fullmatch("0[0-7]+", digits) and int(digits, 8) <= _INT64_MAX:
            return float(int(digits, 8))
    return _parse_float(token)


def _parse_float(token: str) -> float:
    text = token
    if "_" in token:
        # An underscore stands between digits only. Upstream: strconv underscoreOK.
        text = token.replace("_", "") if not re.search(r"(?:^|[^0-9])_|_(?:[^0-9]|$)", token) else "?"
    if not _DECIMAL.match(text) or not re.search("[0-9]", text.lower().partition("e")[0]):
        raise InvalidArgument(f"strconv.ParseFloat: parsing {quote(token)}: invalid syntax")
    value = float(text)
    if math.isinf(value):
        raise InvalidArgument(f"strconv.ParseFloat: parsing {quote(token)}: value out of range")
    return value
