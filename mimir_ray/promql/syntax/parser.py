"""Tokens → a well-typed tree: recursive descent, with precedence climbing for operators.

The grammar, the order in which errors are found and their texts are those of Prometheus 3.14. Where upstream's
generated parser takes the first of two readings, so does this one. Upstream: promql/parser/generated_parser.y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NoReturn

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.labels import METRIC_NAME, Labels, labels_of
from mimir_ray.model.matchers import InvalidRegex, Matcher, MatchType, quote

from . import check
from .ast import (
    NOWHERE,
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
    Span,
    StringLiteral,
    Subquery,
    Unary,
    VectorMatching,
    VectorSelector,
)
from .durations import parse_duration
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
from .literals import parse_number, unquote
from .signatures import AGGREGATORS, AGGREGATORS_WITH_PARAM, EXPERIMENTAL_AGGREGATORS, SIGNATURES


@dataclass(frozen=True, slots=True)
class ParserOptions:
    """Which experimental syntax is accepted. Upstream: parser.Options."""

    experimental_functions: bool = True
    duration_expressions: bool = True
    extended_range_selectors: bool = True
    binop_fill_modifiers: bool = True


EVERYTHING = ParserOptions()

MAX_NESTING = 150
"""Parentheses, calls and signs around each other. Everything that reads trees recurses, as does the parser."""
MAX_LEVELS = 250
"""Levels of a tree; chains of operators without parentheses are nested trees, too."""

_PRECEDENCE = {
    "or": 1,
    **dict.fromkeys(("and", "unless"), 2),
    **dict.fromkeys(("==", ">=", ">", "<", "<=", "!=", "</", ">/"), 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%", "atan2"), 5),
    "^": 6,
}
_DURATION_PRECEDENCE = {op: _PRECEDENCE[op] for op in "+-*/%^"}
_POWER = 6

_NEVER_NAMES = frozenset({"atan2", "bool", "group_left", "group_right", "ignoring", "on"})
_KEYWORDS = AGGREGATORS | MODIFIERS | PREPROCESSORS | WORD_OPERATORS
_METRIC_NAMES = (_KEYWORDS - _NEVER_NAMES) | {IDENTIFIER, METRIC_IDENTIFIER}
_LABEL_NAMES = _KEYWORDS | {IDENTIFIER, METRIC_IDENTIFIER}
_CALLABLE = PREPROCESSORS | {IDENTIFIER}
_POSTFIX = frozenset({"[", "offset", "@", "anchored", "smoothed"})
_MATCH_TYPES = {kind.value: kind for kind in MatchType}
_FILLS = frozenset({"fill", "fill_left", "fill_right"})
_SYMBOL_OPERATORS = frozenset(
    ("+", "/", "==", "=~", ">=", ">", "</", ">/", "<", "<=", "%", "*", "!=", "!~", "^", "-", "@")
)
_DURATION_NAMES = {"max_of": "max", "min_of": "min"}

_NO_CONTEXT = ("", "")
_AGGREGATION = ("aggregation", "")
_OFFSET = ("offset", "number, duration, step(), or range()")
_AT = ("@", "timestamp")
_RANGE = ("subquery or range selector", "number, duration, step(), or range()")
_RANGE_END = ("subquery or range", '":" or "]"')
_STEP = ("subquery selector", 'number, duration, step(), range(), or "]"')
_STEP_END = ("subquery selector", '"]"')
_MATCHER = ("label matching", 'identifier or "}"')
_MATCHER_OP = ("label matching", "label matching operator")
_MATCHER_VALUE = ("label matching", "string")
_MATCHERS_END = ("label matching", '"," or "}"')
_GROUPING = ("grouping opts", '"("')
_GROUPING_LABEL = ("grouping opts", "label")
_GROUPING_END = ("grouping opts", '"," or ")"')
_LABEL = ("label set", 'identifier or "}"')
_LABEL_EQUAL = ("label set", '"="')
_LABEL_VALUE = ("label set", "string")
_LABELS_END = ("label set", '"," or "}"')


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


class _Parser:
    """Reads tokens from left to right. Each method leaves `at` on the first token that it does not take."""

    def __init__(self, text: str, options: ParserOptions) -> None:
        self.text = text
        self.options = options
        self.kinds, self.values, self.starts, self.ends = tokenize(text)
        self.at = 0
        self.context = _NO_CONTEXT
        self.depth = 0
        self.height = 0
        """Levels of the tree that `expression` returned last."""

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
        if kind not in _METRIC_NAMES and kind != "{":
            self.unexpected()
        selector = self.selector()
        if self.kinds[self.at] != EOF:
            self.unexpected()
        return selector.matchers

    def only_metric(self) -> Labels:
        pairs: list[tuple[str, str]] = []
        name = ""
        if self.kinds[self.at] in _METRIC_NAMES:
            name = self.values[self.at]
            self.at += 1
        if self.kinds[self.at] == "{":
            self.at += 1
            pairs = self.label_set()
        if self.kinds[self.at] != EOF:
            self.unexpected()
        # A name before the braces replaces one inside.
        return labels_of(dict(pairs) | ({METRIC_NAME: name} if name else {}))

    # Errors.

    def unexpected(self, context: tuple[str, str] | None = None) -> NoReturn:
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

    def fail(self, reason: str, span: Span) -> NoReturn:
        raise ParseError(reason, span, self.text)

    def expect(self, kind: str, context: tuple[str, str] | None = None) -> int:
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
        if kinds[self.at] in _POSTFIX:
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
        if kind in _METRIC_NAMES or kind == "{":
            return self.selector()
        if kind in (NUMBER, DURATION):
            return self.number()
        if kind == STRING:
            self.at += 1
            return StringLiteral(unquote(self.values[at]), span=self.token_span(at))
        return self.unexpected()

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
            if self.kinds[self.at] in (")", ","):
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
        if not before and self.kinds[self.at] in ("by", "without"):
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

    def grouping_labels(self) -> tuple[str, ...]:
        self.expect("(", _GROUPING)
        if self.kinds[self.at] == ")":
            self.at += 1
            return ()
        names = [self.grouping_label()]
        while self.kinds[self.at] != ")":
            self.expect(",", _GROUPING_END)
            if self.kinds[self.at] == ")":
                break
            names.append(self.grouping_label())
        self.at += 1
        return tuple(names)

    def grouping_label(self) -> str:
        at = self.at
        kind, name = self.kinds[at], self.values[at]
        if kind == STRING:
            name = unquote(name)
            if not name or "\ufffd" in name:
                self.fail(f"invalid label name for grouping: {quote(name)}", self.token_span(at))
        elif kind not in _LABEL_NAMES:
            self.unexpected(_GROUPING_LABEL)
        self.at += 1
        return name

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

    # Selectors.

    def selector(self) -> VectorSelector:
        start = self.starts[self.at]
        name = ""
        if self.kinds[self.at] != "{":
            name = self.values[self.at]
            self.at += 1
        matchers: list[Matcher] = []
        if self.kinds[self.at] == "{":
            self.at += 1
            self.matchers(matchers)
        if name:
            matchers.append(Matcher(MatchType.EQUAL, METRIC_NAME, name))
        return VectorSelector(name, tuple(matchers), span=Span(start, self.ends[self.at - 1]))

    def matchers(self, out: list[Matcher]) -> None:
        """Up to and with the closing brace."""
        if self.kinds[self.at] == "}":
            self.at += 1
            return
        while True:
            out.append(self.matcher())
            if self.kinds[self.at] == ",":
                self.at += 1
                if self.kinds[self.at] != "}":
                    continue
            self.expect("}", _MATCHERS_END)
            return

    def matcher(self) -> Matcher:
        at = self.at
        kind, name = self.kinds[at], self.values[at]
        if kind == STRING:
            name = unquote(name)
        elif kind != IDENTIFIER:
            self.unexpected(_MATCHER)
        self.at += 1
        match_type = _MATCH_TYPES.get(self.kinds[self.at])
        if match_type is None:
            if kind == IDENTIFIER:
                self.unexpected(_MATCHER_OP)
            return Matcher(MatchType.EQUAL, METRIC_NAME, name)
        self.at += 1
        if self.kinds[self.at] != STRING:
            self.unexpected(_MATCHER_VALUE)
        value = unquote(self.values[self.at])
        self.at += 1
        try:
            return Matcher(match_type, name, value)
        except InvalidRegex as error:
            self.fail(str(error), Span(self.starts[at], self.ends[self.at - 1]))

    def label_set(self) -> list[tuple[str, str]]:
        """The labels of one series, up to and with the closing brace."""
        pairs: list[tuple[str, str]] = []
        while self.kinds[self.at] != "}" or not pairs:
            if self.kinds[self.at] == "}":
                break
            kind, name = self.kinds[self.at], self.values[self.at]
            if kind not in (IDENTIFIER, STRING):
                self.unexpected(_LABEL)
            self.at += 1
            if kind == STRING:
                name = unquote(name)
            if self.kinds[self.at] == "=":
                self.at += 1
                if self.kinds[self.at] != STRING:
                    self.unexpected(_LABEL_VALUE)
                pairs.append((name, unquote(self.values[self.at])))
                self.at += 1
            elif kind == STRING:
                pairs.append((METRIC_NAME, name))
            else:
                self.unexpected(_LABEL_EQUAL)
            if self.kinds[self.at] == ",":
                self.at += 1
            elif self.kinds[self.at] != "}":
                self.unexpected(_LABELS_END)
        self.at += 1
        return pairs

    # What follows an operand.

    def postfix(self, node: Node) -> Node:
        while True:
            kind = self.kinds[self.at]
            if kind == "[":
                node = self.brackets(node)
            elif kind == "offset":
                self.at += 1
                node = self.offset(node)
            elif kind == "@":
                self.at += 1
                node = self.at_modifier(node)
            elif kind in ("anchored", "smoothed"):
                self.at += 1
                node = self.extended(node, kind)
            else:
                return node

    def brackets(self, node: Node) -> Node:
        open_at = self.at
        self.at += 1
        range_ms, range_expr = self.positive_duration(_RANGE)
        kind = self.kinds[self.at]
        if kind == "]":
            end = self.ends[self.at]
            self.at += 1
            reason = ""
            if not isinstance(node, VectorSelector):
                reason = "ranges only allowed for vector selectors"
            elif node.offset_ms or node.offset_expr is not None:
                reason = "no offset modifiers allowed before range"
            elif node.at is not None:
                reason = "no @ modifiers allowed before range"
            if reason or not isinstance(node, VectorSelector):
                self.fail(reason, Span(self.starts[open_at], end))
            self.grow(self.height + 1)
            return MatrixSelector(node, range_ms, range_expr, span=Span(node.span.start, end))
        if kind != ":":
            self.unexpected(_RANGE_END)
        self.at += 1
        step_ms, step_expr = 0, None
        if self.kinds[self.at] != "]":
            step_ms, step_expr = self.positive_duration(_STEP)
        end = self.expect("]", _STEP_END)
        self.grow(self.height + 1)
        return Subquery(
            node, range_ms, step_ms, range_expr=range_expr, step_expr=step_expr, span=Span(node.span.start, end)
        )

    def offset(self, node: Node) -> Node:
        outer, self.context = self.context, _OFFSET
        duration = self.offset_duration()
        self.context = outer
        end = self.ends[self.at - 1]
        target = node.selector if isinstance(node, MatrixSelector) else node
        if not isinstance(target, VectorSelector | Subquery):
            text = (
                "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery"
            )
            self.fail(text, node.span)
        if target.offset_ms or target.offset_expr is not None:
            self.fail("offset may not be set multiple times", node.span)
        if isinstance(duration, NumberLiteral):
            return _changed(node, target, end, offset_ms=_to_ms(duration.value))
        return _changed(node, target, end, offset_expr=duration)

    def at_modifier(self, node: Node) -> Node:
        outer, self.context = self.context, _AT
        kind = self.kinds[self.at]
        at: int | Anchor
        if kind in ("start", "end"):
            self.at += 1
            self.expect("(")
            self.expect(")")
            at = Anchor(kind)
        else:
            seconds = self.signed_number()
            if not math.isfinite(seconds) or abs(seconds) >= 2.0**63:
                self.fail(f"timestamp out of bounds for @ modifier: {_fixed(seconds)}", node.span)
            at = _round_half_away(seconds * 1000)
        self.context = outer
        target = node.selector if isinstance(node, MatrixSelector) else node
        if not isinstance(target, VectorSelector | Subquery):
            text = "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery"
            self.fail(text, node.span)
        if target.at is not None:
            self.fail("@ <timestamp> may not be set multiple times", node.span)
        return _changed(node, target, self.ends[self.at - 1], at=at)

    def extended(self, node: Node, kind: str) -> Node:
        if not self.options.extended_range_selectors:
            self.fail(f"{kind} modifier is experimental and not enabled", node.span)
        target = node.selector if isinstance(node, MatrixSelector) else node
        if isinstance(target, Subquery):
            self.fail(f"{kind} modifier is not supported for subqueries", node.span)
        if not isinstance(target, VectorSelector):
            self.fail(f"{kind} modifier not implemented", node.span)
        if target.smoothed if kind == "anchored" else target.anchored:
            self.fail("anchored and smoothed modifiers cannot be used together", node.span)
        changed = replace(target, anchored=True) if kind == "anchored" else replace(target, smoothed=True)
        return replace(node, selector=changed) if isinstance(node, MatrixSelector) else changed

    # Durations.

    def positive_duration(self, context: tuple[str, str]) -> tuple[int, DurationExpr | None]:
        outer, self.context = self.context, context
        node = self.duration(0)
        self.context = outer
        if isinstance(node, DurationExpr):
            return 0, node
        if node.value <= 0:
            self.fail("duration must be greater than 0", node.span)
        return _to_ms(node.value), None

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
            operand = self.duration_operand()
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
            precedence = _DURATION_PRECEDENCE.get(op, 0)
            if not precedence or precedence < min_precedence:
                break
            self.at += 1
            right = self.duration(precedence + (op != "^"))
            self.need_duration_expressions(left.span)
            if op in "/%" and isinstance(right, NumberLiteral) and right.value == 0:
                self.fail("division by zero" if op == "/" else "modulo by zero", self.token_span(at))
            left = DurationExpr(op, left, right, span=Span(left.span.start, right.span.end))
        self.depth -= 1
        return left

    def duration_operand(self) -> NumberLiteral | DurationExpr:
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
            self.need_duration_expressions(node.span)
            return node
        if kind in _DURATION_NAMES:
            self.at += 1
            self.expect("(")
            first = self.duration(0)
            self.expect(",")
            second = self.duration(0)
            node = DurationExpr(_DURATION_NAMES[kind], first, second, span=Span(start, self.expect(")")))
            self.need_duration_expressions(node.span)
            return node
        if kind == "(":
            self.at += 1
            inner = self.duration(0)
            end = self.expect(")")
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


_ONE_TO_ONE = VectorMatching()


def _changed(node: Node, target: VectorSelector | Subquery, end: int, **changes: object) -> Node:
    """The node with modifiers set, on the selector inside if it is a range."""
    span = Span(node.span.start, end)
    if isinstance(node, MatrixSelector):
        return replace(node, selector=replace(target, **changes), span=span)  # type: ignore[arg-type]
    return replace(target, span=span, **changes)  # type: ignore[arg-type]


def _to_ms(seconds: float) -> int:
    """Seconds to ms the way that Go's durations have them: whole nanoseconds, then cut."""
    nanoseconds = _round_half_away(seconds * 1e9)
    return int(math.copysign(abs(nanoseconds) // 1_000_000, nanoseconds))


def _round_half_away(value: float) -> int:
    whole = math.floor(abs(value))
    whole += abs(value) - whole >= 0.5
    return int(math.copysign(1, value)) * int(whole)


def _fixed(value: float) -> str:
    """As Go's `%f`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:f}"


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
