"""Native histograms of a write request: which are sound, and how they join the samples.

Upstream: pkg/distributor/validate.go validateSampleHistogram; the rest is what Prometheus' head refuses
(model/histogram Validate), which upstream reports from the ingester.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mimir_ray.config.limits import Limits
from mimir_ray.errors import ClientError
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.roles.distributor import errors
from mimir_ray.wire import remote_write_histograms as wire
from mimir_ray.wire.protobuf import parse_labels
from mimir_ray.wire.write_scan import WriteScan

_PROBLEMS = {
    wire.COUNT_MISMATCH: (
        "native-histogram-count-mismatch",
        "histogram's observation count should equal the number of observations found in the buckets "
        "(in absence of NaN)",
    ),
    wire.COUNT_TOO_SMALL: (
        "native-histogram-count-not-big-enough",
        "histogram's observation count should be at least the number of observations found in the buckets",
    ),
    wire.NEGATIVE_COUNT: (
        "native-histogram-negative-bucket-count",
        "histogram has a bucket whose observation count is negative",
    ),
    wire.NEGATIVE_OFFSET: (
        "native-histogram-span-negative-offset",
        "histogram has a span whose offset is negative",
    ),
    wire.SPANS: (
        "native-histogram-spans-buckets-mismatch",
        "histogram spans specify different number of buckets than provided",
    ),
    wire.BOUNDS: (
        "native-histogram-custom-buckets-invalid",
        "histogram custom bounds must be in strictly increasing order",
    ),
    wire.BOUNDS_INFINITE: (
        "native-histogram-custom-buckets-infinite",
        "histogram custom bounds must be finite",
    ),
    wire.BOUNDS_FEW: (
        "native-histogram-custom-buckets-mismatch",
        "histogram custom bounds are too few",
    ),
}
Refusals = list[tuple[ClientError, int]]
"""Why histograms were refused, and how many; the first of a kind speaks for the others."""


def admit_histograms(scan: WriteScan, limits: Limits) -> tuple[WriteScan, Refusals]:
    """The scan with its sound histograms among the samples. Raises `MalformedProtobuf`."""
    found = scan.own_histograms() or wire.read_histograms(scan)
    refused: dict[str, list[tuple[ClientError, int]]] = {}

    def refuse(row: int, error: ClientError) -> None:
        refused.setdefault(error.id, []).append((error, row))

    kept = found.problems == wire.OK
    scan.need_labels(np.unique(found.series[~kept]))
    for row in np.flatnonzero(~kept).tolist():
        refuse(row, _problem(scan, found, row))
    if limits.max_native_histogram_buckets:
        found.columns = _within(scan, found, limits, kept, refuse)
    refusals = [(same[0][0], len(same)) for same in refused.values()]
    return wire.with_histograms(scan, found, kept), refusals


def _series(scan: WriteScan, found: wire.HistogramScan, row: int) -> str:
    at = int(found.series[row])
    raw = parse_labels(scan.data, int(scan.label_start[at]), int(scan.label_end[at]))
    return errors.format_series(
        [(name.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for name, value in raw]
    )


def _problem(scan: WriteScan, found: wire.HistogramScan, row: int) -> ClientError:
    problem = int(found.problems[row])
    if problem == wire.SCHEMA:
        return errors.InvalidHistogramSchema(int(found.columns.schema[row]))
    identifier, reason = _PROBLEMS[problem]
    return errors.InvalidHistogram(identifier, reason, int(found.timestamps[row]), _series(scan, found, row))


def _within(
    scan: WriteScan,
    found: wire.HistogramScan,
    limits: Limits,
    kept: np.ndarray,
    refuse: Callable[[int, ClientError], None],
) -> HistogramColumns:
    """The histograms with those over the limit of buckets coarsened; takes those out of `kept` that cannot be."""
    columns, most = found.columns, limits.max_native_histogram_buckets
    buckets = np.diff(columns.positive_offsets) + np.diff(columns.negative_offsets)
    over = np.flatnonzero(kept & (buckets > most)).tolist()
    if not over:
        return columns
    scan.need_labels(np.unique(found.series[over]))
    rows = [columns.row(row) for row in range(len(columns))]
    for row in over:
        said = int(found.timestamps[row]), _series(scan, found, row), int(buckets[row]), most
        if rows[row].has_custom_buckets:
            kept[row] = False
            refuse(row, errors.CustomBucketsNotReducible(*said))
            continue
        smaller = wire.halved(rows[row], most) if limits.reduce_native_histogram_over_max_buckets else None
        if smaller is None:
            kept[row] = False
            reducible = limits.reduce_native_histogram_over_max_buckets
            refuse(row, (errors.HistogramNotReducible if reducible else errors.TooManyBuckets)(*said))
        else:
            rows[row] = smaller
    return HistogramColumns.from_rows(rows)
