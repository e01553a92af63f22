"""Histograms of PromQL test scripts: from their notation to `FloatHistogram`, and from classic ones to custom buckets.

Upstream: promql/parser/parse.go buildHistogramFromMap, histogramsSeries; promqltest/test.go appendCustomHistogram,
compareNativeHistogram; util/convertnhcb.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from mimir_ray.errors import ClientError
from mimir_ray.model.float_histogram import (
    CUSTOM_BUCKETS_SCHEMA,
    GAUGE,
    NOT_RESET,
    RESET,
    UNKNOWN,
    FloatHistogram,
    add,
    subtract,
)
from mimir_ray.promql.operators.functions_histogram import parse_bound

from .promql_script import HistogramLiteral, HistogramValue, LoadSeries

_HINTS = {None: UNKNOWN, "unknown": UNKNOWN, "reset": RESET, "not_reset": NOT_RESET, "gauge": GAUGE}


class NotAHistogram(ClientError):
    """Series that are no classic histogram."""


def of_literal(literal: HistogramLiteral) -> FloatHistogram:
    """The histogram that the braces say."""
    return FloatHistogram(
        literal.schema,
        literal.z_bucket_w,
        literal.z_bucket,
        literal.count,
        literal.sum,
        _HINTS[literal.counter_reset_hint],
        np.arange(literal.offset, literal.offset + len(literal.buckets), dtype=np.int32),
        np.array(literal.buckets, np.float64),
        np.arange(literal.n_offset, literal.n_offset + len(literal.n_buckets), dtype=np.int32),
        np.array(literal.n_buckets, np.float64),
        np.array(literal.custom_values, np.float64),
    )


def of_values(values: Sequence[HistogramValue]) -> list[FloatHistogram]:
    """Samples in order; steps are added one by one, so a sequence costs what its length is."""
    known: dict[tuple[int, int, int], FloatHistogram] = {}
    return [_of_value(value, known) for value in values]


def _of_value(value: HistogramValue, known: dict[tuple[int, int, int], FloatHistogram]) -> FloatHistogram:
    if value.step is None or value.times == 0:
        return of_literal(value.base)
    sign = 1 if value.times > 0 else -1
    step = of_literal(value.step)
    found = of_literal(value.base)
    for times in range(1, abs(value.times) + 1):
        key = id(value.base), id(value.step), sign * times
        if key not in known:
            known[key] = (add if sign > 0 else subtract)(found, step)[0]
        found = known[key]
    return found


def of_classic(series: Sequence[LoadSeries]) -> list[tuple[int, FloatHistogram]]:
    """(step, histogram) of the series of one classic histogram, with its bounds as custom ones."""
    buckets: dict[int, dict[float, float]] = {}
    counts: dict[int, float] = {}
    sums: dict[int, float] = {}
    for one in series:
        labels = dict(one.labels)
        name = labels["__name__"]
        bound = parse_bound(labels.get("le", "")) if name.endswith("_bucket") else None
        if name.endswith("_bucket") and (bound is None or math.isnan(bound)):
            continue
        for step, value in enumerate(one.values):
            if not isinstance(value, float):
                continue
            buckets.setdefault(step, {})
            if bound is not None:
                buckets[step].setdefault(bound, value)
            elif name.endswith("_count"):
                counts[step] = value
            else:
                sums[step] = value
    return [(step, _custom(buckets[step], counts.get(step), sums.get(step, 0.0))) for step in sorted(buckets)]


def _custom(buckets: dict[float, float], count: float | None, total: float) -> FloatHistogram:
    bounds = sorted(buckets)
    cumulative = [buckets[bound] for bound in bounds]
    if count is None:
        count = cumulative[-1] if cumulative else 0.0
    if not bounds or bounds[-1] != math.inf:
        bounds.append(math.inf)
        cumulative.append(count)
    if any(later < earlier for earlier, later in pairwise(cumulative)):
        raise NotAHistogram("counts are not cumulative")
    if count != cumulative[-1]:
        raise NotAHistogram(f"count mismatch: {count} != {cumulative[-1]}")
    return FloatHistogram(
        CUSTOM_BUCKETS_SCHEMA,
        count=count,
        sum=total,
        positive=np.arange(len(bounds), dtype=np.int32),
        positive_counts=np.diff(np.array([0.0, *cumulative])),
        custom_values=np.array(bounds[:-1]),
    ).compact()


def matches(
    wanted: FloatHistogram, found: FloatHistogram, hint_matters: bool, almost_equal: Callable[[float, float], bool]
) -> bool:
    """Whether a histogram is the expected one: numbers nearly, buckets exactly."""
    wanted, found = wanted.compact(), found.compact()
    return (
        wanted.schema == found.schema
        and almost_equal(wanted.count, found.count)
        and almost_equal(wanted.sum, found.sum)
        and (not wanted.has_custom_buckets or np.array_equal(wanted.custom_values, found.custom_values))
        and wanted.zero_threshold == found.zero_threshold
        and almost_equal(wanted.zero_count, found.zero_count)
        and np.array_equal(wanted.negative, found.negative)
        and np.array_equal(wanted.positive, found.positive)
        and all(map(almost_equal, wanted.negative_counts.tolist(), found.negative_counts.tolist()))
        and all(map(almost_equal, wanted.positive_counts.tolist(), found.positive_counts.tolist()))
        and (not hint_matters or wanted.hint == found.hint)
    )


def shown(histogram: FloatHistogram) -> str:
    """As a person reads it in a failure."""
    positive = dict(zip(histogram.positive.tolist(), histogram.positive_counts.tolist(), strict=True))
    negative = dict(zip(histogram.negative.tolist(), histogram.negative_counts.tolist(), strict=True))
    return (
        f"{{{{schema:{histogram.schema} count:{histogram.count} sum:{histogram.sum} hint:{histogram.hint} "
        f"zero:{histogram.zero_count}/{histogram.zero_threshold} {positive} {negative} "
        f"{histogram.custom_values.tolist()}}}}}"
    )
