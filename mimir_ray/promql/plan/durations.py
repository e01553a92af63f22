"""Durations and times of a query, resolved: arithmetic in durations, `@ start()` and `@ end()`.

Upstream: promql/durations.go calculateDuration, evaluateDurationExpr.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mimir_ray.errors import InvalidArgument
from mimir_ray.promql.syntax import ast

_SECONDS_MAX = 2**63 / 1e9


@dataclass(eq=False)
class InvalidDuration(InvalidArgument):
    reason: str
    span: ast.Span

    def describe(self) -> str:
        return f"{self.span.start}:{self.span.end}: {self.reason}"


@dataclass(frozen=True, slots=True)
class QueryTimes:
    """What `step()`, `range()`, `start()` and `end()` mean; an instant query has step 0."""

    start_ms: int
    end_ms: int
    step_ms: int

    def anchor(self, at: int | ast.Anchor | None) -> int | None:
        """The time in ms that `@` names."""
        if at is ast.Anchor.START:
            return self.start_ms
        if at is ast.Anchor.END:
            return self.end_ms
        return at

    def duration_ms(self, expr: ast.DurationExpr | None, written_ms: int, *, negative: bool = False) -> int:
        """The value of the arithmetic, or what was written where there is none. Raises `InvalidDuration`."""
        if expr is None:
            return written_ms
        seconds = self._evaluate(expr)
        if math.isnan(seconds) or math.isinf(seconds):
            raise InvalidDuration("duration is NaN or infinite", expr.span)
        if seconds <= 0 and not negative:
            raise InvalidDuration("duration must be greater than 0", expr.span)
        if abs(seconds) > _SECONDS_MAX:
            raise InvalidDuration("duration is out of range", expr.span)
        return int(seconds * 1000)

    def _evaluate(self, expr: ast.Node | None) -> float:
        if isinstance(expr, ast.NumberLiteral):
            return expr.value
        assert isinstance(expr, ast.DurationExpr), expr
        if expr.op == "step":
            return self.step_ms / 1000
        if expr.op == "range":
            return (self.end_ms - self.start_ms) / 1000
        right = self._evaluate(expr.right)
        if expr.left is None:
            return -right if expr.op == "-" else right
        return _apply(expr, self._evaluate(expr.left), right)


def depends_on_times(tree: ast.Node) -> bool:
    """Whether the plan of an expression is another at other times: it speaks of the query's start, end or step."""
    for node in ast.walk(tree):
        match node:
            case ast.VectorSelector() | ast.Subquery():
                if isinstance(node.at, ast.Anchor):
                    return True
            case ast.DurationExpr():
                return True
            case ast.Call():
                if not node.args and node.name in ast.CONTEXT_FUNCTIONS:
                    return True
    return False


def _apply(expr: ast.DurationExpr, left: float, right: float) -> float:
    match expr.op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            if right == 0:
                raise InvalidDuration("division by zero", expr.span)
            return left / right
        case "%":
            if right == 0:
                raise InvalidDuration("modulo by zero", expr.span)
            return math.fmod(left, right)
        case "^":
            return _power(left, right)
        case "min":
            return min(left, right)
        case "max":
            return max(left, right)
    raise AssertionError(expr.op)


def _power(left: float, right: float) -> float:
    try:
        return math.pow(left, right)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan if left < 0 else math.inf
