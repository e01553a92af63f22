"""An OTLP metrics request as a `WriteScan`.

Resources, scopes and metrics are read as objects (messages.py), data points by kernels (points.py, exponential.py). The
label section of a series is translated when the series is new to the distributor: `OtlpScan.need_labels`.

Upstream: prometheus storage/remote/otlptranslator/prometheusremotewrite, pkg/distributor/otel.go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mimir_ray.model.float_histogram import GAUGE, UNKNOWN
from mimir_ray.model.histogram import HistogramColumns
from mimir_ray.model.metadata import Metadata
from mimir_ray.wire.exemplars import ExemplarScan
from mimir_ray.wire.protobuf import MalformedProtobuf, encode_labels
from mimir_ray.wire.remote_write_histograms import HistogramScan
from mimir_ray.wire.write_scan import HashKey, SectionWriter, WriteScan

from . import points
from .exemplars import Exemplar, columns_of, read_exemplars
from .histograms import read_explicit, read_exponentials
from .messages import IDENTIFYING, Metric, Request, read_request
from .names import Kind, Naming, UntranslatableName, unit_name
from .values import Attributes, attribute_of, plain_float

DELTA, CUMULATIVE = 1, 2
LOOKBACK_MS = 300_000
ZEROS_WITHIN_MS = 300_000
"""How long before a point its start may lie to become a sample."""
TARGET_INFO = "target_info"
TARGET_SAMPLES_MAX = 1000
"""Of one resource in one request; upstream has no bound, so that two distant timestamps are a flood."""
_ATTRIBUTE_TAGS = np.array([0x3A, 0x3A, 0x4A, 0x0A, 0x3A, 0x4A], np.int64)
"""Of data points, by the kind of their metric."""
_EXEMPLARS = {points.SUM: 5, points.HISTOGRAM: 8, points.NHCB: 8, points.EXPONENTIAL: 11}
_KINDS: dict[int, Kind] = {
    points.GAUGE: "gauge", points.HISTOGRAM: "histogram", points.NHCB: "histogram",
    points.EXPONENTIAL: "exponential", points.SUMMARY: "summary",
}  # fmt: skip
_TYPES: dict[Kind, str] = {
    "gauge": "gauge", "counter": "counter", "updown": "gauge", "histogram": "histogram", "exponential": "histogram",
    "summary": "summary",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """How a tenant wants OTLP translated; Mimir's limits `otel_*` and `promote_otel_resource_attributes`."""

    naming: Naming = field(default_factory=Naming)
    promote_resource_attributes: tuple[str, ...] = ()
    keep_identifying_resource_attributes: bool = False
    promote_scope_metadata: bool = False
    convert_histograms_to_nhcb: bool = False
    native_delta: bool = False
    zero_samples: bool = False
    """Whether what is counted is 0 where it begins. Upstream: pkg/distributor/otlpappender. Differs: gauges are not, as
    they count nothing."""


@dataclass(slots=True)
class OtlpScan(WriteScan):
    """See `WriteScan`. `problems`: what was not translated; `rejected`: how many data points that is."""

    translation: Translation | None = None
    native: HistogramScan | None = None
    problems: tuple[str, ...] = ()
    rejected: int = 0

    def own_histograms(self) -> HistogramScan | None:
        return self.native

    def own_exemplars(self, runes_max: int) -> ExemplarScan | None:
        assert self.translation is not None
        return read_point_exemplars(self.translation, runes_max)

    @property
    def section_writer(self) -> SectionWriter:
        assert self.translation is not None
        return self.translation.add_sections


@dataclass(slots=True)
class Translation:
    """What is needed to find the labels of a row: M metrics, P points, R rows, and then one row a resource."""

    request: Request
    settings: OtlpSettings
    metrics: list[Metric]
    names: list[str]
    point_metric: NDArray[np.int32]
    point_start: NDArray[np.int64]
    point_end: NDArray[np.int64]
    row_point: NDArray[np.int32]
    parts: NDArray[np.int8]
    bounds: NDArray[np.float64]
    exemplars: NDArray[np.int32]
    targets: list[int]
    _labels: dict[str, str] = field(default_factory=dict)

    def add_sections(
        self, data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], rows: NDArray[np.integer]
    ) -> bytes:
        """See `SectionWriter`; a series without its section has the start -1 - row, and `rows` ascend."""
        missing = rows[starts[rows] < 0]
        if not len(missing):
            return data
        sections = self.sections(-1 - starts[missing])
        behind = np.cumsum([len(section) for section in sections]) + len(data)
        starts[missing] = np.append(len(data), behind[:-1])
        ends[missing] = behind
        return b"".join((data, *sections))

    def sections(self, rows: NDArray[np.integer]) -> list[bytes]:
        """The label sections of these rows, ascending. A label that cannot be named is left out."""
        own = rows[rows < len(self.row_point)]
        points_of_rows = self.row_point[own]
        wanted, first = np.unique(points_of_rows, return_index=True)
        ends = np.append(first, len(own))[1:].tolist()
        found: list[bytes] = []
        for point, attributes, start, end in zip(
            wanted.tolist(), self._attributes(wanted), first.tolist(), ends, strict=True
        ):
            metric = int(self.point_metric[point])
            labels = self._complete(attributes, self.metrics[metric])
            found += [self._section(labels, self.names[metric], row) for row in own[start:end].tolist()]
        targets = (self.target_labels(self.targets[row - len(self.row_point)]) for row in rows[len(own) :].tolist())
        return found + [_encoded(labels) for labels in targets]

    def _section(self, labels: dict[str, str], name: str, row: int) -> bytes:
        part = int(self.parts[row])
        if part in (points.VALUE, points.NATIVE):
            return _encoded(labels | {"__name__": name})
        if part == points.TOTAL:
            return _encoded(labels | {"__name__": f"{name}_sum"})
        if part == points.COUNT:
            return _encoded(labels | {"__name__": f"{name}_count"})
        bound = "+Inf" if part == points.LAST_BUCKET else plain_float(float(self.bounds[row]))
        if part == points.QUANTILE:
            return _encoded(labels | {"__name__": name, "quantile": bound})
        return _encoded(labels | {"__name__": f"{name}_bucket", "le": bound})

    def _attributes(self, wanted: NDArray[np.integer]) -> Iterator[Attributes]:
        """Of each of these points."""
        data = self.request.data
        tags = _ATTRIBUTE_TAGS[np.array([metric.kind for metric in self.metrics], np.int64)[self.point_metric[wanted]]]
        about = np.frombuffer(data, np.uint8), self.point_start[wanted], self.point_end[wanted], tags
        offsets = np.zeros(len(wanted) + 1, np.int64)
        points.find_attributes(*about, offsets, np.empty(0, np.int64))
        cuts = np.empty(2 * int(offsets[-1]), np.int64)
        points.find_attributes(*about, offsets, cuts)
        found = [attribute_of(data[start:end]) for start, end in cuts.reshape(-1, 2).tolist()]
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            yield found[start:end]

    def target_labels(self, number: int) -> dict[str, str]:
        """The labels of a resource's `target_info`."""
        resource = self.request.resources[number]
        left_out = () if self.settings.keep_identifying_resource_attributes else IDENTIFYING
        labels = self._named([(key, value) for key, value in resource.attributes if key not in left_out])
        return _present(labels, job=resource.job, instance=resource.instance) | {"__name__": TARGET_INFO}

    def _complete(self, attributes: Attributes, metric: Metric) -> dict[str, str]:
        settings, resource = self.settings, self.request.resources[metric.resource]
        labels = self._named([(key, value) for key, value in attributes if key != "__name__"])
        if settings.promote_resource_attributes:
            wanted = set(settings.promote_resource_attributes)
            promoted = self._named([(key, value) for key, value in resource.attributes if key in wanted])
            labels = promoted | {key: value for key, value in labels.items() if value}
        labels = _present(labels, job=resource.job, instance=resource.instance)
        if settings.promote_scope_metadata:
            scope = self.request.scopes[metric.scope]
            labels |= self._named([(f"otel_scope_{key}", value) for key, value in scope.attributes])
            labels |= {
                "otel_scope_name": scope.name,
                "otel_scope_version": scope.version,
                "otel_scope_schema_url": scope.schema_url,
            }
        return labels

    def _named(self, attributes: Attributes) -> dict[str, str]:
        """Attributes under their labels' names; values of those that share one are joined, in order of their keys."""
        labels: dict[str, str] = {}
        for key, value in sorted(attributes, key=lambda pair: pair[0]):
            name = self._labels.get(key)
            if name is None:
                try:
                    name = self.settings.naming.label(key)
                except UntranslatableName:
                    name = ""
                self._labels[key] = name
            if name:
                labels[name] = f"{labels[name]};{value}" if labels.get(name) else value
        return labels


@lru_cache(maxsize=1 << 15)
def encoded_label(label: tuple[str, str]) -> bytes:
    return encode_labels([(label[0].encode(), label[1].encode())])


def _encoded(labels: dict[str, str]) -> bytes:
    """The label section. Characters sort as their bytes in UTF-8 do."""
    return b"".join(map(encoded_label, sorted(pair for pair in labels.items() if pair[1])))


def _present(labels: dict[str, str], **more: str) -> dict[str, str]:
    return labels | {key: value for key, value in more.items() if value}


def read_point_exemplars(translation: Translation, runes_max: int) -> ExemplarScan:
    """Exemplars of sums and histograms; those of a histogram belong to the bucket that they fall into.

    Raises `MalformedProtobuf`.
    """
    data, kinds = translation.request.data, [metric.kind for metric in translation.metrics]
    first_rows = np.searchsorted(translation.row_point, np.arange(len(translation.point_start) + 1))
    rows: list[int] = []
    found: list[Exemplar] = []
    for point in np.flatnonzero(translation.exemplars).tolist():
        kind = kinds[int(translation.point_metric[point])]
        start, end = int(translation.point_start[point]), int(translation.point_end[point])
        own = np.arange(first_rows[point], first_rows[point + 1])
        buckets = own[np.isin(translation.parts[own], (points.BUCKET, points.LAST_BUCKET))]
        for exemplar in read_exemplars(data, start, end, _EXEMPLARS[kind], runes_max):
            row = int(own[0])
            if len(buckets):
                bounds = translation.bounds[buckets[:-1]]
                row = int(buckets[np.searchsorted(bounds, exemplar.value)])
            rows.append(row)
            found.append(exemplar)
    order = np.argsort(np.array(rows, np.int64), kind="stable")
    return columns_of(np.array(rows, np.int64)[order], [found[at] for at in order.tolist()], runes_max)


def scan_otlp(data: bytes, key: HashKey, settings: OtlpSettings) -> OtlpScan:
    """Reads an ExportMetricsServiceRequest. Raises `MalformedProtobuf`."""
    request = read_request(data)
    view = np.frombuffer(data, np.uint8)
    problems: list[str] = []
    metrics, names, facts, rejected = _translatable(request, _measured(view, request, settings), settings, problems)
    kinds, starts, ends = _ranges(metrics)
    hashes = _metric_hashes(request, metrics, key, settings)
    point_count, row_count = (int(facts[:, which].sum()) for which in (points.POINTS, points.ROWS))
    point_metric, exemplars = np.empty(point_count, np.int32), np.zeros(point_count, np.int32)
    point_start, point_end, times, start_times = (np.empty(point_count, np.int64) for _ in range(4))
    row_point, parts = np.empty(row_count, np.int32), np.empty(row_count, np.int8)
    bounds, values = np.empty(row_count, np.float64), np.empty(row_count, np.float64)
    low, high = np.empty(row_count, np.uint64), np.empty(row_count, np.uint64)
    points.read_points(
        view, kinds, starts, ends, hashes[:, 0].copy(), hashes[:, 1].copy(), *(np.uint64(word) for word in key),
        point_metric, point_start, point_end, times, start_times, exemplars,
        row_point, parts, bounds, values, low, high,
    )  # fmt: skip
    if settings.zero_samples:
        start_times[kinds[point_metric] == points.GAUGE] = 0
    targets = _targets(request, metrics, point_metric, times)
    target_hashes = np.array(
        [_hash(key, "target", settings, request.resources[one].raw) for one, _ in targets], np.uint64
    )
    low = np.concatenate((low, target_hashes.reshape(-1, 2)[:, 0]))
    high = np.concatenate((high, target_hashes.reshape(-1, 2)[:, 1]))
    samples_each = [len(found) for _, found in targets]
    owners = np.concatenate((
        np.flatnonzero(parts != points.NATIVE), np.repeat(np.arange(row_count, row_count + len(targets)), samples_each)
    )).astype(np.int32)  # fmt: skip
    here = row_point[parts != points.NATIVE]
    timestamps = np.concatenate((times[here], *(found for _, found in targets)))
    begun = np.concatenate((start_times[here], np.zeros(sum(samples_each), np.int64)))
    offsets = np.zeros(len(low) + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=len(low)), out=offsets[1:])
    native = np.flatnonzero(parts == points.NATIVE)
    if len(native):
        hints = np.where(facts[point_metric, points.TEMPORALITY] == DELTA, GAUGE, UNKNOWN).astype(np.int8)
        histograms = _native(data, native, row_point[native], kinds[point_metric], point_start, point_end, times, hints)
        begun_native = start_times[row_point[native]]
        histograms.start_timestamps = begun_native if begun_native.any() else None
    else:
        histograms = None
    return OtlpScan(
        data,
        -1 - np.arange(len(low)),
        np.zeros(len(low), np.int64),
        low,
        high,
        offsets,
        owners,
        timestamps,
        np.concatenate((values[parts != points.NATIVE], np.ones(sum(samples_each)))),
        _metadata(metrics, names, facts),
        int(timestamps.min(initial=0)) if len(timestamps) else 0,
        int(timestamps.max(initial=0)) if len(timestamps) else 0,
        0,
        int(exemplars.sum()),
        len(native),
        len(data),
        start_timestamps=begun if begun.any() else None,
        zeros_within_ms=ZEROS_WITHIN_MS if settings.zero_samples else 0,
        translation=Translation(
            request,
            settings,
            metrics,
            names,
            point_metric,
            point_start,
            point_end,
            row_point,
            parts,
            bounds,
            exemplars,
            [one for one, _ in targets],
        ),
        native=histograms,
        problems=tuple(problems),
        rejected=rejected,
    )


def _ranges(metrics: Sequence[Metric]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(kinds, starts, ends), int64[M]."""
    found = np.array([(metric.kind, metric.start, metric.end) for metric in metrics], np.int64).reshape(-1, 3)
    kinds, starts, ends = (np.ascontiguousarray(one) for one in found.T)
    return kinds, starts, ends


def _measured(view: NDArray[np.uint8], request: Request, settings: OtlpSettings) -> NDArray[np.int64]:
    """int64[M, FACTS]: what `points.measure` says of the request's metrics; zeros for kinds that we do not know."""
    for metric in request.metrics:
        if metric.kind == points.HISTOGRAM and settings.convert_histograms_to_nhcb:
            metric.kind = points.NHCB
    facts = np.zeros((len(request.metrics), points.FACTS), np.int64)
    malformed = points.measure(view, *_ranges(request.metrics), facts.ravel())
    if malformed >= 0:
        raise MalformedProtobuf("Metric", "malformed data point", malformed)
    return facts


def _translatable(
    request: Request, facts: NDArray[np.int64], settings: OtlpSettings, problems: list[str]
) -> tuple[list[Metric], list[str], NDArray[np.int64], int]:
    """(metrics, their names, their facts, how many points others have); adds why those are left out."""
    kept, names, rejected = [], [], 0
    naming = settings.naming
    for number, (metric, about) in enumerate(zip(request.metrics, facts.tolist(), strict=True)):
        problem = ""
        temporality = about[points.TEMPORALITY]
        if metric.kind < 0:
            problem = f"could not get aggregation temporality for {metric.name} as it has unsupported metric type Empty"
        elif metric.kind not in (points.GAUGE, points.SUMMARY) and not (
            temporality == CUMULATIVE or (temporality == DELTA and settings.native_delta)
        ):
            problem = f'invalid temporality and type combination for metric "{metric.name}"'
        else:
            try:
                name = naming.metric(metric.name, metric.unit, _kind(metric, about[points.MONOTONIC]))
            except UntranslatableName as error:
                problem = str(error)
        if problem:
            problems.append(problem)
            rejected += about[points.POINTS]
        elif about[points.POINTS]:
            kept.append(number)
            names.append(name)
    return [request.metrics[number] for number in kept], names, facts[kept], rejected


def _kind(metric: Metric, monotonic: int) -> Kind:
    if metric.kind == points.SUM:
        return "counter" if monotonic else "updown"
    return _KINDS[metric.kind]


def _hash(key: HashKey, what: str, settings: OtlpSettings, *parts: bytes) -> tuple[int, int]:
    """Two uint64 that know a series' common parts, and how they are translated."""
    secret = b"".join(word.to_bytes(8, "little") for word in key)
    digest = hashlib.blake2b(f"{what}{settings}".encode(), key=secret, digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    found = digest.digest()
    return int.from_bytes(found[:8], "little"), int.from_bytes(found[8:], "little")


def _metric_hashes(
    request: Request, metrics: Sequence[Metric], key: HashKey, settings: OtlpSettings
) -> NDArray[np.uint64]:
    """uint64[M, 2]: of what the series of a metric have in common."""
    shared = [_hash(key, "resource", settings, one.raw) for one in request.resources]
    rows = []
    for metric in metrics:
        low, high = shared[metric.resource]
        scope = request.scopes[metric.scope].raw if settings.promote_scope_metadata else b""
        common = low.to_bytes(8, "little") + high.to_bytes(8, "little") + bytes([metric.kind])
        rows.append(_hash(key, "metric", settings, common, scope, metric.name.encode(), metric.unit.encode()))
    return np.array(rows, np.uint64).reshape(-1, 2)


def _targets(
    request: Request,
    metrics: Sequence[Metric],
    point_metric: NDArray[np.int32],
    times: NDArray[np.int64],
) -> list[tuple[int, NDArray[np.int64]]]:
    """(resource, timestamps) of each `target_info`: often enough that a query in between finds a sample."""
    if not len(times):
        return []
    of_points = np.array([metric.resource for metric in metrics], np.int64)[point_metric]
    found = []
    seen: dict[bytes, set[int]] = {}
    for number in np.unique(of_points).tolist():
        resource = request.resources[number]
        others = [key for key, _ in resource.attributes if key not in IDENTIFYING]
        if not others or not (resource.job or resource.instance):
            continue
        own = times[of_points == number]
        first, last = int(own.min()), int(own.max())
        step = max(LOOKBACK_MS // 2, (last - first) // TARGET_SAMPLES_MAX + 1)
        wanted = [*range(first, last, step), last]
        before = seen.setdefault(resource.raw, set())
        wanted = [one for one in wanted if one not in before]
        before.update(wanted)
        if wanted:
            found.append((number, np.array(wanted, np.int64)))
    return found


def _native(
    data: bytes,
    rows: NDArray[np.int64],
    own: NDArray[np.int32],
    kinds: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    times: NDArray[np.int64],
    hints: NDArray[np.int8],
) -> HistogramScan:
    """The native histograms of these rows, which are those of the points `own`."""
    exponential = kinds[own] == points.EXPONENTIAL
    parts = []
    for chosen, read in ((exponential, read_exponentials), (~exponential, read_explicit)):
        if chosen.any():
            some = own[chosen]
            parts.append(read(data, rows[chosen], starts[some], ends[some], times[some], hints[some]))
    if len(parts) == 1:
        return parts[0]
    series = np.concatenate([part.series for part in parts])
    order = np.argsort(series, kind="stable")
    return HistogramScan(
        series[order],
        np.concatenate([part.timestamps for part in parts])[order],
        np.concatenate([part.problems for part in parts])[order],
        HistogramColumns.concat([part.columns for part in parts]).take(order),
    )


def _metadata(metrics: Sequence[Metric], names: Sequence[str], facts: NDArray[np.int64]) -> tuple[Metadata, ...]:
    found: dict[str, Metadata] = {}
    for metric, name, about in zip(metrics, names, facts.tolist(), strict=True):
        monotonic, temporality = about[points.MONOTONIC], about[points.TEMPORALITY]
        kind = _TYPES[_kind(metric, monotonic)]
        if kind == "counter" and temporality == DELTA:
            kind = "unknown"
        found[name] = Metadata(name, kind, metric.description, unit_name(metric.unit))
    return tuple(found.values())
