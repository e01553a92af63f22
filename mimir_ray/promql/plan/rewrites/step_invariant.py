"""Evaluates once what is the same at every step: selectors with `@` and all that is built on them alone.

What counts as invariant is upstream's decision, including that an aggregation's parameter is not looked
at. Upstream: promql/engine.go preprocessExprHelper, functions.go AtModifierUnsafeFunctions.
"""

from __future__ import annotations

import dataclasses

from mimir_ray.promql.plan import nodes
from mimir_ray.promql.syntax.ast import ValueType

TIME_DEPENDENT = frozenset((
    "day_of_month", "day_of_week", "day_of_year", "days_in_month", "end", "hour", "minute", "month",
    "predict_linear", "range", "start", "step", "time", "timestamp", "year",
))  # fmt: skip
"""Functions whose answer moves with the evaluation time even on arguments that do not."""


def hoist_step_invariant(root: nodes.PlanNode) -> nodes.PlanNode:
    """The plan with the largest invariant parts under `StepInvariant`."""
    new, invariant = _hoist(root)
    return _wrap(new) if invariant else new


def _wrap(node: nodes.PlanNode) -> nodes.PlanNode:
    if isinstance(node, nodes.Number | nodes.Text | nodes.StepInvariant) or node.type is ValueType.MATRIX:
        return node
    return nodes.StepInvariant(node, span=node.span)


def _hoist(node: nodes.PlanNode) -> tuple[nodes.PlanNode, bool]:
    """(node with invariant parts below it hoisted, whether all of it is invariant)."""
    match node:
        case nodes.Number() | nodes.Text():
            return node, True
        case nodes.Select() | nodes.RangeSelect():
            return node, node.at_ms is not None
        case nodes.Subquery():
            inner, invariant = _hoist(node.expr)
            if invariant:
                inner = _wrap(inner)
            if inner is not node.expr:
                node = dataclasses.replace(node, expr=inner)
            return node, node.at_ms is not None
        case nodes.Aggregate():
            inner, invariant = _hoist(node.expr)
            if inner is not node.expr:
                node = dataclasses.replace(node, expr=inner)
            return node, invariant
        case nodes.InfoJoin():
            # Upstream counts the second argument, a selector without `@`, as something that moves.
            inner, invariant = _hoist(node.expr)
            if node.selective and invariant:
                inner, invariant = _wrap(inner), False
            return (node if inner is node.expr else dataclasses.replace(node, expr=inner)), invariant
        case nodes.Negate():
            inner, invariant = _hoist(node.expr)
            return (node if inner is node.expr else dataclasses.replace(node, expr=inner)), invariant
    return _hoist_inputs(node)


def _hoist_inputs(node: nodes.PlanNode) -> tuple[nodes.PlanNode, bool]:
    inputs = {id(child): _hoist(child) for child in node.children()}
    invariant = all(flag for _, flag in inputs.values())
    if isinstance(node, nodes.FunctionCall) and node.name in TIME_DEPENDENT:
        # timestamp(x @ 1) is the time of a sample, so it stays; of anything else it is the evaluation time.
        invariant = invariant and node.name == "timestamp" and isinstance(node.args[0], nodes.Select)
    if invariant:
        return node.map_children(lambda child: inputs[id(child)][0]), True
    return node.map_children(
        lambda child: _wrap(inputs[id(child)][0]) if inputs[id(child)][1] else inputs[id(child)][0]
    ), False
