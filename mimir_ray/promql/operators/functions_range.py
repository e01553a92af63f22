"""Functions of range vectors: from a batch of samples to dense steps, one kernel call a batch."""

# ruff: noqa: ARG001  (all functions share one signature)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.labels import METRIC_NAME, METRIC_TYPE
from mimir_ray.model.series import SeriesBatch
from mimir_ray.promql.kernels import extended as kernels_extended
from mimir_ray.promql.kernels import over_time, quantile, rate, regression, start_timestamps
from mimir_ray.promql.kernels.windows import Window

from .functions_base import Dense, FunctionContext, InvalidFunctionArgument, RangeFunction, ScalarSteps

_COUNTER_TYPES = ("counter", "histogram")
_COUNTER_SUFFIXES = ("_total", "_sum", "_count", "_bucket")


def _dense(batch: SeriesBatch, window: Window) -> Dense:
    shape = (len(batch.offsets) - 1, len(window.ends))
    return np.empty(shape, np.float64), np.empty(shape, np.bool_)


def _call(kernel: Callable[..., None], batch: SeriesBatch, window: Window, *arguments: Any) -> Dense:
    out, present = _dense(batch, window)
    kernel(batch.offsets, batch.timestamps, batch.values, window.ends, window.range_ms, *arguments, out, present)
    return out, present


def simple(
    kernel: Callable[..., None], *arguments: Any, keeps_name: bool = False, absent: bool = False
) -> RangeFunction:
    """A function that is one kernel with constant arguments."""

    def run(batch: SeriesBatch, window: Window, params: tuple[ScalarSteps, ...], context: FunctionContext) -> Dense:
        return _call(kernel, batch, window, *arguments)

    return RangeFunction(run, keeps_name, absent)


def counter(is_rate: bool) -> RangeFunction:
    """rate and increase: of counters, and telling so where the name speaks against it."""

    def run(batch: SeriesBatch, window: Window, params: tuple[ScalarSteps, ...], context: FunctionContext) -> Dense:
        if batch.start_timestamps is None:
            values, present = _call(rate.extrapolated_rate, batch, window, True, is_rate)
        else:
            values, present = _rate_from_starts(batch, window, is_rate, context)
        note_non_counters(batch, present, context)
        return values, present

    return RangeFunction(run)


def _rate_from_starts(batch: SeriesBatch, window: Window, is_rate: bool, context: FunctionContext) -> Dense:
    assert batch.start_timestamps is not None
    values, present = _dense(batch, window)
    restarted, overlaps = restarts(batch)
    start_timestamps.rate_from_starts(
        batch.offsets, batch.timestamps, batch.values, batch.start_timestamps, restarted,
        window.ends, window.range_ms, is_rate, values, present,
    )  # fmt: skip
    if overlaps is not None:
        for row in np.unique(np.searchsorted(batch.offsets, np.flatnonzero(overlaps), side="right") - 1).tolist():
            cut = slice(int(batch.offsets[row]), int(batch.offsets[row + 1]))
            seen = windows_with(batch.timestamps[cut], overlaps[cut], window)
            note_overlaps(batch, row, int(np.count_nonzero(seen)), context)
    return values, present


def restarts(batch: SeriesBatch) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """(which samples begin anew, which overlap the one before them or None where none does): bool[N] each."""
    assert batch.start_timestamps is not None
    restarted, overlaps = np.empty(batch.samples, np.bool_), np.empty(batch.samples, np.bool_)
    found = start_timestamps.find_restarts(batch.offsets, batch.timestamps, batch.start_timestamps, restarted, overlaps)
    return restarted, overlaps if found else None


def windows_with(timestamps: NDArray[np.int64], chosen: NDArray[np.bool_], window: Window) -> NDArray[np.bool_]:
    """bool[T]: which windows hold one of the chosen samples of a series, and the sample before it."""
    seen = np.zeros(len(window.ends), np.bool_)
    for at in np.flatnonzero(chosen).tolist():
        seen |= (timestamps[at] <= window.ends) & (timestamps[at - 1] > window.ends - window.range_ms)
    return seen


def note_overlaps(batch: SeriesBatch, row: int, windows: int, context: FunctionContext) -> None:
    """Warns of a series whose start timestamps overlap in so many windows."""
    if windows:
        name = batch.labels.table.strings[int(batch.labels.column(METRIC_NAME)[row])]
        context.annotations.start_time_overlap(name, context.call.args[0].span, windows)


def _from_restarts(plain: RangeFunction, kernel: Callable[..., None]) -> RangeFunction:
    """irate and resets: `kernel` where there are start timestamps, else `plain`."""

    def run(batch: SeriesBatch, window: Window, params: tuple[ScalarSteps, ...], context: FunctionContext) -> Dense:
        if batch.start_timestamps is None:
            return plain.run(batch, window, params, context)
        out, present = _dense(batch, window)
        restarted, _ = restarts(batch)
        kernel(batch.offsets, batch.timestamps, batch.values, restarted, window.ends, window.range_ms, out, present)
        return out, present

    return RangeFunction(run)


def note_non_counters(batch: SeriesBatch, present: NDArray[np.bool_], context: FunctionContext) -> None:
    """Adds an info for each metric with a result whose name (or, with type labels, type) is no counter's.

    Upstream: engine.go evalCall.
    """
    codes = batch.labels.column(METRIC_NAME)
    strings = batch.labels.table.strings
    if context.type_labels:
        filled = present.any(axis=1)
        pairs = np.stack((codes, batch.labels.column(METRIC_TYPE)), axis=1)[filled]
        for code, kind in np.unique(pairs, axis=0).tolist():
            if strings[code] and strings[kind] not in _COUNTER_TYPES:
                span = context.call.args[0].span
                context.annotations.possible_non_counter_type(strings[code], strings[kind], span)
        return
    for code in np.unique(codes).tolist():
        name = strings[code]
        if name and not name.endswith(_COUNTER_SUFFIXES) and present[codes == code].any():
            context.annotations.possible_non_counter(name, context.call.args[0].span)


def _quantile_over_time(
    batch: SeriesBatch, window: Window, params: tuple[ScalarSteps, ...], context: FunctionContext
) -> Dense:
    q = params[0]
    values, present = _call(quantile.quantile_over_time, batch, window, q)
    invalid = ~((q >= 0) & (q <= 1))
    if invalid.any():
        for each in np.unique(q[invalid & present.any(axis=0)]).tolist():
            context.annotations.invalid_quantile(each, context.call.args[0].span)
    return values, present


def _predict_linear(
    batch: SeriesBatch, window: Window, params: tuple[ScalarSteps, ...], context: FunctionContext
) -> Dense:
    return _call(regression.linear_regression, batch, window, window.times, params[0])


def _double_exponential_smoothing(
    batch: SeriesBatch, window: Window, params: tuple[ScalarSteps, ...], context: FunctionContext
) -> Dense:
    smoothing, trend = params
    _check_factor("smoothing", "sf", smoothing, batch, window)
    _check_factor("trend", "tf", trend, batch, window)
    return _call(regression.double_exponential_smoothing, batch, window, smoothing, trend)


def _check_factor(name: str, short: str, factor: ScalarSteps, batch: SeriesBatch, window: Window) -> None:
    """Raises for a factor outside (0, 1), but only at steps where some window holds a sample, as upstream."""
    invalid = (factor <= 0) | (factor >= 1)
    if not invalid.any():
        return
    _, used = _call(over_time.pick_over_time, batch, window, over_time.PRESENT)
    at = np.flatnonzero(invalid & used.any(axis=0))
    if len(at):
        raise InvalidFunctionArgument(
            f"invalid {name} factor. Expected: 0 < {short} < 1, got: {_go_f(float(factor[at[0]]))}"
        )


def _go_f(value: float) -> str:
    """A number as Go's %f writes it."""
    return f"{value:.6f}" if np.isfinite(value) else "NaN" if np.isnan(value) else "+Inf" if value > 0 else "-Inf"


def extended(smoothed: bool, is_counter: bool, is_rate: bool) -> RangeFunction:
    """rate, increase and delta of anchored or smoothed windows."""

    def run(batch: SeriesBatch, window: Window, params: tuple[ScalarSteps, ...], context: FunctionContext) -> Dense:
        values, present = _call(
            kernels_extended.extended_rate, batch, window, window.lookback_ms, smoothed, is_counter, is_rate
        )
        if is_counter:
            note_non_counters(batch, present, context)
        return values, present

    return RangeFunction(run)


def anchored_events(resets: bool) -> RangeFunction:
    """resets and changes of anchored windows."""

    def run(batch: SeriesBatch, window: Window, params: tuple[ScalarSteps, ...], context: FunctionContext) -> Dense:
        return _call(kernels_extended.anchored_events, batch, window, window.lookback_ms, resets)

    return RangeFunction(run)


EXTENDED_FUNCTIONS: dict[str, dict[str, RangeFunction]] = {
    modifier: {
        "rate": extended(modifier == "smoothed", True, True),
        "increase": extended(modifier == "smoothed", True, False),
        "delta": extended(modifier == "smoothed", False, False),
    }
    for modifier in ("anchored", "smoothed")
}
"""Modifier -> name -> what it does with windows that look beyond their edges."""
EXTENDED_FUNCTIONS["anchored"] |= {"resets": anchored_events(True), "changes": anchored_events(False)}

RANGE_FUNCTIONS: dict[str, RangeFunction] = {
    "rate": counter(is_rate=True),
    "increase": counter(is_rate=False),
    "delta": simple(rate.extrapolated_rate, False, False),
    "irate": _from_restarts(simple(rate.last_difference, True), start_timestamps.instant_rate_from_starts),
    "idelta": simple(rate.last_difference, False),
    "resets": _from_restarts(simple(rate.count_events, True), start_timestamps.resets_from_starts),
    "changes": simple(rate.count_events, False),
    "deriv": simple(regression.linear_regression, np.empty(0, np.int64), np.empty(0, np.float64)),
    "predict_linear": RangeFunction(_predict_linear),
    "double_exponential_smoothing": RangeFunction(_double_exponential_smoothing),
    "avg_over_time": simple(over_time.sum_over_time, True),
    "sum_over_time": simple(over_time.sum_over_time, False),
    "min_over_time": simple(over_time.extreme_over_time, over_time.MIN),
    "max_over_time": simple(over_time.extreme_over_time, over_time.MAX),
    "count_over_time": simple(over_time.pick_over_time, over_time.COUNT),
    "present_over_time": simple(over_time.pick_over_time, over_time.PRESENT),
    "absent_over_time": simple(over_time.pick_over_time, over_time.PRESENT, absent=True),
    "first_over_time": simple(over_time.pick_over_time, over_time.FIRST, keeps_name=True),
    "last_over_time": simple(over_time.pick_over_time, over_time.LAST, keeps_name=True),
    "ts_of_first_over_time": simple(over_time.pick_over_time, over_time.TIME_OF_FIRST),
    "ts_of_last_over_time": simple(over_time.pick_over_time, over_time.TIME_OF_LAST),
    "ts_of_min_over_time": simple(over_time.extreme_over_time, over_time.TIME_OF_MIN),
    "ts_of_max_over_time": simple(over_time.extreme_over_time, over_time.TIME_OF_MAX),
    "stdvar_over_time": simple(over_time.variance_over_time, False),
    "stddev_over_time": simple(over_time.variance_over_time, True),
    "quantile_over_time": RangeFunction(_quantile_over_time),
    "mad_over_time": simple(quantile.mad_over_time),
}
