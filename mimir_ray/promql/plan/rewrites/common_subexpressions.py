"""Marks parts that stand in a plan more than once on the same steps, so that they are evaluated once."""

from __future__ import annotations

from collections import Counter

from mimir_ray.promql.plan import nodes
from mimir_ray.promql.syntax.ast import ValueType


def share_common(root: nodes.PlanNode) -> nodes.PlanNode:
    """The plan with the largest repeated vectors and scalars under `Shared`.

    The kept copy is the last one in the text: that is where Prometheus' annotations point.
    """
    seen: Counter[nodes.PlanNode] = Counter()
    last: dict[nodes.PlanNode, nodes.PlanNode] = {}
    for node in nodes.walk(root):
        if _worth_sharing(node):
            seen[node] += 1
            last[node] = node
    if not any(count > 1 for count in seen.values()):
        return root

    def mark(node: nodes.PlanNode) -> nodes.PlanNode:
        if seen.get(node, 0) > 1:
            return nodes.Shared(last[node].map_children(mark), span=node.span)
        return node.map_children(mark)

    return mark(root)


def _worth_sharing(node: nodes.PlanNode) -> bool:
    if node.type not in (ValueType.VECTOR, ValueType.SCALAR):
        return False
    return any(isinstance(each, nodes.Select | nodes.RangeSelect) for each in nodes.walk(node))
