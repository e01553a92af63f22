"""The grammar of durations: literals, and arithmetic on them in brackets and after `offset`.

Upstream: promql/parser/generated_parser.y duration_expr, offset_duration_expr.
"""

from __future__ import annotations

import math
from dataclasses import replace

from .ast import DurationExpr, NumberLiteral, Span
from .cursor import Context, Cursor, round_half_away
from .lexer import DURATION, NUMBER

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2, "^": 3}
_POWER = 3
_NAMES = {"max_of": "max", "min_of": "min"}


class DurationParser(Cursor):
    """Reads durations."""

    def positive_duration(self, context: Context) -> tuple[int, DurationExpr | None]:
        outer, self.context = self.context, context
        node = self.duration(0)
        self.context = outer
        if isinstance(node, DurationExpr):
            return 0, node
        self.not_broken()
        if node.value <= 0:
            self.fail("duration must be greater than 0", node.span)
        return to_ms(node.value), None

    def offset_duration(self) -> NumberLiteral | DurationExpr:
        """What follows `offset`: without parentheses a single term, so that `a offset 5m + b` is a sum."""
        kind = self.kinds[self.at]
        if kind == "(":
            return self.duration(0)
        if kind in ("+", "-"):
            if self.kinds[self.at + 1] in ("+", "-"):
                return self.duration(0)
            sign = self.at
            self.at += 1
            start = self.starts[sign]
            if self.kinds[self.at] in (NUMBER, DURATION):
                number = self.number()
                return self.signed(kind, number, sign)
            operand = self.duration_operand(start)
            if isinstance(operand, NumberLiteral):
                return self.signed(kind, operand, sign)
            if operand.wrapped:
                return self.signed_expr(kind, operand, start)
            return DurationExpr(kind, None, operand, span=Span(start, operand.span.end))
        return self.duration_operand()

    def duration(self, min_precedence: int) -> NumberLiteral | DurationExpr:
        self.enter()
        kind = self.kinds[self.at]
        left: NumberLiteral | DurationExpr
        if kind in ("+", "-"):
            sign = self.at
            self.at += 1
            operand = self.duration(_POWER)
            if isinstance(operand, NumberLiteral):
                left = self.signed(kind, operand, sign)
            else:
                left = self.signed_expr(kind, operand, self.starts[sign])
        else:
            left = self.duration_operand()
        while True:
            at = self.at
            op = self.kinds[at]
            precedence = _PRECEDENCE.get(op, 0)
            if not precedence or precedence < min_precedence:
                break
            self.at += 1
            right = self.duration(precedence + (op != "^"))
            self.not_broken()
            self.need_duration_expressions(left.span)
            if op in "/%" and isinstance(right, NumberLiteral) and right.value == 0:
                self.fail("division by zero" if op == "/" else "modulo by zero", self.token_span(at))
            left = DurationExpr(op, left, right, span=Span(left.span.start, right.span.end))
        self.depth -= 1
        return left

    def duration_operand(self, signed: int | None = None) -> NumberLiteral | DurationExpr:
        """One term. `signed`: where a sign stands in front of it that belongs to an offset as a whole."""
        at = self.at
        kind = self.kinds[at]
        start = self.starts[at]
        if kind in (NUMBER, DURATION):
            number = self.number()
            self.check_duration(number.value, number.span)
            return number
        if kind in ("step", "range"):
            self.at += 1
            self.expect("(")
            node = DurationExpr(kind, span=Span(start, self.expect(")")))
            self.need_duration_expressions(Span(start if signed is None else signed, node.span.end))
            return node
        if kind in _NAMES:
            self.at += 1
            self.expect("(")
            first = self.duration(0)
            self.expect(",")
            second = self.duration(0)
            node = DurationExpr(_NAMES[kind], first, second, span=Span(start, self.expect(")")))
            self.need_duration_expressions(Span(first.span.start if signed is None else signed, second.span.end))
            return node
        if kind == "(":
            self.at += 1
            inner = self.duration(0)
            end = self.expect(")")
            if signed is None:  # upstream takes signed parentheses behind `offset` without asking
                self.need_duration_expressions(inner.span)
            if isinstance(inner, DurationExpr):
                return replace(inner, wrapped=True)
            return DurationExpr("+", None, inner, True, span=Span(start, end))
        return self.unexpected()

    def signed(self, op: str, number: NumberLiteral, sign: int) -> NumberLiteral:
        value = -number.value if op == "-" else number.value
        self.check_duration(value, self.token_span(sign))
        return NumberLiteral(value, number.is_duration, span=Span(self.starts[sign], number.span.end))

    def signed_expr(self, op: str, operand: DurationExpr, start: int) -> DurationExpr:
        return DurationExpr("-", None, operand, span=Span(start, operand.span.end)) if op == "-" else operand

    def check_duration(self, seconds: float, span: Span) -> None:
        if abs(seconds) > 2.0**63 / 1e9:
            self.fail("duration out of range", span)

    def need_duration_expressions(self, span: Span) -> None:
        if not self.options.duration_expressions:
            self.fail("experimental duration expression is not enabled", span)


def to_ms(seconds: float) -> int:
    """Seconds to ms the way that Go's durations have them: whole nanoseconds, then cut; NaN is the smallest."""
    if math.isnan(seconds):
        return -(2**63 // 1_000_000)
    nanoseconds = round_half_away(seconds * 1e9)
    return int(math.copysign(abs(nanoseconds) // 1_000_000, nanoseconds))
