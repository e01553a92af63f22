"""The error of every query that is not PromQL, and how Go writes what it quotes.

`str(error)` is exactly Prometheus' text, because clients show it and some search in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.matchers import quote

from .ast import NOWHERE, Span


@dataclass(eq=False)
class ParseError(InvalidArgument):
    """A query that cannot be parsed, or is not well typed.

    `span` is in bytes of the query in UTF-8, its start may lie at the end of the query.
    Upstream: promql/parser/parse.go ParseErr; of several errors only the first is told.
    """

    reason: str
    span: Span = NOWHERE
    query: str = ""

    def describe(self) -> str:
        return f"{position(self.query, self.span.start)}: parse error: {self.reason}"


def position(query: str, start: int) -> str:
    """`line:column`, both from 1, the column in bytes. Upstream: posrange.PositionRange.StartPosInput."""
    if not query:
        return "unknown position"
    data = query.encode("utf-8", "surrogateescape")
    if not 0 <= start <= len(data):
        return "invalid position"
    before = data[:start]
    return f"{before.count(10) + 1}:{start - before.rfind(10)}"


def quote_rune(char: str) -> str:
    """A character as Go's `%q` writes a rune; the empty string stands for the end of the input."""
    if not char:
        return "'\ufffd'"
    if char == "'":
        return "'\\''"
    if char == '"':
        return "'\"'"
    return f"'{quote(char)[1:-1]}'"


def describe_rune(char: str) -> str:
    """A character as Go's `%#U` writes a rune: `U+0041 'A'`."""
    shown = f" '{char}'" if char.isprintable() else ""
    return f"U+{ord(char):04X}{shown}"


def quote_start(text: str, length: int = 10) -> str:
    """A string as Go's `%.10q` writes it: its first characters, quoted."""
    return quote(text[:length])
