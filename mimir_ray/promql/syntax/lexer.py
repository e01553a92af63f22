"""Text → tokens. Knows where it stands (braces, brackets), because the same characters mean other things there.

Comments and spaces are left out. What cannot be a token ends the list with one token of kind ERROR, which
the parser raises when it gets there. Upstream: promql/parser/lex.go.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mimir_ray.model.matchers import quote

from .errors import describe_rune, quote_rune
from .signatures import AGGREGATORS

# Kinds of tokens. Everything else (punctuation, operators, keywords) is its own kind, keywords in lower case.
IDENTIFIER = "identifier"
METRIC_IDENTIFIER = "metric identifier"
STRING = "string"
NUMBER = "number"
DURATION = "duration"
EOF = "end of input"
ERROR = "error"

WORD_OPERATORS = frozenset({"and", "or", "unless", "atan2"})
MODIFIERS = frozenset(
    {
        "offset",
        "smoothed",
        "anchored",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "fill",
        "fill_left",
        "fill_right",
        "bool",
    }
)
PREPROCESSORS = frozenset({"start", "end", "step", "range", "max_of", "min_of"})
_WORDS = {word: word for word in WORD_OPERATORS | MODIFIERS | PREPROCESSORS | AGGREGATORS} | {
    "inf": NUMBER,
    "nan": NUMBER,
}
_DURATION_WORDS = frozenset({"step", "range", "max_of", "min_of"})
_FILLS = frozenset({"fill", "fill_left", "fill_right"})

# The common tokens outside brackets and braces. A number is only taken where nothing follows it that could
# belong to it; the rest goes to `_number`, which finds out what it is.
_STATEMENT = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\r\n]*)
      |(?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)
      |(?P<number>[0-9]+(?:\.[0-9]+)?(?![0-9a-zA-Z_.]))
      |(?P<duration>[0-9]+(?:ms|[smhdwy])(?![0-9a-zA-Z_]))
      |(?P<op>==|!=|<=|</|>=|>/|[,*/%+\-^<>@])
      |(?P<string>"[^"\\\n\ufffd\ud800-\udfff]*"|'[^'\\\n\ufffd\ud800-\udfff]*'|`[^`\ufffd\ud800-\udfff]*`)
    """,
    re.VERBOSE,
)
_BRACES = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\r\n]*)
      |(?P<word>[a-zA-Z_][a-zA-Z0-9_]*)
      |(?P<op>=~|=|!~|!=|,)
      |(?P<string>"[^"\\\n\ufffd\ud800-\udfff]*"|'[^'\\\n\ufffd\ud800-\udfff]*'|`[^`\ufffd\ud800-\udfff]*`)
    """,
    re.VERBOSE,
)
_WORD_REST = re.compile(r"[a-zA-Z0-9_:]*")
_ALPHA = re.compile(r"[a-zA-Z_]*")
_THEN_PAREN = re.compile(r"[ \t\r\n]*\(")
_SPACES = " \t\r\n"
_DIGITS = frozenset("0123456789")
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_BROKEN = re.compile("[\ufffd\ud800-\udfff]")


class Tokens(NamedTuple):
    """Columns of one length; the last token is EOF or ERROR (whose value is the message).

    `starts`, `ends` count bytes of UTF-8.
    """

    kinds: list[str]
    values: list[str]
    starts: list[int]
    ends: list[int]


class LexError(Exception):
    """Ends the scan; never leaves this module."""


def tokenize(text: str) -> Tokens:
    """All tokens of a query."""
    return _Scan(text).run()


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.kinds: list[str] = []
        self.values: list[str] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.at = 0
        self.parens = 0
        self.in_brackets = False
        self.got_colon = False
        self.got_duration = False
        self.error_at = 0

    def run(self) -> Tokens:
        try:
            while self._statement():
                pass
        except LexError as error:
            self.kinds.append(ERROR)
            self.values.append(str(error))
            self.starts.append(self.error_at)
            self.ends.append(len(self.text))
        if not self.text.isascii():
            self._count_bytes()
        return Tokens(self.kinds, self.values, self.starts, self.ends)

    def _count_bytes(self) -> None:
        offsets = [0]
        for char in self.text:
            point = ord(char)
            size = 1 if point < 0x80 else 2 if point < 0x800 else 3 if point < 0x10000 else 4
            offsets.append(offsets[-1] + (1 if 0xDC80 <= point <= 0xDCFF else size))
        self.starts = [offsets[start] for start in self.starts]
        self.ends = [offsets[end] for end in self.ends]

    def _emit(self, kind: str, end: int) -> None:
        start = self.at
        self.kinds.append(kind)
        self.values.append(self.text[start:end])
        self.starts.append(start)
        self.ends.append(end)
        self.at = end

    def _fail(self, message: str, at: int | None = None) -> LexError:
        self.error_at = self.at if at is None else at
        return LexError(message)

    def _peek(self, at: int) -> str:
        return self.text[at : at + 1]

    def _statement(self) -> bool:
        """Scans tokens outside braces, until a state that another method scans; False at the end."""
        text = self.text
        match_at = _STATEMENT.match
        while True:
            found = match_at(text, self.at)
            if found is None:
                return self._other()
            group = found.lastgroup
            end = found.end()
            if group == "space":
                self.at = end
            elif group == "word":
                if self.in_brackets:
                    self._word_in_brackets()
                    continue
                word = found.group()
                kind = _WORDS.get(word) or _WORDS.get(word.lower())
                if kind is None or (kind in _FILLS and not _THEN_PAREN.match(text, end)):
                    kind = METRIC_IDENTIFIER if ":" in word else IDENTIFIER
                self._emit(kind, end)
            elif group == "op":
                self._emit(found.group(), end)
            elif group == "number":
                self._emit(NUMBER, end)
            elif group == "duration":
                self._emit(DURATION, end)
            else:
                self._emit(STRING, end)

    def _other(self) -> bool:
        """One token that the expression above does not know. False at the end of the text."""
        char = self._peek(self.at)
        if not char:
            if self.parens:
                raise self._fail("unclosed left parenthesis")
            if self.in_brackets:
                raise self._fail("unclosed left bracket")
            self._emit(EOF, self.at)
            return False
        after = self._peek(self.at + 1)
        if char == "(":
            self._emit(char, self.at + 1)
            self.parens += 1
        elif char == ")":
            self._close_paren()
        elif char == "{":
            self._emit(char, self.at + 1)
            self._braces()
        elif char == "[":
            if self.in_brackets:
                raise self._fail("unexpected left bracket '['")
            self.got_colon = False
            self._emit(char, self.at + 1)
            self.in_brackets = True
            self._duration_expr()
        elif char == "]":
            if not self.in_brackets:
                raise self._fail("unexpected right bracket ']'")
            self._emit(char, self.at + 1)
            self.in_brackets = False
        elif char in _DIGITS or (char == "." and after in _DIGITS and after):
            self._number()
        elif char in "\"'`":
            self._string(char)
        elif char == "=":
            if after == "~":
                raise self._fail(f"unexpected character after '=': {quote_rune(after)}")
            self._emit(char, self.at + 1)
        elif char == "!":
            raise self._fail(f"unexpected character after '!': {quote_rune(after)}")
        else:
            raise self._fail(f"unexpected character: {quote_rune(char)}")
        return True

    def _close_paren(self) -> None:
        self._emit(")", self.at + 1)
        self.parens -= 1
        if self.parens < 0:
            self._drop_last()
            raise self._fail("unexpected right parenthesis ')'")

    def _drop_last(self) -> None:
        # Upstream overwrites the token that it has just emitted with the error, which stands behind it.
        for column in (self.kinds, self.values, self.starts, self.ends):
            column.pop()

    def _word_in_brackets(self) -> None:
        char = self._peek(self.at)
        if char == ":":
            if self.got_colon:
                raise self._fail("unexpected colon ':'")
            self._emit(":", self.at + 1)
            self.got_colon = True
        elif not self._duration_word():
            # Upstream has moved past the word when it fails, yet reports where the word starts.
            raise self._fail(f"unexpected character: {quote_rune(char)}, expected ':'")

    def _duration_word(self) -> bool:
        """`step`, `range`, `max_of`, `min_of`, if one stands here."""
        found = _ALPHA.match(self.text, self.at)
        word = found.group().lower() if found else ""
        if word not in _DURATION_WORDS:
            return False
        self._emit(word, self.at + len(word))
        return True

    def _duration_expr(self) -> None:
        """Inside brackets, up to the first number; from there `_statement` goes on."""
        while True:
            char = self._peek(self.at)
            if not char:
                raise self._fail("unexpected end of input in duration expression")
            if char in _SPACES:
                self.at += 1
            elif char == "]":
                self._emit(char, self.at + 1)
                self.in_brackets = False
                self.got_colon = False
                return
            elif char == ":":
                self.at += 1
                if not self.got_duration:
                    raise self._fail("unexpected colon before duration in duration expression")
                if self.got_colon:
                    raise self._fail("unexpected repeated colon in duration expression")
                self.at -= 1
                self._emit(char, self.at + 1)
                self.got_colon = True
            elif char == "(":
                self._emit(char, self.at + 1)
                self.parens += 1
            elif char == ")":
                self._close_paren()
            elif char in "+-*/%^,":
                self._emit(char, self.at + 1)
            elif char in _DIGITS or (char == "." and self._peek(self.at + 1) in _DIGITS and self._peek(self.at + 1)):
                self.got_duration = True
                self._number()
                return
            elif char.lower() not in "srm" or not self._duration_word():
                raise self._fail(f"unexpected character in duration expression: {quote_rune(char)}")

    def _braces(self) -> None:
        """The matchers of a selector, after `{`."""
        text = self.text
        match_at = _BRACES.match
        while True:
            found = match_at(text, self.at)
            if found is not None:
                group = found.lastgroup
                if group == "space":
                    self.at = found.end()
                elif group == "word":
                    self._emit(IDENTIFIER, found.end())
                elif group == "op":
                    self._emit(found.group(), found.end())
                else:
                    self._emit(STRING, found.end())
                continue
            char = self._peek(self.at)
            if char == "}":
                self._emit(char, self.at + 1)
                return
            if not char:
                raise self._fail("unexpected end of input inside braces")
            if char in "\"'`":
                self._string(char)
            elif char == "!":
                raise self._fail(f"unexpected character after '!' inside braces: {quote_rune(self._peek(self.at + 1))}")
            elif char == "{":
                raise self._fail("unexpected left brace '{'")
            else:
                raise self._fail(f"unexpected character inside braces: {quote_rune(char)}")

    def _string(self, mark: str) -> None:
        """A string with escapes, or one that is broken. Upstream: lexString, lexEscape, lexRawString."""
        text, at = self.text, self.at + 1
        while True:
            char = self._peek(at)
            if not char:
                raise self._fail("unterminated raw string" if mark == "`" else "unterminated quoted string")
            at += 1
            if _BROKEN.match(char):
                raise self._fail("invalid UTF-8 rune")
            if char == mark:
                break
            if mark == "`":
                continue
            if char == "\n":
                raise self._fail("unterminated quoted string")
            if char == "\\":
                at = self._escape(mark, at)
        assert text[self.at] == mark
        self._emit(STRING, at)

    def _escape(self, mark: str, at: int) -> int:
        char = self._peek(at)
        if not char:
            raise self._fail("escape sequence not terminated")
        if char in "abfnrtv\\" or char == mark:
            return at + 1
        if char in "01234567":
            digits, base, largest = 3, 8, 255
        elif char in "xuU":
            digits, base, largest = {"x": (2, 16, 255), "u": (4, 16, 0x10FFFF), "U": (8, 16, 0x10FFFF)}[char]
            at += 1
        else:
            raise self._fail(f"unknown escape sequence {describe_rune(char)}")
        value = 0
        for _ in range(digits):
            digit = self._peek(at)
            if not digit:
                raise self._fail("escape sequence not terminated")
            if digit not in _HEX_DIGITS or int(digit, 16) >= base:
                raise self._fail(f"illegal character {describe_rune(digit)} in escape sequence")
            value = value * base + int(digit, 16)
            at += 1
        if value > largest or 0xD800 <= value < 0xE000:
            raise self._fail("escape sequence is an invalid Unicode code point")
        return at

    def _number(self) -> None:
        """A number or a duration of any form. Upstream: lexNumberOrDuration."""
        end, good = scan_number(self.text, self.at)
        if good:
            self._emit(NUMBER, end)
            return
        end, good = _scan_duration(self.text, end)
        if not good:
            raise self._fail(f"bad number or duration syntax: {quote(self.text[self.at : end])}")
        self._emit(DURATION, end)


def scan_number(text: str, at: int, in_series: bool = False) -> tuple[int, bool]:
    """Where the number that starts here ends, and whether it is one; `1.2.` and `0x` are not.

    In series values of test scripts there are no hexadecimal numbers, and `x` may follow.
    Upstream: Lexer.scanNumber, which accepts some things that are refused later, as here.
    """
    length = len(text)
    start = at
    digits = _DIGITS

    def char() -> str:
        return text[at] if at < length else ""

    if not in_series and char() == "0":
        at += 1
        if char() in ("x", "X"):
            at += 1
            if char() == "_":
                at += 1
            digits = _HEX_DIGITS
    if char() == ".":
        at += 1
    if char() in digits:
        at += 1
    dot = exponent = False
    while (now := char()) and (now in digits or now in "._eE"):
        if now == "." and dot:
            return at + 1, False
        if now in "eE" and exponent:
            return at + 1, False
        if now == ".":
            dot = True
            at += 1
            if char() and char() in "_.":
                return at + 1, False
            if digits is _HEX_DIGITS:
                return at, False
        elif now in "eE":
            exponent = True
            at += 1
            if char() and char() in "+-":
                at += 1
            if not char():
                return at, False
            if char() in "._eE":
                return at + 1, False
        elif now == "_":
            at += 1
            if not char():
                return at, False
            if char() in "._eE":
                return at + 1, False
        else:
            while char() and char() in digits:
                at += 1
    if at == start:
        return at, False
    follows = char()
    is_word = follows == "_" or (follows.isascii() and follows.isalnum())
    return at, not is_word or (in_series and follows == "x")


def _scan_duration(text: str, at: int) -> tuple[int, bool]:
    """The rest of a duration after its first digits. Upstream: acceptRemainingDuration."""

    def char() -> str:
        return text[at : at + 1]

    if not char() or char() not in "smhdwy":
        return at, False
    at += 1
    if char() == "s":
        at += 1
    while char() and char() in _DIGITS:
        while char() and char() in _DIGITS:
            at += 1
        if not char() or char() not in "smhdw":
            return at, False
        at += 1
        if char() == "s":
            at += 1
    follows = char()
    is_word = follows == "_" or (follows.isascii() and follows.isalnum())
    return (at + 1, False) if is_word else (at, True)
