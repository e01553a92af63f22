"""histogram_quantile, histogram_quantiles and histogram_fraction, of classic and of native histograms.

Series that differ in `le` alone are the buckets of one classic histogram.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.labels import METRIC_NAME, LabelColumns
from mimir_ray.model.series import StepMatrix
from mimir_ray.promql.annotations import go_float
from mimir_ray.promql.kernels import histogram_classic
from mimir_ray.promql.kernels.grouping import RowIndex
from mimir_ray.promql.syntax import ast

from . import histograms_vector
from .functions_base import FunctionContext, ScalarSteps, VectorFunction
from .labels import Groups

BUCKET_LABEL = "le"

_GO_FLOAT = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)\Z", re.IGNORECASE | re.ASCII
)
_GO_HEX_FLOAT = re.compile(
    r"[+-]?0x(?:_?[0-9a-f])*\.?(?:[0-9a-f](?:_?[0-9a-f])*)?p[+-]?[0-9]+\Z", re.IGNORECASE | re.ASCII
)


def parse_bound(text: str) -> float | None:
    """A bucket's upper bound, or None where Go's strconv.ParseFloat refuses the text."""
    if _GO_FLOAT.match(text):
        value = float(text)
        # A number too large for float64 is an error in Go; `Inf` written out is not.
        return None if np.isinf(value) and "i" not in text.lower() else value
    if _GO_HEX_FLOAT.match(text):
        try:
            return float.fromhex(text.replace("_", ""))
        except (ValueError, OverflowError):
            return None
    return None


@dataclass(frozen=True, slots=True)
class Buckets:
    """The rows of a matrix as G histograms: see kernels/histogram_classic.py.

    `labels` of the histograms (without `le`), in order of first appearance.
    """

    labels: LabelColumns
    groups: NDArray[np.int64]
    rows: NDArray[np.int64]
    bounds: NDArray[np.float64]

    def dense(self, steps: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        shape = (len(self.labels), steps)
        return np.empty(shape, np.float64), np.empty(shape, np.bool_)


def group_buckets(matrix: StepMatrix, argument: ast.Node, context: FunctionContext) -> Buckets:
    """Sorts the matrix' rows into histograms; warns of series whose `le` is no number and leaves them out."""
    strings = matrix.labels.table.strings
    used, position = np.unique(matrix.labels.column(BUCKET_LABEL), return_inverse=True)
    parsed = [parse_bound(strings[code]) for code in used.tolist()]
    bounds = np.array([np.nan if each is None else each for each in parsed], np.float64)[position]
    good = np.array([each is not None for each in parsed], np.bool_)[position]
    if not good.all():
        names = matrix.labels.column(METRIC_NAME)
        les = matrix.labels.column(BUCKET_LABEL)
        bad = np.flatnonzero(~good & matrix.present.any(axis=1))
        for name, le in {(int(names[row]), int(les[row])) for row in bad.tolist()}:
            shown = strings[name] if context.delayed_names else ""
            context.annotations.bad_bucket_label(shown, strings[le], argument.span)
    rows = np.flatnonzero(good)
    labels = matrix.labels.take(rows).drop((BUCKET_LABEL,))
    histograms = RowIndex(len(labels.names))
    group = histograms.add(labels.codes)
    order = np.lexsort((bounds[rows], group))
    groups = np.zeros(histograms.count + 1, np.int64)
    np.cumsum(np.bincount(group, minlength=histograms.count), out=groups[1:])
    labels = LabelColumns(labels.names, histograms.keys.copy(), labels.table)
    return Buckets(labels, groups, rows[order].astype(np.int64), bounds[rows][order])


def _quantile(
    matrix: StepMatrix,
    buckets: Buckets,
    q: ScalarSteps,
    argument: ast.Node,
    context: FunctionContext,
    lifted_before: NDArray[np.bool_] | None = None,
) -> StepMatrix:
    """One quantile of every histogram; `argument` is the vector's expression, for annotations.

    `lifted_before`: bool[G, T], which histograms other quantiles have had to lift: upstream keeps them so. Updated.
    """
    values, present = buckets.dense(len(q))
    count = len(buckets.labels)
    forced = np.empty(values.shape, np.bool_)
    lowest, highest, widest = (np.empty(count, np.float64) for _ in range(3))
    histogram_classic.bucket_quantile(
        buckets.groups, buckets.rows, buckets.bounds, matrix.values, matrix.present, q,
        values, present, forced, lowest, highest, widest,
    )  # fmt: skip
    if lifted_before is not None:
        forced &= ~lifted_before
        lifted_before |= forced
    lifted = np.flatnonzero(forced.any(axis=1))
    names = buckets.labels.column(METRIC_NAME) if context.delayed_names else np.zeros(count, np.int32)
    for name in np.unique(names[lifted]).tolist():
        these = lifted[names[lifted] == name]
        at_step = forced[these].sum(axis=0)
        times = context.times[at_step > 0]
        context.annotations.forced_monotonicity(
            context.table.strings[name],
            argument.span,
            int(times[0]),
            int(times[-1]),
            float(lowest[these].min()),
            float(highest[these].max()),
            float(widest[these].max()),
            counted_by_steps(at_step.tolist()),
        )
    return StepMatrix(buckets.labels, values, present)


def counted_by_steps(counts: list[int]) -> int:
    """How many samples upstream tells of: from one step to the next it adds what it has found so far once more.

    Wraps around as Go's integers do. Upstream: util/annotations Annotations.Merge, of a set with itself.
    """
    total, begun = 0, False
    for count in counts:
        total += count
        if begun:
            total *= 2
        begun = begun or count > 0
    return (total + 2**63) % 2**64 - 2**63


@dataclass(frozen=True, slots=True)
class _Input:
    """A vector as classic histograms (`floats`, grouped as `buckets`), and native ones (`natives`, or None)."""

    floats: StepMatrix
    buckets: Buckets
    natives: StepMatrix | None

    def answer(self, classic: StepMatrix, of_native: Callable[[int, int, FloatHistogram], float] | None) -> StepMatrix:
        """The results of both; `of_native(row, step, histogram)`."""
        if self.natives is None or of_native is None:
            return classic
        natives = self.natives
        values = histograms_vector.for_each(natives, natives.present, of_native)
        drop = None
        if natives.drop_name is not None or classic.drop_name is not None:
            drop = np.zeros(len(natives) + len(classic), np.bool_)
        return StepMatrix(
            LabelColumns.concat([natives.labels, classic.labels]),
            np.concatenate([values, classic.values]),
            np.concatenate([natives.present, classic.present]),
            drop,
        )

    def names(self, context: FunctionContext) -> list[str]:
        """What annotations call each native row."""
        if self.natives is None or not context.delayed_names:
            return [""] * (0 if self.natives is None else len(self.natives))
        return [context.table.strings[code] for code in self.natives.labels.column(METRIC_NAME).tolist()]


def _split(matrix: StepMatrix, argument: ast.Node, context: FunctionContext) -> _Input:
    """Where a native histogram has the labels of a classic one at a step, there is neither, and a warning."""
    floats = matrix.floats()
    part = matrix.histograms
    if part is None:
        return _Input(matrix, group_buckets(matrix, argument, context), None)
    rows = np.flatnonzero((matrix.present & part.here).any(axis=1))
    floats = floats.take(floats.present.any(axis=1))
    buckets = group_buckets(floats, argument, context)
    natives = matrix.take(rows)
    assert natives.histograms is not None
    natives.present &= natives.histograms.here
    if len(buckets.labels) and len(natives):
        groups = Groups((), without=True, table=matrix.labels.table)
        groups.assign(buckets.labels)
        of_native = groups.find(natives.labels)
        for row in np.flatnonzero((of_native >= 0) & (of_native < len(buckets.labels))).tolist():
            group = int(of_native[row])
            members = buckets.rows[buckets.groups[group] : buckets.groups[group + 1]]
            both = natives.present[row] & floats.present[members].any(axis=0)
            if both.any():
                name = int(natives.labels.column(METRIC_NAME)[row])
                shown = context.table.strings[name] if context.delayed_names else ""
                context.annotations.mixed_classic_native(shown, argument.span)
                natives.present[row] &= ~both
                floats.present[members] &= ~both
    return _Input(floats, buckets, natives)


def _check_quantile(q: ScalarSteps, argument: ast.Node, context: FunctionContext) -> None:
    for each in np.unique(q[~((q >= 0) & (q <= 1))]).tolist():
        context.annotations.invalid_quantile(each, argument.span)


def _histogram_quantile(
    matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext
) -> StepMatrix:
    q = params[0]
    assert not isinstance(q, str)
    _check_quantile(q, context.call.args[0], context)
    argument = context.call.args[1]
    parts = _split(matrix, argument, context)
    classic = _quantile(parts.floats, parts.buckets, q, argument, context)
    return parts.answer(classic, _native_quantile(parts, q, argument, context))


def _native_quantile(
    parts: _Input, q: ScalarSteps, argument: ast.Node, context: FunctionContext
) -> Callable[[int, int, FloatHistogram], float]:
    names, quantiles = parts.names(context), q.tolist()
    return lambda row, t, one: histograms_vector.quantile(
        quantiles[t], one, names[row], context.annotations, argument.span
    )


def _histogram_quantiles(
    matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext
) -> StepMatrix:
    """Several quantiles at once, told apart by a label that the second argument names."""
    label, *quantiles = params
    assert isinstance(label, str)
    argument = context.call.args[0]
    given = _split(matrix, argument, context)
    parts = []
    lifted = np.zeros((len(given.buckets.labels), len(context.times)), np.bool_)
    for q, q_argument in zip(quantiles, context.call.args[2:], strict=True):
        assert not isinstance(q, str)
        _check_quantile(q, q_argument, context)
        classic = _quantile(given.floats, given.buckets, q, argument, context, lifted)
        part = given.answer(classic, _native_quantile(given, q, argument, context))
        for each in np.unique(q).tolist():
            code = context.table.code(openmetrics_float(each))
            labels = part.labels.with_column(label, np.full(len(part), code, np.int32))
            here = np.isnan(q) if np.isnan(each) else q == each
            parts.append(StepMatrix(labels, part.values, part.present & here))
    return StepMatrix(
        LabelColumns.concat([part.labels for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.present for part in parts]),
    )


def openmetrics_float(value: float) -> str:
    """A number as a label value. Upstream: model/labels/float.go FormatOpenMetricsFloat."""
    text = go_float(value)
    return text if not np.isfinite(value) or "." in text or "e" in text else f"{text}.0"


def _histogram_fraction(
    matrix: StepMatrix, params: tuple[ScalarSteps | str, ...], context: FunctionContext
) -> StepMatrix:
    lower, higher = params
    assert not isinstance(lower, str) and not isinstance(higher, str)
    argument = context.call.args[2]
    parts = _split(matrix, argument, context)
    buckets, floats = parts.buckets, parts.floats
    values, present = buckets.dense(len(lower))
    histogram_classic.bucket_fraction(
        buckets.groups, buckets.rows, buckets.bounds, floats.values, floats.present, lower, higher, values, present
    )
    names, lows, highs = parts.names(context), lower.tolist(), higher.tolist()
    return parts.answer(
        StepMatrix(buckets.labels, values, present),
        lambda row, t, one: histograms_vector.fraction(
            lows[t], highs[t], one, names[row], context.annotations, argument.span
        ),
    )


VECTOR_FUNCTIONS: dict[str, VectorFunction] = {
    "histogram_quantile": VectorFunction(_histogram_quantile, needs_all=True, takes_histograms=True),
    "histogram_quantiles": VectorFunction(_histogram_quantiles, needs_all=True, takes_histograms=True),
    "histogram_fraction": VectorFunction(_histogram_fraction, needs_all=True, takes_histograms=True),
}
