"""From syntax to plan: resolves every duration and time, forgets parentheses and unary plus.

Upstream: promql/engine.go PreprocessExpr, foldQueryContextFunctions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mimir_ray.model.labels import is_utf8
from mimir_ray.model.matchers import Matcher, quote
from mimir_ray.promql.functions import ANCHORED_FUNCTIONS, SMOOTHED_FUNCTIONS
from mimir_ray.promql.limits import EvaluationError
from mimir_ray.promql.syntax import ast
from mimir_ray.promql.syntax.ast import ValueType

from . import nodes
from .durations import QueryTimes

SET_OPERATORS = frozenset(("and", "or", "unless"))
_FROM_STARTS = frozenset(("rate", "increase", "irate", "resets"))
"""Functions of counters that look at start timestamps, but in windows that see beyond their edges."""
COMPARISONS = frozenset(("==", "!=", "<", "<=", ">", ">="))


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Durations in ms: `lookback_ms` of instant selectors, `default_step_ms` of subqueries without a step.

    `start_timestamps`: functions of counters look at them, and `start_timestamp` gives them.
    """

    lookback_ms: int = 300_000
    default_step_ms: int = 60_000
    start_timestamps: bool = False


def build(tree: ast.Node, times: QueryTimes, options: PlanOptions | None = None) -> nodes.Plan:
    """The plan of an expression at every step from start to end (an instant query has step 0).

    Raises `InvalidDuration` for a duration that comes out wrong, `EvaluationError` for what no data can answer.
    """
    steps = nodes.Steps.between(times.start_ms, times.end_ms, times.step_ms or 1)
    return nodes.Plan(_Builder(times, options or PlanOptions()).node(tree), steps)


class _Builder:
    def __init__(self, times: QueryTimes, options: PlanOptions) -> None:
        self._times = times
        self._options = options
        self._builders: dict[type[ast.Node], Callable[..., nodes.PlanNode]] = {
            ast.NumberLiteral: lambda tree: nodes.Number(tree.value, span=tree.span),
            ast.StringLiteral: lambda tree: nodes.Text(tree.value, span=tree.span),
            ast.Paren: lambda tree: self.node(tree.expr),
            ast.VectorSelector: self._select,
            ast.MatrixSelector: self._range_select,
            ast.Subquery: self._subquery,
            ast.Unary: self._unary,
            ast.Binary: self._binary,
            ast.Aggregate: self._aggregate,
            ast.Call: self._call,
        }

    def node(self, tree: ast.Node) -> nodes.PlanNode:
        return self._builders[type(tree)](tree)

    def _select(self, tree: ast.VectorSelector) -> nodes.PlanNode:
        return nodes.Select(
            tree.matchers,
            self._options.lookback_ms,
            self._times.duration_ms(tree.offset_expr, tree.offset_ms, negative=True),
            self._times.anchor(tree.at),
            smoothed=tree.smoothed,
            span=tree.span,
        )

    def _range_select(self, tree: ast.MatrixSelector) -> nodes.PlanNode:
        inner = tree.selector
        extended: nodes.Extended | None = "anchored" if inner.anchored else "smoothed" if inner.smoothed else None
        return nodes.RangeSelect(
            inner.matchers,
            self._times.duration_ms(tree.range_expr, tree.range_ms),
            self._times.duration_ms(inner.offset_expr, inner.offset_ms, negative=True),
            self._times.anchor(inner.at),
            extended=extended,
            lookback_ms=self._options.lookback_ms if extended else 0,
            span=tree.span,
        )

    def _subquery(self, tree: ast.Subquery) -> nodes.PlanNode:
        step_ms = self._times.duration_ms(tree.step_expr, tree.step_ms)
        return nodes.Subquery(
            self.node(tree.expr),
            self._times.duration_ms(tree.range_expr, tree.range_ms),
            step_ms or self._options.default_step_ms,
            self._times.duration_ms(tree.offset_expr, tree.offset_ms, negative=True),
            self._times.anchor(tree.at),
            span=tree.span,
        )

    def _unary(self, tree: ast.Unary) -> nodes.PlanNode:
        inner = self.node(tree.expr)
        return nodes.Negate(inner, span=tree.span) if tree.op == "-" else inner

    def _binary(self, tree: ast.Binary) -> nodes.PlanNode:
        left, right = self.node(tree.left), self.node(tree.right)
        scalars = [side.type is ValueType.SCALAR for side in (left, right)]
        if all(scalars):
            return nodes.ScalarBinary(tree.op, left, right, span=tree.span)
        if any(scalars):
            return nodes.VectorScalar(tree.op, left, right, tree.return_bool, span=tree.span)
        matching = tree.matching or ast.VectorMatching()
        if tree.op in SET_OPERATORS:
            return nodes.SetOperation(tree.op, left, right, matching, span=tree.span)
        return nodes.Join(tree.op, left, right, matching, tree.return_bool, span=tree.span)

    def _aggregate(self, tree: ast.Aggregate) -> nodes.PlanNode:
        param = None if tree.param is None else self.node(tree.param)
        if tree.op == "count_values":
            assert isinstance(param, nodes.Text)
            if not param.value or not is_utf8(param.value):
                raise EvaluationError(f"invalid label name {quote(param.value)}")
        grouping = tuple(sorted(set(tree.grouping)))
        return nodes.Aggregate(tree.op, self.node(tree.expr), grouping, tree.without, param, span=tree.span)

    def _call(self, tree: ast.Call) -> nodes.PlanNode:
        if not tree.args and tree.name in ast.CONTEXT_FUNCTIONS:
            return nodes.Number(self._context_value(tree.name), span=tree.span)
        if tree.name == "info":
            return self._info(tree)
        args = tuple(self.node(argument) for argument in tree.args)
        for argument in args:
            if isinstance(argument, nodes.RangeSelect) and argument.extended is not None:
                _check_extended(argument.extended, tree.name)
        if isinstance(args[0] if args else None, nodes.Select | nodes.RangeSelect):
            args = (self._argument(tree.name, args[0]), *args[1:])
        return nodes.FunctionCall(tree.name, args, tree.returns, _as_annotated(tree), span=tree.span)

    def _argument(self, function: str, select: nodes.PlanNode) -> nodes.PlanNode:
        """The selector that is a function's first argument, told what is wanted of its samples."""
        if isinstance(select, nodes.Select):
            times, starts = function == "timestamp", function == "start_timestamp" and self._options.start_timestamps
            if times or starts:
                return replace(select, sample_times=times, start_timestamps=starts, smoothed=False)
        elif isinstance(select, nodes.RangeSelect) and select.extended is None and function in _FROM_STARTS:
            return replace(select, start_timestamps=self._options.start_timestamps)
        return select

    def _info(self, tree: ast.Call) -> nodes.PlanNode:
        expr = self.node(tree.args[0])
        matchers: tuple[Matcher, ...] = ()
        if len(tree.args) > 1:
            assert isinstance(tree.args[1], ast.VectorSelector)
            matchers = tree.args[1].matchers
        offset_ms, at_ms = _reference_time(expr) or (0, None)
        lookback_ms, selective = self._options.lookback_ms, len(tree.args) > 1
        return nodes.InfoJoin(expr, matchers, lookback_ms, offset_ms, at_ms, selective, span=tree.span)

    def _context_value(self, name: str) -> float:
        times = self._times
        if name == "start":
            return times.start_ms / 1000
        if name == "end":
            return times.end_ms / 1000
        if name == "range":
            return (times.end_ms - times.start_ms) / 1000
        return 0.0 if times.start_ms == times.end_ms else times.step_ms / 1000


def _reference_time(node: nodes.PlanNode) -> tuple[int, int | None] | None:
    """(offset_ms, at_ms) of the first selector in the node, subqueries around it included; None without one.

    Upstream: promql/info.go infoSelectTimestampAndOffset.
    """
    if isinstance(node, nodes.Select | nodes.RangeSelect):
        return node.offset_ms, node.at_ms
    children = list(node.children())
    if isinstance(node, nodes.Aggregate):
        children.sort(key=lambda child: child is not node.expr)
    for child in children:
        found = _reference_time(child)
        if found is None:
            continue
        if isinstance(node, nodes.Subquery) and found[1] is None:
            return found[0] + node.offset_ms, node.at_ms
        return found
    return None


def _as_annotated(tree: ast.Call) -> ast.Call:
    """The call as annotations see it: without parentheses around arguments, and upstream forgets where a subquery stood
    once it is evaluated.
    """
    if not any(isinstance(argument, ast.Paren | ast.Subquery) for argument in tree.args):
        return tree
    bare = map(_bare, tree.args)
    return replace(
        tree, args=tuple(replace(each, span=ast.NOWHERE) if isinstance(each, ast.Subquery) else each for each in bare)
    )


def _bare(tree: ast.Node) -> ast.Node:
    while isinstance(tree, ast.Paren):
        tree = tree.expr
    return tree


def _check_extended(modifier: nodes.Extended, function: str) -> None:
    """Upstream: promql/engine.go eval, case *parser.Call."""
    allowed = ANCHORED_FUNCTIONS if modifier == "anchored" else SMOOTHED_FUNCTIONS
    if function not in allowed:
        names = ", ".join(sorted(allowed))
        raise EvaluationError(f"{modifier} modifier can only be used with: {names} - not with {function}")
