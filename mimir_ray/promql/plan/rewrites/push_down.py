"""Moves per-series work, and aggregations that come in parts, to where the series are."""

from __future__ import annotations

from mimir_ray.promql.functions import RANGE_FUNCTIONS, VECTOR_FUNCTIONS
from mimir_ray.promql.kernels.arithmetic import ARITHMETIC, COMPARISON
from mimir_ray.promql.operators.accumulators import MERGEABLE
from mimir_ray.promql.operators.names import name_of
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.syntax.ast import ValueType

_RELABELLING = frozenset(("label_replace", "label_join"))


def push_down(node: nodes.PlanNode, delayed_names: bool = False) -> nodes.PlanNode:
    """The plan with the largest movable parts under `Exchange`."""
    if _is_movable(node, delayed_names):
        return nodes.Exchange(node, span=node.span)
    return node.map_children(lambda child: push_down(child, delayed_names))


def _is_movable(node: nodes.PlanNode, delayed: bool) -> bool:
    if isinstance(node, nodes.Aggregate):
        return node.op in MERGEABLE and node.param is None and is_per_series(node.expr, delayed)
    return node.type is ValueType.VECTOR and is_per_series(node, delayed)


def is_per_series(node: nodes.PlanNode, delayed: bool) -> bool:
    """Whether each series of the one selector below comes out by itself, whatever others there are."""
    match node:
        case nodes.Select():
            return True
        case nodes.Exchange():
            return is_per_series(node.expr, delayed)
        case nodes.Negate():
            return _stays_distinct(node.expr, delayed) and is_per_series(node.expr, delayed)
        case nodes.VectorScalar():
            vector_left = node.left.type is ValueType.VECTOR
            vector, scalar = (node.left, node.right) if vector_left else (node.right, node.left)
            if node.op not in ARITHMETIC and node.op not in COMPARISON:
                return False
            return _stays_distinct(vector, delayed) and is_per_series(vector, delayed) and _is_free(scalar)
        case nodes.FunctionCall():
            return _is_per_series_call(node, delayed)
    return False


def _is_per_series_call(node: nodes.FunctionCall, delayed: bool) -> bool:
    inputs = [each for each in node.args if each.type in (ValueType.VECTOR, ValueType.MATRIX)]
    rest = [each for each in node.args if each not in inputs]
    if len(inputs) != 1 or not all(_is_free(each) for each in rest) or not _stays_distinct(inputs[0], delayed):
        return False
    if node.name in RANGE_FUNCTIONS:
        argument = inputs[0]
        inner = isinstance(argument, nodes.RangeSelect) or (
            isinstance(argument, nodes.Subquery)
            and argument.expr.type is ValueType.VECTOR
            and is_per_series(argument.expr, delayed)
        )
        return inner and not RANGE_FUNCTIONS[node.name].absent
    function = VECTOR_FUNCTIONS.get(node.name)
    if function is None or function.needs_all or node.name in _RELABELLING or node.name == "absent":
        return False
    return is_per_series(inputs[0], delayed)


def _stays_distinct(node: nodes.PlanNode, delayed: bool) -> bool:
    """Whether taking names away cannot make two series equal, so that nobody must look at all of them."""
    return delayed or name_of(node) is not None


def _is_free(node: nodes.PlanNode) -> bool:
    """Whether the node reads no series."""
    return not any(isinstance(each, nodes.Select | nodes.RangeSelect) for each in nodes.walk(node))
