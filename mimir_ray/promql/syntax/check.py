"""The type checker: what the grammar allows and PromQL does not.

Runs on a tree fresh from the parser, before anyone else sees it, and settles what depends on types:
matching that does not apply is removed, set operators become many-to-many.
Upstream: promql/parser/parse.go checkAST.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from mimir_ray.model.labels import METRIC_NAME
from mimir_ray.model.matchers import quote

from .ast import (
    Aggregate,
    Binary,
    Call,
    Cardinality,
    MatrixSelector,
    Node,
    NumberLiteral,
    Paren,
    Span,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorSelector,
)
from .errors import ParseError
from .signatures import COMPARISONS, SET_OPERATORS, SIGNATURES

SCALAR, VECTOR, MATRIX, STRING = ValueType.SCALAR, ValueType.VECTOR, ValueType.MATRIX, ValueType.STRING
_DOCUMENTED = {VECTOR: "instant vector", MATRIX: "range vector", SCALAR: "scalar", STRING: "string"}
_OPERANDS = (SCALAR, VECTOR)
_PARAM_TYPES = dict.fromkeys(("topk", "bottomk", "quantile", "limitk", "limit_ratio"), SCALAR) | {
    "count_values": STRING
}


def check(node: Node, text: str) -> ValueType:
    """The type of a freshly parsed tree. Raises `ParseError` with Prometheus' text for the first fault."""
    return _Checker(text).check(node)


class _Checker:
    def __init__(self, text: str) -> None:
        self.text = text

    def check(self, node: Node) -> ValueType:
        if isinstance(node, VectorSelector):
            self.selector(node)
            return VECTOR
        if isinstance(node, Call):
            return self.call(node)
        if isinstance(node, MatrixSelector):
            self.selector(node.selector)
            return MATRIX
        if isinstance(node, Binary):
            return self.binary(node)
        if isinstance(node, Aggregate):
            return self.aggregate(node)
        if isinstance(node, Paren):
            return self.check(node.expr)
        if isinstance(node, NumberLiteral):
            return SCALAR
        if isinstance(node, StringLiteral):
            return STRING
        if isinstance(node, Unary):
            found = self.check(node.expr)
            if found not in _OPERANDS:
                text = "unary expression only allowed on expressions of type scalar or instant vector"
                self.fail(f'{text}, got "{_DOCUMENTED[found]}"', node.span)
            return found
        assert isinstance(node, Subquery)
        found = self.check(node.expr)
        if found is not VECTOR:
            self.fail(f"subquery is only allowed on instant vector, got {found.value} instead", node.span)
        return MATRIX

    def fail(self, reason: str, span: Span) -> NoReturn:
        raise ParseError(reason, span, self.text)

    def expect(self, node: Node, wanted: ValueType, context: str) -> None:
        found = self.check(node)
        if found is not wanted:
            self.fail(f"expected type {_DOCUMENTED[wanted]} in {context}, got {_DOCUMENTED[found]}", node.span)

    def selector(self, node: VectorSelector) -> None:
        if node.name:
            for matcher in node.matchers[:-1]:
                if matcher.name == METRIC_NAME:
                    text = f"metric name must not be set twice: {quote(node.name)} or {quote(matcher.value)}"
                    self.fail(text, node.span)
        elif all(matcher.accepts_empty for matcher in node.matchers):
            self.fail("vector selector must contain at least one non-empty matcher", node.span)

    def aggregate(self, node: Aggregate) -> ValueType:
        self.expect(node.expr, VECTOR, "aggregation expression")
        if node.param is not None:
            self.expect(node.param, _PARAM_TYPES[node.op], "aggregation parameter")
        return VECTOR

    def call(self, node: Call) -> ValueType:
        signature = SIGNATURES[node.name]
        given, least, most = len(node.args), signature.args_min, signature.args_max
        where = f'argument(s) in call to "{node.name}", got {given}'
        if signature.variadic == 0 and given != least:
            self.fail(f"expected {least} {where}", node.span)
        if given < least:
            self.fail(f"expected at least {least} {where}", node.span)
        if most is not None and given > most:
            self.fail(f"expected at most {most} {where}", node.span)
        args = node.args
        if node.name == "info" and given > 1:
            self.info_selector(node)
            args = args[:1]
        for index, arg in enumerate(args):
            wanted = signature.arg_type(index)
            found = self.check(arg)
            if found is not wanted:
                text = f"expected type {_DOCUMENTED[wanted]} in call to function {quote(node.name)}"
                self.fail(f"{text}, got {_DOCUMENTED[found]}", arg.span)
        return signature.returns

    def info_selector(self, node: Call) -> None:
        """The second argument of `info` is not evaluated: label matchers only, also ones that select all."""
        selector = node.args[1]
        if selector.type is not VECTOR:
            text = f'expected type instant vector in call to function "info", got {_DOCUMENTED[selector.type]}'
            self.fail(text, node.span)
        if not isinstance(selector, VectorSelector):
            self.fail("expected label selectors only", selector.span)
        if selector.name:
            self.fail("expected label selectors only, got vector selector instead", selector.span)

    def binary(self, node: Binary) -> ValueType:
        left, right = self.check(node.left), self.check(node.right)
        matching = node.matching
        assert matching is not None
        op = node.op
        if node.return_bool and op not in COMPARISONS:
            self.fail("bool modifier can only be used on comparison operators", self.operator_span(node))
        if op in COMPARISONS and not node.return_bool and left is SCALAR and right is SCALAR:
            self.fail("comparisons between scalars must use BOOL modifier", self.operator_span(node))
        if op in SET_OPERATORS and matching.cardinality is Cardinality.ONE_TO_ONE:
            matching = replace(matching, cardinality=Cardinality.MANY_TO_MANY)
            object.__setattr__(node, "matching", matching)
        if matching.on:
            for label in matching.labels:
                if label in matching.include:
                    text = f"label {quote(label)} must not occur in ON and GROUP clause at once"
                    self.fail(text, self.operator_span(node))
        for side, found in ((node.left, left), (node.right, right)):
            if found not in _OPERANDS:
                self.fail("binary expression must contain only scalar and instant vector types", side.span)
        filled = matching.fill_left is not None or matching.fill_right is not None
        if left is not VECTOR or right is not VECTOR:
            if matching.labels:
                self.fail("vector matching only allowed between instant vectors", node.span)
            if filled:
                self.fail("filling in missing series only allowed between instant vectors", node.span)
            object.__setattr__(node, "matching", None)
        elif op in SET_OPERATORS:
            if matching.cardinality is not Cardinality.MANY_TO_MANY:
                self.fail(f"no grouping allowed for {quote(op)} operation", node.span)
            if filled:
                self.fail("filling in missing series not allowed for set operators", node.span)
        if op in SET_OPERATORS and (left is SCALAR or right is SCALAR):
            self.fail(f"set operator {quote(op)} not allowed in binary scalar expression", node.span)
        return SCALAR if left is SCALAR and right is SCALAR else VECTOR

    def operator_span(self, node: Binary) -> Span:
        """The operator with its modifiers, without the spaces around it."""
        data = self.text.encode("utf-8", "surrogateescape")
        start, end = node.left.span.end, node.right.span.start
        between = data[start:end]
        return Span(start + len(between) - len(between.lstrip(b" \t\r\n")), start + len(between.rstrip(b" \t\r\n")))
