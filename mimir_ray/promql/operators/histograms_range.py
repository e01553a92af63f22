"""Range functions where some samples are native histograms.

Floats go through the function's kernel as if the histograms were not there; then the windows that hold
histograms are decided one by one. Which consecutive samples are a counter reset is found once a series, not once a
window. Upstream: promql/functions.go extrapolatedRate, histogramRate, instantValue, funcSumOverTime, funcAvgOverTime,
funcResets, funcChanges, and what the others do where Histograms is not empty.
"""

# ruff: noqa: ARG001  (all rules share one signature)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import (
    GAUGE,
    NOT_RESET,
    RESET,
    FloatHistogram,
    IncompatibleSchemas,
    add,
    detect_reset,
    kahan_add,
    subtract,
)
from mimir_ray.model.histogram import HistogramCells, HistogramColumns, HistogramPart
from mimir_ray.model.labels import METRIC_NAME
from mimir_ray.model.series import SeriesBatch
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.kernels.windows import Window, chosen_samples, without_stale
from mimir_ray.promql.syntax.ast import Span

from .functions_base import FunctionContext, RangeFunction, ScalarSteps
from .functions_range import note_non_counters, note_overlaps, restarts, windows_with
from .histograms_dense import rates

_OF_ANY_KIND = frozenset(
    (
        "count_over_time", "present_over_time", "absent_over_time", "first_over_time", "last_over_time",
        "ts_of_first_over_time", "ts_of_last_over_time",
    )
)  # fmt: skip
"""Functions that need not know what a sample holds."""


def with_histograms(
    name: str,
    function: RangeFunction,
    batch: SeriesBatch,
    window: Window,
    params: tuple[ScalarSteps, ...],
    context: FunctionContext,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], HistogramPart | None]:
    """(values, presence, histograms) of a function over a batch that has histograms."""
    batch = without_stale(batch)
    part = batch.histograms
    assert part is not None
    if name in _OF_ANY_KIND:
        return _of_any_kind(name, function, batch, window, params, context)
    restarted, overlaps = (None, None) if batch.start_timestamps is None else restarts(batch)
    is_counter = name in ("rate", "increase")
    of_floats = context if not is_counter else replace(context, annotations=Annotations())
    values, present = function(chosen_samples(batch, ~part.here, floats=True), window, params, of_floats)
    cells = HistogramCells(present.shape)
    strings = batch.labels.table.strings
    names = batch.labels.column(METRIC_NAME)
    for row in np.flatnonzero(rows_with_histograms(batch, part)).tolist():
        series = SeriesWindows(batch, part, row, window, strings[int(names[row])], context, restarted)
        if is_counter and (found := _plain_rates(series, name)) is not None:
            steps, columns = found
            cells.put_many((row, steps), columns)
            present[row, steps] = series.done[steps] = True
        _RULES[name](series, name, values[row], present[row], lambda t, one, row=row: cells.put((row, t), one))  # type: ignore[misc]
    histograms = cells.part()
    if is_counter and overlaps is not None:
        _note_overlaps(batch, overlaps, window, context)
    if is_counter:
        note_non_counters(batch, present if histograms is None else present & ~histograms.here, context)
    return values, present, histograms


def _note_overlaps(batch: SeriesBatch, overlaps: Flags, window: Window, context: FunctionContext) -> None:
    """Warns of start timestamps that overlap in windows of one kind of sample."""
    assert batch.histograms is not None
    for row in np.unique(np.searchsorted(batch.offsets, np.flatnonzero(overlaps), side="right") - 1).tolist():
        cut = slice(int(batch.offsets[row]), int(batch.offsets[row + 1]))
        times, here = batch.timestamps[cut], batch.histograms.here[cut]
        mixed = windows_with(times, np.append(False, here[1:] != here[:-1]), window)
        note_overlaps(batch, row, int(np.count_nonzero(windows_with(times, overlaps[cut], window) & ~mixed)), context)


def rows_with_histograms(batch: SeriesBatch, part: HistogramPart) -> NDArray[np.bool_]:
    before = np.zeros(batch.samples + 1, np.int64)
    np.cumsum(part.here, out=before[1:])
    return np.diff(before[batch.offsets]) > 0


def _of_any_kind(
    name: str,
    function: RangeFunction,
    batch: SeriesBatch,
    window: Window,
    params: tuple[ScalarSteps, ...],
    context: FunctionContext,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], HistogramPart | None]:
    """The kernel is told the numbers of samples rather than values, and may pick one."""
    assert batch.histograms is not None
    numbers = replace(batch, values=np.arange(batch.samples, dtype=np.float64), histograms=None)
    values, present = function(numbers, window, params, context)
    if name not in ("first_over_time", "last_over_time"):
        return values, present, None
    chosen = values[present].astype(np.int64)
    picked = np.zeros(values.shape)
    picked[present] = batch.values[chosen]
    which = np.full(values.shape, -1, np.int32)
    which[present] = batch.histograms.which[chosen]
    return picked, present, HistogramPart(which, batch.histograms.columns) if (which >= 0).any() else None


class SeriesWindows:
    """One series with its windows: step t sees the samples first[t] .. last[t] - 1."""

    def __init__(
        self,
        batch: SeriesBatch,
        part: HistogramPart,
        row: int,
        window: Window,
        name: str,
        context: FunctionContext,
        restarted: NDArray[np.bool_] | None = None,
    ) -> None:
        """`restarted`: bool, of all samples of the batch, which of them begin anew by their start timestamps."""
        low, high = int(batch.offsets[row]), int(batch.offsets[row + 1])
        self.timestamps = batch.timestamps[low:high]
        self.values = batch.values[low:high]
        self.which = part.which[low:high]
        self.starts = None if batch.start_timestamps is None else batch.start_timestamps[low:high]
        self.restarted = None if restarted is None else restarted[low:high]
        self.columns = part.columns
        self.window = window
        self.name = name
        self.annotations = context.annotations
        self.span: Span = context.call.args[0].span
        self.first = np.searchsorted(self.timestamps, window.ends - window.range_ms, side="right")
        self.last = np.searchsorted(self.timestamps, window.ends, side="right")
        before = np.zeros(high - low + 1, np.int64)
        np.cumsum(self.which >= 0, out=before[1:])
        self.histograms = before[self.last] - before[self.first]
        """int64[T]: how many histograms each step sees."""
        self.floats = self.last - self.first - self.histograms
        self.done = np.zeros(len(window.ends), np.bool_)
        """Steps that were decided already."""
        self._rows: dict[int, FloatHistogram] = {}
        self._resets: NDArray[np.bool_] | None = None

    def histogram(self, sample: int) -> FloatHistogram:
        one = self._rows.get(sample)
        if one is None:
            one = self._rows[sample] = self.columns.row(int(self.which[sample]))
        return one

    @property
    def resets(self) -> NDArray[np.bool_]:
        """bool[N]: which samples are a counter reset after the one before them, if they are of one kind."""
        if self._resets is None:
            out = np.zeros(len(self.which), np.bool_)
            floats = self.which < 0
            out[1:] = floats[1:] & floats[:-1] & (self.values[1:] < self.values[:-1])
            both = ~floats[1:] & ~floats[:-1]
            hints = self.columns.hint[self.which]
            out[1:] |= both & (hints[1:] == RESET)
            unsure = both & (hints[1:] != RESET) & (hints[1:] != NOT_RESET)
            for at in (np.flatnonzero(unsure) + 1).tolist():
                out[at] = detect_reset(self.histogram(at), self.histogram(at - 1))
            if self.restarted is not None:
                out[1:] |= self.restarted[1:] & (floats[1:] == floats[:-1])
            self._resets = out
        return self._resets

    def mixed(self, present: NDArray[np.bool_]) -> None:
        """Takes away what windows of both kinds came to, and warns."""
        both = (self.floats > 0) & (self.histograms > 0)
        if both.any():
            present[both] = False
            self.annotations.mixed_floats_histograms(self.name, self.span)

    def pure(self, at_least: int) -> list[int]:
        """The steps that see so many histograms and no float."""
        found: list[int] = np.flatnonzero((self.floats == 0) & (self.histograms >= at_least) & ~self.done).tolist()
        return found


Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Put = Callable[[int, FloatHistogram], None]
Rule = Callable[[SeriesWindows, str, Floats, Flags, Put], None]


def _plain_rates(series: SeriesWindows, name: str) -> tuple[NDArray[np.intp], HistogramColumns] | None:
    """What histograms_dense.py can do of rate or increase: (steps, their results)."""
    if (series.which < 0).any() or series.starts is not None:
        return None
    steps = np.flatnonzero(series.histograms >= 2)
    found = rates(
        series.columns.take(series.which), series.timestamps, series.resets, series.first[steps], series.last[steps],
        series.window.ends[steps], series.window.range_ms, name == "rate",
    )  # fmt: skip
    return None if found is None else (steps[found[0]], found[1])


def _rate(series: SeriesWindows, name: str, values: Floats, present: Flags, put: Put) -> None:
    series.mixed(present)
    times, window = series.timestamps, series.window
    for t in series.pure(2 if series.starts is None else 1):
        first, last = int(series.first[t]), int(series.last[t])
        end = int(window.ends[t])
        zero_at = 0 if series.starts is None else int(series.starts[first])
        if not end - window.range_ms < zero_at < times[first]:
            zero_at = 0
        found = _since(series, first, last, zero_at, name != "delta")
        if found is None:
            continue
        to_start = (int(times[first]) - (end - window.range_ms)) / 1000
        to_end = (end - int(times[last - 1])) / 1000
        sampled = (int(times[last - 1]) - int(times[first])) / 1000
        average = sampled / (last - 1 - first) if last - 1 > first else 0.0
        threshold = average * 1.1
        if to_start >= threshold:
            to_start = average / 2
        if zero_at:
            to_start, sampled = 0.0, (int(times[last - 1]) - zero_at) / 1000
        elif name != "delta":
            to_zero = to_start
            start_count = series.histogram(first).count
            if found.count > 0 and start_count >= 0:
                to_zero = sampled * (start_count / found.count)
            to_start = min(to_start, to_zero)
        if to_end >= threshold:
            to_end = average / 2
        factor = (sampled + to_start + to_end) / sampled if sampled else 1.0
        if name == "rate":
            factor /= window.range_ms / 1000
        put(t, found.mul(factor))
        present[t] = True


def _since(series: SeriesWindows, first: int, last: int, zero_at: int, is_counter: bool) -> FloatHistogram | None:
    """What was observed between two samples or, where the counter was zero at a known time (ms, else 0), since then."""
    if last - first == 1:
        return series.histogram(first).with_hint(GAUGE) if zero_at else None
    found = _difference(series, first, last, is_counter)
    if found is None or not zero_at:
        return found
    try:
        found, _, reconciled = add(found, series.histogram(first))
    except IncompatibleSchemas:
        series.annotations.mixed_schemas(series.name, series.span)
        return None
    if reconciled:
        series.annotations.reconciled_buckets("addition", series.span)
    return found.with_hint(GAUGE)


def _difference(series: SeriesWindows, first: int, last: int, is_counter: bool) -> FloatHistogram | None:
    """What was observed between two samples, resets made up for; None, and a warning, where that is undefined."""
    annotations, name, span = series.annotations, series.name, series.span
    start, end = series.histogram(first), series.histogram(last - 1)
    hints = series.columns.hint[series.which[first:last]]
    began_anew = is_counter and bool(series.resets[first + 1])
    if began_anew:
        second = series.histogram(first + 1)
        start = FloatHistogram(second.schema, custom_values=second.custom_values)
    if end.has_custom_buckets != start.has_custom_buckets:
        annotations.mixed_schemas(name, span)
        if is_counter and GAUGE in (int(hints[0]), int(hints[-1])):
            annotations.histogram_not_counter(name, span)
        return None
    schema = min(end.schema, start.schema)
    if is_counter:
        schemas = series.columns.schema[series.which[first:last]][1:-1]
        if len(schemas):
            custom = schemas == -53
            if (custom != start.has_custom_buckets).any():
                annotations.mixed_schemas(name, span)
                return None
            schema = min(schema, int(schemas.min()))
    try:
        found, _, reconciled = subtract(end.to_schema(schema), start)
        added = False
        if is_counter:
            for at in (np.flatnonzero(series.resets[first + 1 : last]) + first + 1).tolist():
                if at == first + 1 and began_anew:
                    continue
                found, _, changed = add(found, series.histogram(at - 1))
                added |= changed
    except IncompatibleSchemas:
        annotations.mixed_schemas(name, span)
        return None
    if is_counter and (hints == GAUGE).any():
        annotations.histogram_not_counter(name, span)
    if not is_counter and not (hints[0] == GAUGE and hints[-1] == GAUGE):
        annotations.histogram_not_gauge(name, span)
    if reconciled:
        annotations.reconciled_buckets("subtraction", span)
    if added:
        annotations.reconciled_buckets("addition", span)
    return found.with_hint(GAUGE).compact()


def _instant(series: SeriesWindows, name: str, values: Floats, present: Flags, put: Put) -> None:
    """irate and idelta: of the last two samples, if they are of one kind."""
    annotations, span = series.annotations, series.span
    is_rate = name == "irate"
    for t in np.flatnonzero((series.last - series.first >= 2) & (series.histograms > 0)).tolist():
        at = int(series.last[t]) - 1
        kinds = series.which[at - 1] >= 0, series.which[at] >= 0
        if kinds == (False, False):
            continue
        present[t] = False
        if not all(kinds):
            annotations.mixed_floats_histograms(series.name, span)
            continue
        before, now = series.histogram(at - 1), series.histogram(at)
        gauges = before.hint == GAUGE, now.hint == GAUGE
        if is_rate and any(gauges):
            annotations.histogram_not_counter(series.name, span)
        if not is_rate and not all(gauges):
            annotations.histogram_not_gauge(series.name, span)
        found = now
        if not is_rate or not series.resets[at]:
            try:
                found, _, reconciled = subtract(now, before)
            except IncompatibleSchemas:
                annotations.mixed_schemas(series.name, span)
                continue
            if reconciled:
                annotations.reconciled_buckets("subtraction", span)
        found = found.with_hint(GAUGE).compact()
        if is_rate:
            found = found.div((int(series.timestamps[at]) - int(series.timestamps[at - 1])) / 1000)
        put(t, found)
        present[t] = True


def _total(series: SeriesWindows, name: str, values: Floats, present: Flags, put: Put) -> None:
    """sum_over_time and avg_over_time."""
    series.mixed(present)
    annotations, span = series.annotations, series.span
    for t in series.pure(1):
        numbers = range(int(series.first[t]), int(series.last[t]))
        total = HistogramTotal(series.histogram(numbers[0]))
        try:
            for at in numbers[1:]:
                total.add(series.histogram(at), name == "avg_over_time")
            found = total.mean() if name == "avg_over_time" else total.sum()
        except IncompatibleSchemas:
            annotations.mixed_schemas(series.name, span)
            continue
        if total.collision:
            annotations.reset_collision("aggregation", span)
        if total.reconciled:
            annotations.reconciled_buckets("aggregation", span)
        put(t, found)
        present[t] = True


class HistogramTotal:
    """A sum of histograms in the making, with what it lost to rounding; or, where that overflows, a running mean."""

    __slots__ = ("count", "incremental", "reconciled", "rest", "seen_not_reset", "seen_reset", "value")

    def __init__(self, first: FloatHistogram) -> None:
        self.value = first
        self.rest: FloatHistogram | None = None
        self.count = 1
        self.incremental = False
        self.reconciled = False
        self.seen_reset = first.hint == RESET
        self.seen_not_reset = first.hint == NOT_RESET

    def add(self, other: FloatHistogram, for_mean: bool) -> None:
        """Raises `IncompatibleSchemas`, and is unchanged then."""
        self.seen_reset |= other.hint == RESET
        self.seen_not_reset |= other.hint == NOT_RESET
        self.count += 1
        if not self.incremental:
            value, rest, reconciled = kahan_add(self.value, self.rest, other)
            self.reconciled |= reconciled
            if not for_mean or not value.has_overflow:
                self.value, self.rest = value, rest
                return
            self.incremental = True
            self.value = self.value.div(self.count - 1)
            self.rest = None if self.rest is None else self.rest.div(self.count - 1)
        share = (self.count - 1) / self.count
        rest_now = None if self.rest is None else self.rest.mul(share)
        self.value, self.rest, reconciled = kahan_add(self.value.mul(share), rest_now, other.div(self.count))
        self.reconciled |= reconciled

    @property
    def collision(self) -> bool:
        """Whether some said that a counter was reset, and others that it was not."""
        return self.seen_reset and self.seen_not_reset

    def sum(self) -> FloatHistogram:
        return self.value if self.rest is None else add(self.value, self.rest)[0]

    def mean(self) -> FloatHistogram:
        if self.incremental:
            return self.sum()
        value = self.value.div(self.count)
        return value if self.rest is None else add(value, self.rest.div(self.count))[0]


def events(series: SeriesWindows, name: str, values: Floats, present: Flags, put: Put) -> None:
    """resets and changes: a change of kind is both."""
    histogram = series.which >= 0
    happened = np.zeros(len(histogram), np.bool_)
    happened[1:] = histogram[1:] != histogram[:-1]
    if name == "resets":
        happened |= series.resets
    else:
        old, new = series.values[:-1], series.values[1:]
        both_floats = ~histogram[1:] & ~histogram[:-1]
        happened[1:] |= both_floats & (old != new) & ~(np.isnan(old) & np.isnan(new))
        for at in (np.flatnonzero(histogram[1:] & histogram[:-1]) + 1).tolist():
            happened[at] = not series.histogram(at).equals(series.histogram(at - 1))
    before = np.zeros(len(happened) + 1, np.int64)
    np.cumsum(happened, out=before[1:])
    some = series.last > series.first
    first = np.minimum(series.first + 1, len(happened))
    values[some] = (before[series.last] - before[first])[some]
    present[some] = True


def _floats_only(series: SeriesWindows, name: str, values: Floats, present: Flags, put: Put) -> None:
    """Functions that leave histograms out, and say so where there are floats too."""
    if ((series.floats > 0) & (series.histograms > 0)).any():
        series.annotations.histograms_ignored_in_range(series.name, series.span)


_RULES: dict[str, Rule] = {
    "rate": _rate,
    "increase": _rate,
    "delta": _rate,
    "irate": _instant,
    "idelta": _instant,
    "sum_over_time": _total,
    "avg_over_time": _total,
    "resets": events,
    "changes": events,
    **dict.fromkeys(
        (
            "min_over_time", "max_over_time", "ts_of_min_over_time", "ts_of_max_over_time", "stddev_over_time",
            "stdvar_over_time", "mad_over_time", "quantile_over_time", "deriv", "predict_linear",
            "double_exponential_smoothing",
        ),
        _floats_only,
    ),
}  # fmt: skip
