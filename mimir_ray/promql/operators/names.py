"""Which metric name a plan's series have, as far as the plan alone tells.

Where all series are known to have the same name, taking it away cannot make two of them equal, so batches
may stream on; where not, somebody has to look at all of them together.
"""

from __future__ import annotations

from mimir_ray.model.labels import METRIC_NAME
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.promql.functions import RANGE_FUNCTIONS, VECTOR_FUNCTIONS
from mimir_ray.promql.kernels.arithmetic import ARITHMETIC
from mimir_ray.promql.plan import nodes
from mimir_ray.promql.syntax.ast import ValueType


def name_of(node: nodes.PlanNode) -> str | None:
    """The one name that all series have ("": none has a name), or None if they may differ.

    For evaluation that takes names away at once, not at the end of the query.
    """
    match node:
        case nodes.Select() | nodes.RangeSelect():
            return _asked_name(node.matchers)
        case nodes.Subquery() | nodes.InfoJoin() | nodes.StepInvariant() | nodes.Shared() | nodes.Exchange():
            return name_of(node.expr)
        case nodes.Aggregate():
            if node.op in ("topk", "bottomk", "limitk", "limit_ratio"):
                return name_of(node.expr)
            if node.without or METRIC_NAME not in node.grouping:
                return "" if not _sets_name(node.param) else None
            return name_of(node.expr)
        case nodes.FunctionCall():
            return _name_of_call(node)
        case nodes.Negate():
            return ""
        case nodes.VectorScalar():
            vector = node.left if node.left.type is ValueType.VECTOR else node.right
            kept = node.op not in ARITHMETIC and not node.return_bool
            return name_of(vector) if kept else ""
        case nodes.Join():
            if METRIC_NAME in node.matching.include or METRIC_NAME in node.matching.labels:
                return None
            if node.op not in ARITHMETIC and not node.return_bool:
                return _same(name_of(node.left), name_of(node.right))
            return ""
        case nodes.SetOperation():
            left = name_of(node.left)
            return _same(left, name_of(node.right)) if node.op == "or" else left
    return None


def _same(left: str | None, right: str | None) -> str | None:
    return left if left == right else None


def _sets_name(param: nodes.PlanNode | None) -> bool:
    return isinstance(param, nodes.Text) and param.value == METRIC_NAME


def _asked_name(matchers: tuple[Matcher, ...]) -> str | None:
    for matcher in matchers:
        if matcher.name == METRIC_NAME and matcher.type is MatchType.EQUAL:
            return matcher.value
    return None


def _name_of_call(node: nodes.FunctionCall) -> str | None:
    function = RANGE_FUNCTIONS.get(node.name) or VECTOR_FUNCTIONS.get(node.name)
    if function is None:
        return ""
    if node.name in ("label_replace", "label_join") and _sets_name(node.args[1]):
        return None
    if node.name in ("absent", "absent_over_time"):
        return ""
    if not function.keeps_name:
        return ""
    vectors = [arg for arg in node.args if arg.type in (ValueType.VECTOR, ValueType.MATRIX)]
    return name_of(vectors[0]) if vectors else ""
