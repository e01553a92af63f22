"""Tree → what `/api/v1/parse_query` answers. Upstream: web/api/v1/translate_ast.go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mimir_ray.model.matchers import Matcher

from .ast import (
    Aggregate,
    Anchor,
    Binary,
    Call,
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
from .printer import format_number
from .signatures import SIGNATURES

_DURATION_OPS = {"min": "min_of", "max": "max_of"}


def describe(node: Node) -> dict[str, Any]:
    """The tree as JSON values; durations and times in ms."""
    if isinstance(node, VectorSelector):
        return {"type": "vectorSelector", **_selector(node)}
    if isinstance(node, MatrixSelector):
        return {
            "type": "matrixSelector",
            "range": node.range_ms,
            "rangeExpr": _duration(node.range_expr),
            **_selector(node.selector),
        }
    if isinstance(node, Subquery):
        return {
            "type": "subquery",
            "expr": describe(node.expr),
            "range": node.range_ms,
            "rangeExpr": _duration(node.range_expr),
            "offset": node.offset_ms,
            "offsetExpr": _duration(node.offset_expr),
            "step": node.step_ms,
            "stepExpr": _duration(node.step_expr),
            **_at(node.at),
        }
    if isinstance(node, Aggregate):
        return {
            "type": "aggregation",
            "op": node.op,
            "expr": describe(node.expr),
            "param": None if node.param is None else describe(node.param),
            "grouping": list(node.grouping),
            "without": node.without,
        }
    if isinstance(node, Binary):
        return {
            "type": "binaryExpr",
            "op": node.op,
            "lhs": describe(node.left),
            "rhs": describe(node.right),
            "matching": None if node.matching is None else _matching(node.matching),
            "bool": node.return_bool,
        }
    if isinstance(node, Call):
        signature = SIGNATURES[node.name]
        function = {
            "name": node.name,
            "argTypes": [kind.value for kind in signature.arg_types],
            "variadic": signature.variadic,
            "returnType": signature.returns.value,
        }
        return {"type": "call", "func": function, "args": [describe(arg) for arg in node.args]}
    if isinstance(node, NumberLiteral):
        return {"type": "numberLiteral", "val": format_number(node.value)}
    if isinstance(node, StringLiteral):
        return {"type": "stringLiteral", "val": node.value}
    if isinstance(node, Paren):
        return {"type": "parenExpr", "expr": describe(node.expr)}
    if isinstance(node, Unary):
        return {"type": "unaryExpr", "op": node.op, "expr": describe(node.expr)}
    assert isinstance(node, DurationExpr)
    return _duration_expr(node)


def _selector(node: VectorSelector) -> dict[str, Any]:
    return {
        "name": node.name,
        "offset": node.offset_ms,
        "offsetExpr": _duration(node.offset_expr),
        "matchers": _matchers(node.matchers),
        "anchored": node.anchored,
        "smoothed": node.smoothed,
        **_at(node.at),
    }


def _at(at: int | Anchor | None) -> dict[str, Any]:
    anchored = isinstance(at, Anchor)
    return {"timestamp": None if anchored else at, "startOrEnd": at.value if isinstance(at, Anchor) else None}


def _matchers(matchers: Sequence[Matcher]) -> list[dict[str, str]]:
    return [{"name": one.name, "value": one.value, "type": one.type.value} for one in matchers]


def _matching(matching: VectorMatching) -> dict[str, Any]:
    return {
        "card": matching.cardinality.value,
        "labels": list(matching.labels),
        "on": matching.on,
        "include": list(matching.include),
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
    }


def _duration(node: Node | None) -> dict[str, Any] | None:
    """An operand of duration arithmetic, where numbers also say how they are written."""
    if node is None:
        return None
    if isinstance(node, NumberLiteral):
        return {**describe(node), "duration": node.is_duration}
    return describe(node)


def _duration_expr(node: DurationExpr) -> dict[str, Any]:
    return {
        "type": "durationExpr",
        "op": _DURATION_OPS.get(node.op, node.op),
        "lhs": _duration(node.left),
        "rhs": _duration(node.right),
        "wrapped": node.wrapped,
    }
