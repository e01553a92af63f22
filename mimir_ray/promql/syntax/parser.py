"""Tokens → a well-typed tree: recursive descent, with precedence climbing for operators.

The grammar, the order in which errors are found and their texts are those of Prometheus 3.14. Where upstream's
generated parser takes the first of two readings, so does this one. Upstream: promql/parser/generated_parser.y.
"""

from __future__ import annotations

from mimir_ray.model.durations import format_duration, parse_duration
from mimir_ray.model.labels import METRIC_NAME, Labels, labels_of
from mimir_ray.model.matchers import Matcher, quote

from . import check
from .ast import (
    NOWHERE,
    Aggregate,
    Binary,
    Call,
    Cardinality,
    Node,
    NumberLiteral,
    Paren,
    Span,
    StringLiteral,
    Unary,
    VectorMatching,
)
from .cursor import EVERYTHING, MAX_LEVELS, MAX_NESTING, METRIC_NAMES, ParserOptions
from .errors import ParseError
from .lexer import DURATION, EOF, IDENTIFIER, MODIFIERS, NUMBER, PREPROCESSORS, STRING
from .literals import unquote
from .parse_selectors import GROUPING, POSTFIX, SelectorParser
from .signatures import AGGREGATORS, AGGREGATORS_WITH_PARAM, EXPERIMENTAL_AGGREGATORS, SIGNATURES

__all__ = [
    "EVERYTHING",
    "MAX_LEVELS",
    "MAX_NESTING",
    "ParseError",
    "ParserOptions",
    "format_duration",
    "parse",
    "parse_duration",
    "parse_metric",
    "parse_selector",
]

_PRECEDENCE = {
    "or": 1,
    **dict.fromkeys(("and", "unless"), 2),
    **dict.fromkeys(("==", ">=", ">", "<", "<=", "!=", "</", ">/"), 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%", "atan2"), 5),
    "^": 6,
}
_POWER = 6
_CALLABLE = PREPROCESSORS | {IDENTIFIER}
_STARTS = METRIC_NAMES | {NUMBER, DURATION, STRING, "(", "{", "+", "-"}
"""Tokens that an expression may start with."""
_FILLS = frozenset({"fill", "fill_left", "fill_right"})
_AGGREGATION = ("aggregation", "")
_ONE_TO_ONE = VectorMatching()


def parse(text: str, options: ParserOptions = EVERYTHING) -> Node:
    """The tree of a PromQL expression, well typed.

    Raises `ParseError` with Prometheus' text; also where the text has more than `MAX_NESTING` or
    the tree more than `MAX_LEVELS` levels.
    """
    try:
        node = _Parser(text, options).query()
        check.check(node, text)
    except RecursionError:  # the caller's own stack was deep already
        raise ParseError("expression is nested too deeply", NOWHERE, text) from None
    return node


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """The matchers of one vector selector, that on the name last, as in `match[]` parameters.

    An empty selector `{}` is not an error here. Upstream: ParseMetricSelector.
    """
    return _Parser(text, EVERYTHING).only_selector()


def parse_metric(text: str) -> Labels:
    """A series' labels, written `name{label="value"}`. Upstream: ParseMetric."""
    return _Parser(text, EVERYTHING).only_metric()


class _Parser(SelectorParser):
    """Reads expressions."""

    # Whole inputs.

    def query(self) -> Node:
        if self.kinds[0] == EOF:
            raise ParseError("no expression found in input", Span(0, 0), self.text)
        node = self.expression(0)
        if self.kinds[self.at] != EOF:
            self.unexpected()
        return node

    def only_selector(self) -> tuple[Matcher, ...]:
        kind = self.kinds[0]
        if kind not in METRIC_NAMES and kind != "{":
            self.unexpected()
        selector = self.selector()
        if self.kinds[self.at] != EOF:
            self.unexpected()
        return selector.matchers

    def only_metric(self) -> Labels:
        pairs: list[tuple[str, str]] = []
        name = ""
        if self.kinds[self.at] in METRIC_NAMES:
            name = self.values[self.at]
            self.at += 1
        if self.kinds[self.at] == "{":
            self.at += 1
            pairs = self.label_set()
        if self.kinds[self.at] != EOF:
            self.unexpected()
        # A name before the braces replaces one inside.
        return labels_of(dict(pairs) | ({METRIC_NAME: name} if name else {}))

    # Expressions.

    def expression(self, min_precedence: int) -> Node:
        """An operand, and the operators behind it that bind at least this tightly."""
        self.enter()
        kinds = self.kinds
        kind = kinds[self.at]
        if kind in ("+", "-"):
            node = self.unary(kind)
        elif kind == "(":
            start = self.starts[self.at]
            self.at += 1
            inner = self.expression(0)
            node = Paren(inner, span=Span(start, self.expect(")")))
            self.grow(self.height + 1)
        else:
            self.height = 1
            node = self.operand(kind)
        if kinds[self.at] in POSTFIX:
            node = self.postfix(node)
        while True:
            op = kinds[self.at]
            precedence = _PRECEDENCE.get(op, 0)
            if not precedence or precedence < min_precedence:
                break
            self.at += 1
            height = self.height
            matching, return_bool = self.modifiers()
            right = self.expression(precedence + (op != "^"))
            if matching.fill_left is not None or matching.fill_right is not None:
                self.check_fill(node, right)
            node = Binary(op, node, right, matching, return_bool, span=Span(node.span.start, right.span.end))
            self.grow(max(height, self.height) + 1)
        self.depth -= 1
        return node

    def check_fill(self, left: Node, right: Node) -> None:
        if not self.options.binop_fill_modifiers:
            self.not_broken()
            span = Span(left.span.start, right.span.end)
            self.fail("binop fill modifiers are experimental and not enabled", span)

    def unary(self, op: str) -> Node:
        """A sign binds as tightly as `*`: `-a ^ b` is `-(a ^ b)`. In front of a number it is part of it."""
        start = self.starts[self.at]
        self.at += 1
        operand = self.expression(_POWER)
        span = Span(start, operand.span.end)
        if isinstance(operand, NumberLiteral):
            value = -operand.value if op == "-" else operand.value
            return NumberLiteral(value, operand.is_duration, span=span)
        self.grow(self.height + 1)
        return Unary(op, operand, span=span)

    def operand(self, kind: str) -> Node:
        at = self.at
        after = self.kinds[at + 1] if at + 1 < len(self.kinds) else EOF
        if kind in AGGREGATORS and after in ("(", "by", "without"):
            return self.aggregate(kind)
        if after == "(" and kind in _CALLABLE:
            return self.call()
        if kind in METRIC_NAMES or kind == "{":
            return self.selector()
        if kind in (NUMBER, DURATION):
            return self.number()
        if kind == STRING:
            self.at += 1
            return StringLiteral(unquote(self.values[at]), span=self.token_span(at))
        return self.unexpected()

    # Calls and aggregations.

    def call(self) -> Call:
        at = self.at
        name = self.values[at]
        self.at += 1
        args = self.arguments()
        signature = SIGNATURES.get(name)
        if signature is None:
            self.fail(f"unknown function with name {quote(name)}", self.token_span(at))
        if signature.experimental and not self.options.experimental_functions:
            self.fail(f"function {quote(name)} is not enabled", self.token_span(at))
        return Call(name, args, signature.returns, span=Span(self.starts[at], self.ends[self.at - 1]))

    def arguments(self) -> tuple[Node, ...]:
        self.expect("(")
        if self.kinds[self.at] == ")":
            self.at += 1
            return ()
        args = [self.expression(0)]
        height = self.height
        while self.kinds[self.at] == ",":
            comma = self.at
            self.at += 1
            if self.kinds[self.at] not in _STARTS:
                self.not_broken()
                self.fail("trailing commas not allowed in function call args", self.token_span(comma))
            args.append(self.expression(0))
            height = max(height, self.height)
        self.expect(")")
        self.grow(height + 1)
        return tuple(args)

    def aggregate(self, op: str) -> Aggregate:
        start = self.starts[self.at]
        self.at += 1
        outer, self.context = self.context, _AGGREGATION
        grouping: tuple[str, ...] = ()
        without = False
        before = self.kinds[self.at] in ("by", "without")
        if before:
            grouping, without = self.grouping()
        args = self.arguments()
        if not before:
            self.not_broken()
            if self.kinds[self.at] in ("by", "without"):
                grouping, without = self.grouping()
        self.context = outer
        span = Span(start, self.ends[self.at - 1])
        if not args:
            self.fail("no arguments for aggregate expression provided", span)
        if op in EXPERIMENTAL_AGGREGATORS and not self.options.experimental_functions:
            feature = "--enable-feature=promql-experimental-functions"
            self.fail(f"{op}() is experimental and must be enabled with {feature}", span)
        wanted = 2 if op in AGGREGATORS_WITH_PARAM else 1
        if len(args) != wanted:
            text = "wrong number of arguments for aggregate expression provided"
            self.fail(f"{text}, expected {wanted}, got {len(args)}", span)
        return Aggregate(op, args[-1], args[0] if wanted == 2 else None, grouping, without, span=span)

    def grouping(self) -> tuple[tuple[str, ...], bool]:
        without = self.kinds[self.at] == "without"
        self.at += 1
        return self.grouping_labels(), without

    # Modifiers of binary operators.

    def modifiers(self) -> tuple[VectorMatching, bool]:
        kinds = self.kinds
        kind = kinds[self.at]
        if kind not in MODIFIERS:
            return _ONE_TO_ONE, False
        return_bool = kind == "bool"
        if return_bool:
            self.at += 1
            kind = kinds[self.at]
        on = kind == "on"
        labels: tuple[str, ...] = ()
        include: tuple[str, ...] = ()
        cardinality = Cardinality.ONE_TO_ONE
        if on or kind == "ignoring":
            self.at += 1
            labels = self.grouping_labels()
            kind = kinds[self.at]
            if kind in ("group_left", "group_right"):
                self.at += 1
                cardinality = Cardinality.MANY_TO_ONE if kind == "group_left" else Cardinality.ONE_TO_MANY
                if kinds[self.at] == "(":
                    include = self.grouping_labels()
                elif kinds[self.at] not in _STARTS:
                    self.unexpected(GROUPING)
        left, right = self.fills()
        return VectorMatching(cardinality, labels, on, include, left, right), return_bool

    def fills(self) -> tuple[float | None, float | None]:
        """`fill (0)`, `fill_left (0)`, `fill_right (0)`, or the last two in any order."""
        left = right = None
        kind = self.kinds[self.at]
        if kind not in _FILLS:
            return None, None
        value = self.fill_value()
        if kind == "fill":
            return value, value
        if kind == "fill_left":
            left = value
            if self.kinds[self.at] == "fill_right":
                right = self.fill_value()
        else:
            right = value
            if self.kinds[self.at] == "fill_left":
                left = self.fill_value()
        return left, right

    def fill_value(self) -> float:
        self.at += 1
        self.expect("(")
        value = self.signed_number()
        self.expect(")")
        return value
