"""Tree → text: the canonical one-line form, and the indented one of `/api/v1/format_query`.

Upstream: promql/parser/printer.go, prettier.go.
"""

from __future__ import annotations

import math

from mimir_ray.model.durations import format_duration
from mimir_ray.model.labels import METRIC_NAME, is_legacy_label_name
from mimir_ray.model.matchers import MatchType, quote
from mimir_ray.promql.annotations import go_float

from .ast import (
    Aggregate,
    Anchor,
    Binary,
    Call,
    Cardinality,
    DurationExpr,
    MatrixSelector,
    Node,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    VectorMatching,
    VectorSelector,
)

LINE_CHARACTERS_MAX = 100
_INDENT = "  "
_DURATION_FUNCTIONS = {"min": "min_of", "max": "max_of"}


def format_expr(node: Node) -> str:
    """The canonical form on one line; parsing it gives an equal tree."""
    if isinstance(node, NumberLiteral):
        return _number(node)
    if isinstance(node, StringLiteral):
        return _readable(quote(node.value))
    if isinstance(node, VectorSelector):
        extended = " anchored" if node.anchored else " smoothed" if node.smoothed else ""
        return f"{_series(node)}{_at(node)}{extended}{_offset(node)}"
    if isinstance(node, MatrixSelector):
        inner = node.selector
        extended = " anchored" if inner.anchored else " smoothed" if inner.smoothed else ""
        width = _duration(node.range_ms, node.range_expr)
        return f"{_series(inner)}[{width}]{extended}{_at(inner)}{_offset(inner)}"
    if isinstance(node, Subquery):
        return f"{format_expr(node.expr)}{_subquery_suffix(node)}"
    if isinstance(node, Paren):
        return f"({format_expr(node.expr)})"
    if isinstance(node, Unary):
        return f"{node.op}{format_expr(node.expr)}"
    if isinstance(node, Binary):
        return f"{format_expr(node.left)} {_operator(node)} {format_expr(node.right)}"
    if isinstance(node, Call):
        return f"{node.name}({', '.join(map(format_expr, node.args))})"
    if isinstance(node, Aggregate):
        param = "" if node.param is None else f"{format_expr(node.param)}, "
        return f"{_aggregation(node)}({param}{format_expr(node.expr)})"
    assert isinstance(node, DurationExpr)
    return _duration_expr(node)


def pretty(node: Node) -> str:
    """Indented over several lines where one line would be longer than 100 characters."""
    return _pretty(node, 0)


def _pretty(node: Node, level: int) -> str:
    indent = _INDENT * level
    line = format_expr(node)
    if isinstance(node, Unary):
        return f"{indent}{node.op}{_pretty(node.expr, level).strip()}"
    if isinstance(node, Subquery):
        # Upstream writes a subquery that fits without its indentation.
        fits = len(line.encode()) <= LINE_CHARACTERS_MAX
        return line if fits else f"{_pretty(node.expr, level)}{_subquery_suffix(node)}"
    if len(line.encode()) <= LINE_CHARACTERS_MAX:
        return f"{indent}{line}"
    if isinstance(node, Aggregate):
        param = "" if node.param is None else f"{_pretty(node.param, level + 1)},\n"
        return f"{indent}{_aggregation(node)}(\n{param}{_pretty(node.expr, level + 1)}\n{indent})"
    if isinstance(node, Binary):
        left, right = _pretty(node.left, level + 1), _pretty(node.right, level + 1)
        return f"{left}\n{indent}{_operator(node)}\n{right}"
    if isinstance(node, Call):
        args = ",\n".join(_pretty(arg, level + 1) for arg in node.args)
        return f"{indent}{node.name}(\n{args}\n{indent})"
    if isinstance(node, Paren):
        return f"{indent}(\n{_pretty(node.expr, level + 1)}\n{indent})"
    return f"{indent}{line}"


def format_number(value: float) -> str:
    """All digits, no exponent. Upstream: strconv.FormatFloat(value, 'f', -1, 64)."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text.removesuffix(".0")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits, point = whole + fraction, len(whole) + int(exponent)
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits}{'0' * (point - len(digits))}"


def format_labels(names: tuple[str, ...]) -> str:
    """Label names between commas, quoted where they must be."""
    return ", ".join(name if is_legacy_label_name(name) else quote(name) for name in names)


def _readable(quoted: str) -> str:
    """U+FFFD, which stands where bytes were no UTF-8, is refused by the lexer unless it is escaped."""
    return quoted.replace("\ufffd", "\\ufffd")


def _number(node: NumberLiteral) -> str:
    if not node.is_duration:
        return format_number(node.value)
    # Upstream cuts below the millisecond, too.
    return format_duration(int(node.value * 1e9) // 1_000_000 if node.value >= 0 else -int(-node.value * 1e9 // 1e6))


def _series(node: VectorSelector) -> str:
    shown = []
    for matcher in node.matchers:
        is_name = matcher.name == METRIC_NAME and matcher.type is MatchType.EQUAL and matcher.value == node.name
        if not (is_name and matcher.value):
            shown.append(_readable(str(matcher)))
    # By bytes, as Go sorts.
    shown.sort(key=lambda text: text.encode("utf-8", "surrogateescape"))
    return f"{node.name}{{{','.join(shown)}}}" if shown else node.name


def _at(node: VectorSelector | Subquery) -> str:
    if node.at is None:
        return ""
    if isinstance(node.at, Anchor):
        return f" @ {node.at.value}()"
    return f" @ {node.at / 1000:.3f}"


def _offset(node: VectorSelector | Subquery) -> str:
    if node.offset_expr is not None:
        return f" offset {_duration_expr(node.offset_expr)}"
    return f" offset {format_duration(node.offset_ms)}" if node.offset_ms else ""


def _duration(milliseconds: int, expr: DurationExpr | None) -> str:
    return format_duration(milliseconds) if expr is None else _duration_expr(expr)


def _subquery_suffix(node: Subquery) -> str:
    step = _duration(node.step_ms, node.step_expr) if node.step_ms or node.step_expr is not None else ""
    return f"[{_duration(node.range_ms, node.range_expr)}:{step}]{_at(node)}{_offset(node)}"


def _duration_expr(node: DurationExpr) -> str:
    left = "" if node.left is None else format_expr(node.left)
    right = "" if node.right is None else format_expr(node.right)
    if node.op in ("step", "range"):
        text = f"{node.op}()"
    elif node.op in _DURATION_FUNCTIONS:
        text = f"{_DURATION_FUNCTIONS[node.op]}({left}, {right})"
    elif node.left is None:
        text = right if node.op == "+" else f"{node.op}{right}"
    else:
        text = f"{left} {node.op} {right}"
    return f"({text})" if node.wrapped else text


def _operator(node: Binary) -> str:
    return f"{node.op}{' bool' if node.return_bool else ''}{'' if node.matching is None else _matching(node.matching)}"


def _matching(matching: VectorMatching) -> str:
    grouped = matching.cardinality in (Cardinality.MANY_TO_ONE, Cardinality.ONE_TO_MANY)
    text = ""
    if matching.labels or matching.on or grouped:
        text += f" {'on' if matching.on else 'ignoring'} ({format_labels(matching.labels)})"
    if grouped:
        side = "left" if matching.cardinality is Cardinality.MANY_TO_ONE else "right"
        text += f" group_{side} ({format_labels(matching.include)})"
    left, right = matching.fill_left, matching.fill_right
    if left is not None and left == right:
        return f"{text} fill ({go_float(left)})"
    text += "" if left is None else f" fill_left ({go_float(left)})"
    text += "" if right is None else f" fill_right ({go_float(right)})"
    return text


def _aggregation(node: Aggregate) -> str:
    if node.without:
        return f"{node.op} without ({format_labels(node.grouping)}) "
    return f"{node.op} by ({format_labels(node.grouping)}) " if node.grouping else node.op
