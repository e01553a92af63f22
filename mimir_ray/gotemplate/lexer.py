"""Template text → tokens. Upstream: text/template/parse/lex.go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mimir_ray.model.matchers import quote

KEYWORDS = frozenset({"block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"})
"""`nil` and `.` are tokens of their own."""

_SPACES = " \t\r\n"
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?|0[oO][0-7_]*|0[bB][01_]*"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)"
)
_TRIM_LEFT = re.compile(r"-[ \t\r\n]")
_TRIM_RIGHT = re.compile(r"[ \t\r\n]-\}\}")


@dataclass(frozen=True, slots=True)
class Token:
    """`kind`: text, left, right, space, pipe, field, variable, identifier, keyword, dot, nil, bool, char, charconst,
    number, string, raw, lparen, rparen, declare, assign, error or eof. `position`: in characters."""

    kind: str
    position: int
    value: str
    line: int

    def __str__(self) -> str:
        if self.kind == "eof":
            return "EOF"
        if self.kind == "error":
            return self.value
        if self.kind in ("keyword", "dot", "nil"):
            return f"<{self.value}>"
        if len(self.value.encode("utf-8", "surrogateescape")) > 10:
            return f"{quote(self.value[:10])}..."
        return quote(self.value)


class _Fault(Exception):
    """Ends the scan with an error token."""


def tokens(text: str) -> Iterator[Token]:
    """All tokens, the last of which is `eof` or `error`."""
    return _Lexer(text).run()


class _Lexer:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.start = 0
        self.depth = 0
        self._line = 1
        self._counted = 0

    def line(self, position: int) -> int:
        self._line += self.text.count("\n", self._counted, position)
        self._counted = max(self._counted, position)
        return self._line

    def token(self, kind: str) -> Token:
        found = Token(kind, self.start, self.text[self.start : self.at], self.line(self.start))
        self.start = self.at
        return found

    def run(self) -> Iterator[Token]:
        try:
            yield from self.scan()
        except _Fault as fault:
            yield Token("error", self.start, str(fault), self.line(self.start))

    def scan(self) -> Iterator[Token]:
        text = self.text
        while True:
            left = text.find("{{", self.at)
            end = len(text) if left < 0 else left
            trimmed = end
            if left >= 0 and _TRIM_LEFT.match(text, left + 2):
                trimmed = self.at + len(text[self.at : left].rstrip(_SPACES))
            if trimmed > self.at:
                self.at = trimmed
                yield self.token("text")
            self.at = self.start = end
            if left < 0:
                yield self.token("eof")
                return
            trim = 2 if _TRIM_LEFT.match(text, left + 2) else 0
            if text.startswith("/*", left + 2 + trim):
                self.comment(left + 2 + trim)
                continue
            self.at = left + 2
            yield self.token("left")
            self.at = self.start = self.at + trim
            self.depth = 0
            yield from self.action()

    def comment(self, at: int) -> None:
        end = self.text.find("*/", at + 2)
        if end < 0:
            raise _Fault("unclosed comment")
        self.at = end + 2
        if self.text.startswith("}}", self.at):
            self.at += 2
        elif _TRIM_RIGHT.match(self.text, self.at):
            self.at += 4
            self.skip_spaces()
        else:
            raise _Fault("comment ends before closing delimiter")
        self.start = self.at

    def skip_spaces(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _SPACES:
            self.at += 1
        self.start = self.at

    def action(self) -> Iterator[Token]:
        text = self.text
        while True:
            trim = _TRIM_RIGHT.match(text, self.at) is not None
            if trim or text.startswith("}}", self.at):
                if self.depth:
                    raise _Fault("unclosed left paren")
                self.at = self.start = self.at + (2 if trim else 0)
                self.at += 2
                yield self.token("right")
                if trim:
                    self.skip_spaces()
                return
            if self.at >= len(text):
                raise _Fault("unclosed action")
            yield self.inside(text[self.at])

    def inside(self, char: str) -> Token:
        text = self.text
        if char in _SPACES:
            while self.at < len(text) and text[self.at] in _SPACES:
                if _TRIM_RIGHT.match(text, self.at) and self.at > self.start:
                    break
                self.at += 1
            return self.token("space")
        following = text[self.at + 1 : self.at + 2]
        if char.isdecimal() or char in "+-" or (char == "." and following.isdecimal()):
            return self.number()
        if char == "_" or char.isalnum():
            return self.identifier()
        self.at += 1
        if char == ":":
            if following != "=":
                raise _Fault("expected :=")
            self.at += 1
            return self.token("declare")
        if char in "=|":
            return self.token("assign" if char == "=" else "pipe")
        if char in "\"'":
            return self.quoted(char)
        if char == "`":
            end = text.find("`", self.at)
            if end < 0:
                raise _Fault("unterminated raw quoted string")
            self.at = end + 1
            return self.token("raw")
        if char in ".$":
            return self.field_or_variable(char)
        if char == "(":
            self.depth += 1
            return self.token("lparen")
        if char == ")":
            self.depth -= 1
            if self.depth < 0:
                raise _Fault("unexpected right paren")
            return self.token("rparen")
        if char.isascii() and char.isprintable():
            return self.token("char")
        raise _Fault(f"unrecognized character in action: {_rune(char)}")

    def terminated(self) -> bool:
        """Whether a word may end here: `.X.Y` are two, `$x+2` is none."""
        if self.at >= len(self.text):
            return True
        return self.text[self.at] in " \t\r\n.,|:)(=" or self.text.startswith("}}", self.at)

    def check_terminated(self) -> None:
        if not self.terminated():
            raise _Fault(f"bad character {_rune(self.text[self.at])}")

    def identifier(self) -> Token:
        found = _WORD.match(self.text, self.at)
        assert found is not None
        self.at = found.end()
        self.check_terminated()
        word = found[0]
        if word in KEYWORDS:
            return self.token("keyword")
        return self.token("nil" if word == "nil" else "bool" if word in ("true", "false") else "identifier")

    def field_or_variable(self, mark: str) -> Token:
        if self.terminated():
            return self.token("dot" if mark == "." else "variable")
        if found := _WORD.match(self.text, self.at):
            self.at = found.end()
        self.check_terminated()
        return self.token("field" if mark == "." else "variable")

    def number(self) -> Token:
        found = _NUMBER.match(self.text, self.at)
        assert found is not None
        self.at = max(found.end(), self.at + 1)
        following = self.text[self.at : self.at + 1]
        if following == "_" or following.isalnum():
            self.at += 1
            raise _Fault(f"bad number syntax: {quote(self.text[self.start : self.at])}")
        return self.token("number")

    def quoted(self, mark: str) -> Token:
        text = self.text
        what = "quoted string" if mark == '"' else "character constant"
        while True:
            char = text[self.at : self.at + 1]
            self.at += 1
            if char == mark:
                return self.token("string" if mark == '"' else "charconst")
            if char == "\\" and text[self.at : self.at + 1] not in ("", "\n"):
                self.at += 1
            elif char in ("", "\n", "\\"):
                raise _Fault(f"unterminated {what}")


def _rune(char: str) -> str:
    """As Go's `%#U`."""
    shown = f" '{char}'" if char.isprintable() else ""
    return f"U+{ord(char):04X}{shown}"
