"""The parser's hold on its tokens: where it stands, what it may name, how it complains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.durations import parse_duration
from mimir_ray.model.matchers import quote

from .ast import NumberLiteral, Span
from .errors import ParseError, quote_start
from .lexer import (
    DURATION,
    EOF,
    ERROR,
    IDENTIFIER,
    METRIC_IDENTIFIER,
    MODIFIERS,
    NUMBER,
    PREPROCESSORS,
    STRING,
    WORD_OPERATORS,
    tokenize,
)
from .literals import parse_number
from .signatures import AGGREGATORS

MAX_NESTING = 150
"""Parentheses, calls and signs around each other. Everything that reads trees recurses, as does the parser."""
MAX_LEVELS = 250
"""Levels of a tree; chains of operators without parentheses are nested trees, too."""

_NEVER_NAMES = frozenset({"atan2", "bool", "group_left", "group_right", "ignoring", "on"})
_KEYWORDS = AGGREGATORS | MODIFIERS | PREPROCESSORS | WORD_OPERATORS
METRIC_NAMES = (_KEYWORDS - _NEVER_NAMES) | {IDENTIFIER, METRIC_IDENTIFIER}
"""Tokens that are a metric's name where one may stand."""
LABEL_NAMES = (_KEYWORDS - {"without"}) | {IDENTIFIER, METRIC_IDENTIFIER}
"""Tokens that are a label's name in a list of labels; upstream's grammar forgets `without`."""
_SYMBOL_OPERATORS = frozenset(
    ("+", "/", "==", "=~", ">=", ">", "</", ">/", "<", "<=", "%", "*", "!=", "!~", "^", "-", "@")
)

Context = tuple[str, str]
"""Of an unexpected token: what it stands in, what was expected; either may be empty."""

NO_CONTEXT: Context = ("", "")


@dataclass(frozen=True, slots=True)
class ParserOptions:
    """Which experimental syntax is accepted. Upstream: parser.Options."""

    experimental_functions: bool = True
    duration_expressions: bool = True
    extended_range_selectors: bool = True
    binop_fill_modifiers: bool = True


EVERYTHING = ParserOptions()


class Cursor:
    """Reads tokens from left to right. Each method leaves `at` on the first token that it does not take."""

    def __init__(self, text: str, options: ParserOptions) -> None:
        self.text = text
        self.options = options
        self.kinds, self.values, self.starts, self.ends = tokenize(text)
        self.at = 0
        self.context = NO_CONTEXT
        self.depth = 0
        self.height = 0
        """Levels of the tree that `expression` returned last."""

    def unexpected(self, context: Context | None = None) -> NoReturn:
        """Raises about the token at hand. Upstream: parser.unexpected, Item.desc."""
        at = self.at
        kind, value = self.kinds[at], self.values[at]
        span = Span(self.starts[at], self.ends[at])
        if kind == ERROR:
            raise ParseError(value, span, self.text)
        where, expected = context or self.context
        text = f"unexpected {_describe(kind, value)}"
        text += f" in {where}" if where else ""
        text += f", expected {expected}" if expected else ""
        raise ParseError(text, span, self.text)

    def not_broken(self) -> None:
        """Raises if the next characters are no token: upstream has read them before it judges what it has."""
        if self.kinds[self.at] == ERROR:
            self.unexpected()

    def fail(self, reason: str, span: Span) -> NoReturn:
        raise ParseError(reason, span, self.text)

    def expect(self, kind: str, context: Context | None = None) -> int:
        """Takes a token of this kind; where it ends."""
        if self.kinds[self.at] != kind:
            self.unexpected(context)
        self.at += 1
        return self.ends[self.at - 1]

    def token_span(self, at: int) -> Span:
        return Span(self.starts[at], self.ends[at])

    def grow(self, height: int) -> None:
        self.height = height
        if height > MAX_LEVELS:
            self.fail(f"expression has more than {MAX_LEVELS} levels", self.token_span(self.at))

    def enter(self) -> None:
        self.depth += 1
        if self.depth > MAX_NESTING:
            self.fail(f"expression is nested more than {MAX_NESTING} levels deep", self.token_span(self.at))

    def number(self) -> NumberLiteral:
        at = self.at
        self.at += 1
        value = self.values[at]
        try:
            if self.kinds[at] == NUMBER:
                return NumberLiteral(parse_number(value), span=self.token_span(at))
            return NumberLiteral(parse_duration(value) / 1000, True, span=self.token_span(at))
        except InvalidArgument as error:
            prefix = "error parsing number: " if self.kinds[at] == NUMBER else ""
            self.fail(f"{prefix}{error}", self.token_span(at))

    def signed_number(self) -> float:
        """A number, signed or not, for `@`."""
        kind = self.kinds[self.at]
        if kind in ("+", "-"):
            self.at += 1
        if self.kinds[self.at] not in (NUMBER, DURATION):
            self.unexpected()
        value = self.number().value
        return -value if kind == "-" else value


def round_half_away(value: float) -> int:
    whole = math.floor(abs(value))
    whole += abs(value) - whole >= 0.5
    return int(math.copysign(1, value)) * int(whole)


def _describe(kind: str, value: str) -> str:
    """A token as an error names it. Upstream: Item.desc, Item.String."""
    if kind == EOF:
        return kind
    if kind in MODIFIERS:
        return f"<{value}>"
    if kind in WORD_OPERATORS or kind in _SYMBOL_OPERATORS:
        return f"<op:{value}>"
    if kind in AGGREGATORS:
        return f"<aggr:{value}>"
    if kind in (IDENTIFIER, METRIC_IDENTIFIER):
        return f"{kind} {quote(value)}"
    long = len(value.encode()) > 10
    shown = f"{quote_start(value)}..." if long else quote(value)
    return f"{kind} {shown}" if kind in (STRING, NUMBER, DURATION) else shown
