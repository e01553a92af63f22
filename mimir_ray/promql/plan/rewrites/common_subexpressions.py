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

    def mark(node: nodes.PlanNode, times: int) -> nodes.PlanNode:
        """`times`: how often what stands around the node is there; only what is there more often is worth keeping."""
        count = seen.get(node, 0)
        if count > times:
            return nodes.Shared(inside(last[node], count), span=node.span)
        return inside(node, times)

    def inside(node: nodes.PlanNode, times: int) -> nodes.PlanNode:
        if isinstance(node, nodes.Exchange):
            return node  # what is below runs elsewhere, and its kind says how its parts are put together
        return node.map_children(lambda child: mark(child, times))

    return mark(root, 1)


def _worth_sharing(node: nodes.PlanNode) -> bool:
    if node.type not in (ValueType.VECTOR, ValueType.SCALAR):
        return False
    return any(isinstance(each, nodes.Select | nodes.RangeSelect) for each in nodes.walk(node))
