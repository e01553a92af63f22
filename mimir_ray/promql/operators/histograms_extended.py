"""`anchored` and `smoothed` where some samples are native histograms: window by window, beside the kernels for floats.

Upstream: promql/functions.go extendedHistogramRate, interpolateHistograms, pickFirstSampleIndices; promql/engine.go
smoothSeries.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import (
    GAUGE,
    UNKNOWN,
    FloatHistogram,
    IncompatibleSchemas,
    add,
    detect_reset,
    subtract,
)
from mimir_ray.model.histogram import HistogramCells, HistogramPart
from mimir_ray.model.labels import METRIC_NAME
from mimir_ray.model.series import SeriesBatch
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.kernels.extended import smoothed_values
from mimir_ray.promql.kernels.windows import Window, chosen_samples, without_stale
from mimir_ray.promql.plan.nodes import Extended
from mimir_ray.promql.syntax.ast import Span

from .functions_base import Dense, FunctionContext, RangeFunction
from .functions_range import note_non_counters
from .histograms_range import SeriesWindows, events, rows_with_histograms


def extended_with_histograms(
    name: str,
    modifier: Extended,
    function: RangeFunction,
    batch: SeriesBatch,
    window: Window,
    context: FunctionContext,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], HistogramPart | None]:
    """(values, presence, histograms) of a function of anchored or smoothed windows over a batch with histograms."""
    batch = without_stale(batch)
    part = batch.histograms
    assert part is not None
    is_counter = name in ("rate", "increase")
    of_floats = context if not is_counter else replace(context, annotations=Annotations())
    values, present = function(chosen_samples(batch, ~part.here, floats=True), window, (), of_floats)
    cells = HistogramCells(present.shape)
    strings = batch.labels.table.strings
    names = batch.labels.column(METRIC_NAME)
    for row in np.flatnonzero(rows_with_histograms(batch, part)).tolist():
        series = _ExtendedWindows(batch, part, row, window, strings[int(names[row])], context, modifier == "smoothed")
        if name in ("resets", "changes"):
            series.anchor()
            present[row] = False
            values[row] = 0.0
            events(series, name, values[row], present[row], lambda _step, _histogram: None)
            continue
        series.mixed(present[row])
        for t in series.pure(1):
            found = series.rate(t, is_counter, name == "rate")
            if found is not None:
                cells.put((row, t), found)
                present[row, t] = True
    histograms = cells.part()
    if is_counter:
        note_non_counters(batch, present if histograms is None else present & ~histograms.here, context)
    return values, present, histograms


def smoothed_with_histograms(
    batch: SeriesBatch, ends: NDArray[np.int64], lookback_ms: int, annotations: Annotations, span: Span
) -> tuple[Dense, HistogramPart | None]:
    """A smoothed instant selector: ((values, presence), histograms). The batch holds no staleness markers."""
    part = batch.histograms
    assert part is not None
    floats = chosen_samples(batch, ~part.here, floats=True)
    values = np.empty((len(batch), len(ends)), np.float64)
    present = np.empty(values.shape, np.bool_)
    smoothed_values(floats.offsets, floats.timestamps, floats.values, ends, lookback_ms, values, present)
    cells = HistogramCells(present.shape)
    strings = batch.labels.table.strings
    names = batch.labels.column(METRIC_NAME)
    for row in np.flatnonzero(rows_with_histograms(batch, part)).tolist():
        low, high = int(batch.offsets[row]), int(batch.offsets[row + 1])
        times, which = batch.timestamps[low:high], part.which[low:high]
        interpolation = _Interpolation(annotations, strings[int(names[row])], span)
        firsts = np.searchsorted(times, ends - lookback_ms, side="right").tolist()
        lasts = np.searchsorted(times, ends + lookback_ms, side="right").tolist()
        afters = np.searchsorted(times, ends, side="left").tolist()
        for t, (first, last, after) in enumerate(zip(firsts, lasts, afters, strict=True)):
            kinds = which[first:last] >= 0
            if not kinds.any():
                continue
            present[row, t] = False
            if not kinds.all():
                annotations.mixed_floats_histograms(interpolation.name, span)
                continue
            at = max(after, first)
            if at < last and times[at] == ends[t]:
                found: FloatHistogram | None = part.columns.row(int(which[at]))
            elif at == first:
                continue  # there is nothing before yet
            else:
                before = part.columns.row(int(which[at - 1]))
                if at == last:
                    found = before.with_hint(UNKNOWN)
                else:
                    found = interpolation.of_selector(
                        before, int(times[at - 1]), part.columns.row(int(which[at])), int(times[at]), int(ends[t])
                    )
            if found is not None:
                cells.put((row, t), found)
                present[row, t] = True
    return (values, present), cells.part()


class _Interpolation:
    """Histograms on the line between two others; tells annotations what does not fit."""

    def __init__(self, annotations: Annotations, name: str, span: Span) -> None:
        self.annotations = annotations
        self.name = name
        self.span = span

    def between(
        self, before: FloatHistogram, before_ms: int, after: FloatHistogram, after_ms: int, time_ms: int, counter: bool
    ) -> FloatHistogram:
        """Raises `IncompatibleSchemas`. A counter that was reset started again from nothing."""
        if time_ms == before_ms:
            return before
        if time_ms == after_ms:
            return after
        fraction = (time_ms - before_ms) / (after_ms - before_ms)
        if counter and detect_reset(after, before):
            return after.mul(fraction)
        return self.add(self.subtract(after, before).mul(fraction), before)

    def of_selector(
        self, before: FloatHistogram, before_ms: int, after: FloatHistogram, after_ms: int, time_ms: int
    ) -> FloatHistogram | None:
        """A counter, unless both say that they are gauges; None, and a warning, where buckets do not fit."""
        if before.has_custom_buckets != after.has_custom_buckets:
            self.annotations.mixed_schemas(self.name, self.span)
            return None
        counter = before.hint != GAUGE or after.hint != GAUGE
        try:
            return self.between(before, before_ms, after, after_ms, time_ms, counter)
        except IncompatibleSchemas:
            self.annotations.mixed_schemas(self.name, self.span)
            return None

    def add(self, left: FloatHistogram, right: FloatHistogram) -> FloatHistogram:
        found, _, reconciled = add(left, right)
        if reconciled:
            self.annotations.reconciled_buckets("addition", self.span)
        return found

    def subtract(self, left: FloatHistogram, right: FloatHistogram) -> FloatHistogram:
        found, _, reconciled = subtract(left, right)
        if reconciled:
            self.annotations.reconciled_buckets("subtraction", self.span)
        return found


class _ExtendedWindows(SeriesWindows):
    """One series whose windows see beyond their edges."""

    def __init__(
        self,
        batch: SeriesBatch,
        part: HistogramPart,
        row: int,
        window: Window,
        name: str,
        context: FunctionContext,
        smoothed: bool,
    ) -> None:
        range_ms, ends = window.range_ms + window.lookback_ms, window.ends
        if smoothed:
            range_ms, ends = range_ms + window.lookback_ms, ends + window.lookback_ms
        super().__init__(batch, part, row, replace(window, ends=ends, range_ms=range_ms), name, context)
        self._smoothed = smoothed
        self._narrow = window
        self._interpolation = _Interpolation(self.annotations, name, self.span)

    def anchor(self) -> None:
        """Lets windows begin with the newest sample at or before their left edge; without one beyond, with none."""
        inside = np.searchsorted(self.timestamps, self._narrow.ends - self._narrow.range_ms, side="right")
        self.first = np.where(inside < self.last, np.maximum(self.first, inside - 1), self.last)

    def rate(self, t: int, is_counter: bool, is_rate: bool) -> FloatHistogram | None:
        """rate, increase or delta of one window that holds histograms only."""
        end = int(self._narrow.ends[t])
        start = end - self._narrow.range_ms
        low, last = int(self.first[t]), int(self.last[t]) - 1
        times = self.timestamps
        inside = min(int(np.searchsorted(times[:last], start, side="right")), last)
        first = max(low, max(inside, low) - 1)
        if self._smoothed:
            last = min(max(low, int(np.searchsorted(times[:last], end, side="left"))), last)
        if times[last] <= start or (self._smoothed and times[first] > end):
            return None
        if not self._is_consistent(first, last, is_counter):
            return None
        try:
            left = self._edge(first, start, is_counter) if times[first] < start else self.histogram(first)
            right = self.histogram(last)
            if self._smoothed and last > low and times[last] > end:
                right = self._edge(last - 1, end, is_counter)
            if not is_counter and (left.hint != GAUGE or right.hint != GAUGE):
                self.annotations.histogram_not_gauge(self.name, self.span)
            found = self._interpolation.subtract(right, left)
            if is_counter:
                lost = self._lost_to_resets(first, last, left, right, start)
                if lost is not None:
                    found = self._interpolation.add(found, lost)
        except IncompatibleSchemas:
            self.annotations.mixed_schemas(self.name, self.span)
            return None
        if is_rate:
            found = found.div(self._narrow.range_ms / 1000)
        return found.with_hint(GAUGE).compact()

    def _edge(self, before: int, time_ms: int, is_counter: bool) -> FloatHistogram:
        """What an edge between a sample and the next one stands for."""
        if not self._smoothed:
            return self.histogram(before)
        return self._interpolation.between(
            self.histogram(before),
            int(self.timestamps[before]),
            self.histogram(before + 1),
            int(self.timestamps[before + 1]),
            time_ms,
            is_counter,
        )

    def _is_consistent(self, first: int, last: int, is_counter: bool) -> bool:
        custom = self.histogram(first).has_custom_buckets
        for at in range(first, last + 1):
            one = self.histogram(at)
            if one.has_custom_buckets != custom:
                self.annotations.mixed_schemas(self.name, self.span)
                return False
            if is_counter and one.hint == GAUGE:
                self.annotations.histogram_not_counter(self.name, self.span)
        return True

    def _lost_to_resets(
        self, first: int, last: int, left: FloatHistogram, right: FloatHistogram, start: int
    ) -> FloatHistogram | None:
        """What resets between the edges took away. Raises `IncompatibleSchemas`."""
        at, newest = first + 1, left
        if self._smoothed and self.timestamps[first] < start and self._fell(first + 1):
            # The left edge lies on the far side of that reset already.
            newest, at = self.histogram(first + 1), at + 1
        if at > last:
            return None
        lost: FloatHistogram | None = None
        for one in [*(self.histogram(each) for each in range(at, last)), right]:
            if detect_reset(one, newest):
                lost = newest if lost is None else self._interpolation.add(lost, newest)
            newest = one
        return lost

    def _fell(self, at: int) -> bool:
        return detect_reset(self.histogram(at), self.histogram(at - 1))
