"""The grammar of selectors: names and matchers, and the modifiers behind them."""

from __future__ import annotations

import math
from dataclasses import replace

from mimir_ray.model.labels import METRIC_NAME, is_utf8
from mimir_ray.model.matchers import InvalidRegex, Matcher, MatchType, quote

from .ast import Anchor, MatrixSelector, Node, NumberLiteral, Span, Subquery, VectorSelector
from .cursor import LABEL_NAMES, round_half_away
from .lexer import IDENTIFIER, STRING
from .literals import unquote
from .parse_durations import DurationParser, to_ms

POSTFIX = frozenset({"[", "offset", "@", "anchored", "smoothed"})
"""Tokens that change the operand before them."""
_MATCH_TYPES = {kind.value: kind for kind in MatchType}

_FARTHEST_MS = 2**62

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
GROUPING = ("grouping opts", '"("')
_GROUPING_LABEL = ("grouping opts", "label")
_GROUPING_END = ("grouping opts", '"," or ")"')
_LABEL = ("label set", 'identifier or "}"')
_LABEL_EQUAL = ("label set", '"="')
_LABEL_VALUE = ("label set", "string")
_LABELS_END = ("label set", '"," or "}"')


class SelectorParser(DurationParser):
    """Reads selectors, lists of labels, and what makes ranges and subqueries of operands."""

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
            return _changed(node, target, end, offset_ms=to_ms(duration.value))
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
            at = round_half_away(seconds * 1000)
            if abs(at) > _FARTHEST_MS:
                # In Go what is too large for an integer becomes the smallest one; here there is room for offsets.
                at = -_FARTHEST_MS if abs(at) >= 2**63 or at < 0 else _FARTHEST_MS
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

    # Lists of labels.

    def grouping_labels(self) -> tuple[str, ...]:
        self.expect("(", GROUPING)
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
            if not name or not is_utf8(name):
                self.fail(f"invalid label name for grouping: {quote(name)}", self.token_span(at))
        elif kind not in LABEL_NAMES:
            self.unexpected(_GROUPING_LABEL)
        self.at += 1
        return name


def _changed(node: Node, target: VectorSelector | Subquery, end: int, **changes: object) -> Node:
    """The node with modifiers set, on the selector inside if it is a range."""
    span = Span(node.span.start, end)
    if isinstance(node, MatrixSelector):
        return replace(node, selector=replace(target, **changes), span=span)
    return replace(target, span=span, **changes)


def _fixed(value: float) -> str:
    """As Go's `%f`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:f}"
