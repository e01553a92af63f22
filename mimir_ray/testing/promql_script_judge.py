"""Whether an answer is what a PromQL test script expects.

Upstream: promql/promqltest/test.go compareResult, checkAnnotations; util/almost.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.labels import METRIC_NAME, Labels
from mimir_ray.model.result import Matrix, QueryResult, Scalar, String, Value, Vector
from mimir_ray.model.series import STALE_NAN_BITS

from .promql_script import Eval, HistogramValue, SequenceValue
from .promql_script_histograms import matches, of_values, shown

EPSILON = 1e-6
_MIN_NORMAL = sys.float_info.min


class Mismatch(Exception):
    """An answer that is not the expected one."""


def almost_equal(left: float, right: float) -> bool:
    """Upstream: util/almost Equal with a relative error of 1e-6."""
    stale = [np.float64(value).view(np.uint64) == STALE_NAN_BITS for value in (left, right)]
    if any(stale):
        return all(stale)
    if left == right or (math.isnan(left) and math.isnan(right)):
        return True
    if math.isnan(left) or math.isnan(right) or math.isinf(left) or math.isinf(right):
        return False
    total, apart = abs(left) + abs(right), abs(left - right)
    if left == 0 or right == 0 or total < _MIN_NORMAL:
        return apart < EPSILON * _MIN_NORMAL
    return apart / min(total, sys.float_info.max) < EPSILON


def format_labels_of(labels: Labels) -> str:
    """A series as a person reads it."""
    name = "".join(value for label, value in labels if label == METRIC_NAME)
    inside = ",".join(f'{label}="{value}"' for label, value in labels if label != METRIC_NAME)
    return f"{name}{{{inside}}}" if inside or not name else name


def check_annotations(command: Eval, answer: QueryResult) -> None:
    for kind, texts in (("warn", answer.warnings), ("info", answer.infos)):
        if kind in command.some and not texts:
            raise Mismatch(f"expected {kind} annotations, got none")
        if kind in command.none and texts:
            raise Mismatch(f"unexpected {kind} annotations: {texts}")
        expectations = command.exactly.get(kind, [])
        if not expectations:
            continue
        for expectation in expectations:
            if not any(expectation.accepts(text) for text in texts):
                raise Mismatch(f"expected {kind} annotation {expectation}, found: {texts}")
        for text in texts:
            if not any(expectation.accepts(text) for expectation in expectations):
                raise Mismatch(f"unexpected {kind} annotation: {text}")


def compare(command: Eval, value: Value) -> None:
    if isinstance(value, String):
        if command.string != value.value:
            raise Mismatch(f"expected string {command.string!r}, got {value.value!r}")
    elif isinstance(value, Scalar):
        compare_scalar(command, value.value)
    elif isinstance(value, Vector):
        compare_vector(command, list(value.items()))
    else:
        compare_matrix(command, value)


def compare_scalar(command: Eval, value: float) -> None:
    if command.scalar is None:
        raise Mismatch(f"expected vector or matrix, got scalar {value}")
    if not almost_equal(command.scalar, value):
        raise Mismatch(f"expected scalar {command.scalar}, got {value}")


def agrees(wanted: SequenceValue, found: float | FloatHistogram) -> bool:
    """Whether a value is the expected one, of the same kind."""
    if isinstance(wanted, HistogramValue):
        if not isinstance(found, FloatHistogram):
            return False
        return matches(of_values([wanted])[0], found, wanted.base.counter_reset_hint is not None, almost_equal)
    return isinstance(wanted, float) and isinstance(found, float) and almost_equal(wanted, found)


def compare_vector(command: Eval, answer: Sequence[tuple[Labels, float | FloatHistogram]]) -> None:
    if command.scalar is not None:
        raise Mismatch(f"expected scalar, got vector {_shown(answer)}")
    seen = set()
    for position, (labels, value) in enumerate(answer, 1):
        if labels not in command.expected or labels in seen:
            raise Mismatch(f"unexpected {format_labels_of(labels)} in result, has value {value}")
        if command.ordered and command.positions[labels] != position:
            wanted = command.positions[labels]
            raise Mismatch(f"expected {format_labels_of(labels)} at position {wanted} but was at {position}")
        wanted_value = command.expected[labels][0]
        if not agrees(wanted_value, value):
            raise Mismatch(f"expected {wanted_value} for {format_labels_of(labels)}, got {_text(value)}")
        seen.add(labels)
    _check_all_seen(command.expected, seen, answer)


def compare_matrix(command: Eval, value: Matrix) -> None:
    if command.ordered:
        raise Mismatch("expected ordered result, but query returned a matrix")
    if command.scalar is not None:
        raise Mismatch("expected scalar, got matrix")
    check_sorted(value)
    seen = set()
    for labels, points in value.items():
        if labels not in command.expected or labels in seen:
            raise Mismatch(f"unexpected {format_labels_of(labels)} in result, has {points}")
        seen.add(labels)
        wanted = [
            (command.start_ms + index * command.points_step_ms, one)
            for index, one in enumerate(command.expected[labels])
            if one is not None
        ]
        last = command.start_ms + (len(command.expected[labels]) - 1) * command.points_step_ms
        if last > command.end_ms:
            raise Mismatch(f"more points expected for {format_labels_of(labels)} than the time range has")
        same = len(wanted) == len(points) and all(
            at == point_at and agrees(one, point) for (at, one), (point_at, point) in zip(wanted, points, strict=False)
        )
        if not same:
            got = [(at, _text(point)) for at, point in points]
            raise Mismatch(f"expected {wanted} for {format_labels_of(labels)}, got {got}")
    _check_all_seen(command.expected, seen, list(value.items()))


def _check_all_seen(
    expected: Mapping[Labels, tuple[SequenceValue, ...]], seen: set[Labels], answer: Sequence[tuple[Labels, object]]
) -> None:
    for labels, values in expected.items():
        if labels not in seen:
            raise Mismatch(f"expected {format_labels_of(labels)} with {values} not found in {_shown(answer)}")


def check_sorted(matrix: Matrix) -> None:
    order = matrix.labels.to_labels()
    if order != sorted(order):
        raise Mismatch(f"matrix is not sorted by labels: {[format_labels_of(labels) for labels in order]}")


def _text(value: float | FloatHistogram) -> str:
    return shown(value) if isinstance(value, FloatHistogram) else str(value)


def _shown(answer: Sequence[tuple[Labels, object]]) -> str:
    shown = ", ".join(f"{format_labels_of(labels)} {value}" for labels, value in answer[:5])
    return f"[{shown}{', ...' if len(answer) > 5 else ''}]"
