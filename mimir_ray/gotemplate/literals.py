"""Go's string and character literals. Upstream: strconv.Unquote, UnquoteChar."""

from __future__ import annotations

import re

_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))|([^\\])", re.DOTALL
)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34}


class BadLiteral(Exception):
    """Not a literal of Go."""


def unquote(literal: str) -> str:
    """The text of a quoted or raw string. Raises `BadLiteral`."""
    if literal.startswith("`"):
        return literal[1:-1].replace("\r", "")
    out = bytearray()
    body = literal[1:-1]
    at = 0
    while at < len(body):
        code, is_byte, at = _char(body, at, '"')
        out += bytes([code]) if is_byte else chr(code).encode("utf-8", "surrogatepass")
    return out.decode("utf-8", "surrogateescape")


def unquote_rune(literal: str) -> int:
    """The code point of a character constant. Raises `BadLiteral`."""
    body = literal[1:-1]
    code, _, at = _char(body, 0, "'")
    if at != len(body):
        raise BadLiteral(literal)
    return code


def _char(body: str, at: int, mark: str) -> tuple[int, bool, int]:
    """(code, whether it is one byte and no character, where it ends)."""
    found = _ESCAPE.match(body, at)
    if found is None:
        raise BadLiteral(body)
    simple, hexadecimal, octal, short, long, plain = found.groups()
    if plain is not None:
        if plain in (mark, "\n"):
            raise BadLiteral(body)
        return ord(plain), False, found.end()
    if simple is not None:
        if simple in "'\"" and simple != mark:
            raise BadLiteral(body)
        return _SIMPLE[simple], False, found.end()
    if hexadecimal is not None or octal is not None:
        code = int(hexadecimal, 16) if hexadecimal is not None else int(octal, 8)
        if code > 255:
            raise BadLiteral(body)
        return code, code >= 0x80, found.end()
    code = int(short or long, 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise BadLiteral(body)
    return code, False, found.end()
