"""Lets one side of a binary operation read only series that can meet the other side's.

Of `rate(x{job="a"}[5m]) / on (job) y` only the series of `y` with `job="a"` matter. A condition moves only where
the series that it keeps out could not have failed the query: a join must have a side that is unique by construction
(a side that must be unique and is not fails the query, but not where the other one is empty), and what would complain
about those series is left alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from mimir_ray.model.labels import METRIC_NAME
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.promql.functions import RANGE_FUNCTIONS, VECTOR_FUNCTIONS
from mimir_ray.promql.kernels.arithmetic import ARITHMETIC, COMPARISON
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.syntax.ast import Cardinality, ValueType, VectorMatching

_FOLDS = frozenset(("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"))
_COUNTERS = ("_total", "_sum", "_count", "_bucket")
_COMPLAINING = frozenset(("quantile_over_time", "double_exponential_smoothing"))
_RELABELLING = frozenset(("label_replace", "label_join"))


def propagate_matchers(node: nodes.PlanNode) -> nodes.PlanNode:
    """The plan with matchers copied between the sides of joins and set operations."""
    node = node.map_children(propagate_matchers)
    match node:
        case nodes.Join() if node.matching.fill_left is None and node.matching.fill_right is None:
            one = node.left if node.matching.cardinality is Cardinality.ONE_TO_MANY else node.right
            if not _is_unique(one, node.matching):
                return node
            left = _narrowed(node.left, _shared(node.right, node.matching))
            right = _narrowed(node.right, _shared(node.left, node.matching))
        case nodes.SetOperation(op="and"):
            left = _narrowed(node.left, _shared(node.right, node.matching))
            right = _narrowed(node.right, _shared(node.left, node.matching))
        case nodes.SetOperation(op="unless"):
            left, right = node.left, _narrowed(node.right, _shared(node.left, node.matching))
        case _:
            return node
    return node if left is node.left and right is node.right else dataclasses.replace(node, left=left, right=right)


def _shared(side: nodes.PlanNode, matching: VectorMatching) -> list[Matcher]:
    """What all series of a side satisfy, of labels that both sides have in common."""
    return [
        matcher
        for matcher in _known(side)
        if matcher.name != METRIC_NAME and (matcher.name in matching.labels) == matching.on
    ]


def _known(node: nodes.PlanNode) -> tuple[Matcher, ...]:
    """Conditions that every series of the node satisfies."""
    match node:
        case nodes.Select() | nodes.RangeSelect():
            return node.matchers
        case nodes.Subquery() | nodes.Negate() | nodes.StepInvariant():
            return _known(node.expr)
        case nodes.VectorScalar():
            return _known(node.left if node.left.type is ValueType.VECTOR else node.right)
        case nodes.SetOperation() if node.op != "or":
            return _known(node.left)
        case nodes.FunctionCall():
            argument = _series_argument(node)
            return () if argument is None else _known(argument)
        case nodes.Aggregate() if node.op in _FOLDS:
            return tuple(each for each in _known(node.expr) if _keeps_label(node, each.name))
    return ()


def _narrowed(node: nodes.PlanNode, matchers: Iterable[Matcher]) -> nodes.PlanNode:
    """The node with those of the conditions on its selectors that may be moved there."""
    for matcher in matchers:
        node = _with_matcher(node, matcher) or node
    return node


def _with_matcher(node: nodes.PlanNode, matcher: Matcher) -> nodes.PlanNode | None:
    """The node without the series that fail the condition; None where that cannot be said of its selectors."""
    match node:
        case nodes.Select() | nodes.RangeSelect():
            if not _has_one_name(node):
                return None
            if matcher in node.matchers:
                return node
            return dataclasses.replace(node, matchers=(*node.matchers, matcher))
        case nodes.Subquery() | nodes.Negate():
            return _replaced(node, "expr", matcher)
        case nodes.VectorScalar() if node.op in ARITHMETIC or node.op in COMPARISON:
            return _replaced(node, "left" if node.left.type is ValueType.VECTOR else "right", matcher)
        case nodes.Aggregate() if node.op in _FOLDS and _keeps_label(node, matcher.name):
            return _replaced(node, "expr", matcher)
        case nodes.FunctionCall():
            argument = _series_argument(node)
            if argument is None or _complains(node, argument):
                return None
            inner = _with_matcher(argument, matcher)
            if inner is None:
                return None
            return dataclasses.replace(node, args=tuple(inner if each is argument else each for each in node.args))
    return None


def _replaced(node: nodes.PlanNode, name: str, matcher: Matcher) -> nodes.PlanNode | None:
    child = getattr(node, name)
    inner = _with_matcher(child, matcher)
    if inner is None or inner is child:
        return inner and node
    return dataclasses.replace(node, **{name: inner})


def _series_argument(node: nodes.FunctionCall) -> nodes.PlanNode | None:
    """The argument whose series come out one by one with the labels they had."""
    function = RANGE_FUNCTIONS.get(node.name)
    if function is None:
        of_vector = VECTOR_FUNCTIONS.get(node.name)
        if of_vector is None or of_vector.needs_all or node.name in _RELABELLING or node.name == "absent":
            return None
    elif function.absent:
        return None
    arguments = [each for each in node.args if each.type in (ValueType.VECTOR, ValueType.MATRIX)]
    return arguments[0] if len(arguments) == 1 else None


def _complains(node: nodes.FunctionCall, argument: nodes.PlanNode) -> bool:
    """Whether the function may say something about series that nobody would see."""
    if node.name in _COMPLAINING or not all(each is argument or isinstance(each, nodes.Number) for each in node.args):
        return True
    if node.name not in ("rate", "increase"):
        return False
    return not (isinstance(argument, nodes.RangeSelect) and _name(argument).endswith(_COUNTERS))


def _keeps_label(node: nodes.Aggregate, name: str) -> bool:
    return name != METRIC_NAME and (name in node.grouping) != node.without


def _is_unique(node: nodes.PlanNode, matching: VectorMatching) -> bool:
    """Whether no two series can have the same labels to match: they are groups by no other labels."""
    if not isinstance(node, nodes.Aggregate) or node.op not in _FOLDS or node.without:
        return False
    matched = set(matching.labels)
    return set(node.grouping) <= matched if matching.on else not matched & {*node.grouping}


def _has_one_name(node: nodes.Select | nodes.RangeSelect) -> bool:
    return bool(_name(node))


def _name(node: nodes.Select | nodes.RangeSelect) -> str:
    for matcher in node.matchers:
        if matcher.name == METRIC_NAME and matcher.type is MatchType.EQUAL:
            return matcher.value
    return ""
