"""An evaluator of PromQL that a beginner can check: one step at a time, one series at a time, dicts and lists.

Knows instant selectors, sum/avg/min/max/count/group/topk/bottomk/quantile, binary operators of vectors and
numbers, set operators, negation, and `max_over_time` of selectors and subqueries. Takes names away at once.
"""

from __future__ import annotations

import math
import operator
import struct

from mimir_ray.model.labels import Labels
from mimir_ray.model.series import STALE_NAN_BITS
from mimir_ray.promql.syntax import ast
from mimir_ray.promql.syntax.ast import Cardinality
from mimir_ray.testing.sources import ListSource, satisfies

Vector = list[tuple[Labels, float]]
METADATA = ("__name__", "__type__", "__unit__")


class Refused(Exception):
    """The query has no answer on this data."""


def is_stale(value: float) -> bool:
    return struct.unpack("<Q", struct.pack("<d", value))[0] == STALE_NAN_BITS


def without(labels: Labels, names: tuple[str, ...]) -> Labels:
    return tuple(pair for pair in labels if pair[0] not in names)


def only(labels: Labels, names: tuple[str, ...]) -> Labels:
    return tuple(pair for pair in labels if pair[0] in names)


def distinct(vector: Vector) -> Vector:
    if len({labels for labels, _ in vector}) < len(vector):
        raise Refused("vector cannot contain metrics with the same labelset")
    return vector


def divide(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": divide}
COMPARISON = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class SlowEngine:
    def __init__(self, source: ListSource, lookback_ms: int = 300_000) -> None:
        self.source = source
        self.lookback_ms = lookback_ms

    def range(self, tree: ast.Node, start_ms: int, end_ms: int, step_ms: int) -> dict[Labels, dict[int, float]]:
        answer: dict[Labels, dict[int, float]] = {}
        for now in range(start_ms, end_ms + 1, step_ms):
            value = self.at(tree, now)
            if isinstance(value, float):
                value = [((), value)]
            for labels, sample in value:
                answer.setdefault(labels, {})[now] = sample
        return answer

    def at(self, tree: ast.Node, now: int) -> Vector | float:
        """The value of an expression at one time."""
        match tree:
            case ast.NumberLiteral():
                return tree.value
            case ast.Paren():
                return self.at(tree.expr, now)
            case ast.VectorSelector():
                return self.selector(tree, now)
            case ast.Unary():
                inner = self.at(tree.expr, now)
                if tree.op == "+":
                    return inner
                if isinstance(inner, float):
                    return -inner
                return distinct([(without(labels, METADATA), -value) for labels, value in inner])
            case ast.Aggregate():
                return self.aggregate(tree, now)
            case ast.Binary():
                return self.binary(tree, now)
            case ast.Call(name="max_over_time"):
                return self.max_over_time(tree.args[0], now)
        raise NotImplementedError(tree)

    def samples(self, selector: ast.VectorSelector, first: int, last: int) -> dict[Labels, list[tuple[int, float]]]:
        found = {}
        for labels, points in sorted(self.source.series.items()):
            if satisfies(labels, selector.matchers):
                found[labels] = sorted((t, v) for t, v in points.items() if first < t <= last)
        return found

    def selector(self, tree: ast.VectorSelector, now: int) -> Vector:
        at = (tree.at if isinstance(tree.at, int) else now) - tree.offset_ms
        found = self.samples(tree, at - self.lookback_ms, at)
        return [(labels, points[-1][1]) for labels, points in found.items() if points and not is_stale(points[-1][1])]

    def max_over_time(self, tree: ast.Node, now: int) -> Vector:
        windows: dict[Labels, list[float]] = {}
        if isinstance(tree, ast.MatrixSelector):
            inner = tree.selector
            at = (inner.at if isinstance(inner.at, int) else now) - inner.offset_ms
            for labels, points in self.samples(inner, at - tree.range_ms, at).items():
                windows[labels] = [value for _, value in points if not is_stale(value)]
        else:
            assert isinstance(tree, ast.Subquery)
            at = (tree.at if isinstance(tree.at, int) else now) - tree.offset_ms
            step = tree.step_ms or 60_000
            for then in range(at - tree.range_ms + 1, at + 1):
                if then % step == 0:
                    value = self.at(tree.expr, then)
                    for labels, sample in [((), value)] if isinstance(value, float) else value:
                        windows.setdefault(labels, []).append(sample)
        return distinct([(without(labels, METADATA), largest(values)) for labels, values in windows.items() if values])

    def aggregate(self, tree: ast.Aggregate, now: int) -> Vector:
        vector = self.at(tree.expr, now)
        assert not isinstance(vector, float)
        param = self.at(tree.param, now) if tree.param is not None else 0.0
        assert isinstance(param, float)
        groups: dict[Labels, Vector] = {}
        for labels, value in vector:
            key = without(labels, (*tree.grouping, "__name__")) if tree.without else only(labels, tree.grouping)
            groups.setdefault(key, []).append((labels, value))
        if tree.op in ("topk", "bottomk"):
            return [one for members in groups.values() for one in ranked(members, int(param), tree.op)]
        return [(key, fold(tree.op, [value for _, value in members], param)) for key, members in groups.items()]

    def binary(self, tree: ast.Binary, now: int) -> Vector | float:
        left, right = self.at(tree.left, now), self.at(tree.right, now)
        if isinstance(left, float) and isinstance(right, float):
            return calculate(tree.op, left, right)
        if isinstance(left, float) or isinstance(right, float):
            return self.with_scalar(tree, left, right)
        matching = tree.matching or ast.VectorMatching()

        def signature(labels: Labels) -> Labels:
            names = matching.labels
            return only(labels, names) if matching.on else without(labels, (*names, "__name__"))

        if tree.op in ("and", "unless"):
            known = {signature(labels) for labels, _ in right}
            return [one for one in left if (signature(one[0]) in known) == (tree.op == "and")]
        if tree.op == "or":
            known = {signature(labels) for labels, _ in left}
            return distinct(left + [one for one in right if signature(one[0]) not in known])
        if not left or not right:
            return []
        swapped = matching.cardinality is Cardinality.ONE_TO_MANY
        many, one = (right, left) if swapped else (left, right)
        ones: dict[Labels, tuple[Labels, float]] = {}
        for labels, value in one:
            if signature(labels) in ones:
                raise Refused("found duplicate series for the match group")
            ones[signature(labels)] = labels, value
        return self.matched(tree, matching, many, ones, signature, swapped)

    @staticmethod
    def matched(tree, matching, many, ones, signature, swapped):  # type: ignore[no-untyped-def]
        out: Vector = []
        taken: set[object] = set()
        for labels, value in many:
            key = signature(labels)
            if key not in ones:
                continue
            other_labels, other = ones[key]
            a, b = (other, value) if swapped else (value, other)
            result = labels
            if tree.op in ARITHMETIC or tree.return_bool:
                result = without(result, METADATA)
            if matching.cardinality is Cardinality.ONE_TO_ONE:
                result = only(result, matching.labels) if matching.on else without(result, matching.labels)
            copied = {name: text for name, text in other_labels if name in matching.include}
            result = tuple(sorted((*without(result, matching.include), *copied.items())))
            mark = key if matching.cardinality is Cardinality.ONE_TO_ONE else (key, result)
            if mark in taken:
                raise Refused("multiple matches for labels")
            taken.add(mark)
            if tree.op in ARITHMETIC or tree.return_bool:
                out.append((result, calculate(tree.op, a, b)))
            elif COMPARISON[tree.op](a, b):
                out.append((result, a))
        return distinct(out)

    @staticmethod
    def with_scalar(tree: ast.Binary, left: Vector | float, right: Vector | float) -> Vector:
        vector = right if isinstance(left, float) else left
        out: Vector = []
        for labels, value in vector:  # type: ignore[union-attr]
            a, b = (left, value) if isinstance(left, float) else (value, right)
            if tree.op in ARITHMETIC or tree.return_bool:
                out.append((without(labels, METADATA), calculate(tree.op, a, b)))
            elif COMPARISON[tree.op](a, b):
                out.append((labels, value))
        return distinct(out)


def calculate(op: str, a: float, b: float) -> float:
    return ARITHMETIC[op](a, b) if op in ARITHMETIC else float(COMPARISON[op](a, b))


def largest(values: list[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return max(numbers) if numbers else math.nan


def ranked(members: Vector, k: int, op: str) -> Vector:
    """The k best; of equal ones those that come first; NaN only if there is nothing else."""
    sign = -1 if op == "topk" else 1
    order = sorted(members, key=lambda one: (math.isnan(one[1]), 0.0 if math.isnan(one[1]) else sign * one[1]))
    return order[: max(k, 0)]


def fold(op: str, values: list[float], param: float) -> float:
    numbers = sorted(value for value in values if not math.isnan(value))
    match op:
        case "sum":
            return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)
        case "avg":
            return (math.fsum(values) if all(map(math.isfinite, values)) else sum(values)) / len(values)
        case "min":
            return numbers[0] if numbers else math.nan
        case "max":
            return numbers[-1] if numbers else math.nan
        case "count":
            return float(len(values))
        case "group":
            return 1.0
        case "stddev" | "stdvar":
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / len(values)
            return math.sqrt(variance) if op == "stddev" else variance
        case "quantile":
            if not 0 <= param <= 1:
                return math.nan if math.isnan(param) else math.copysign(math.inf, param)
            ordered = [math.nan] * (len(values) - len(numbers)) + numbers
            rank = param * (len(ordered) - 1)
            low = math.floor(rank)
            high = min(len(ordered) - 1, low + 1)
            return ordered[low] * (1 - (rank - low)) + ordered[high] * (rank - low)
    raise NotImplementedError(op)
