"""Why the distributor refuses a write, in Mimir's words and with its ids.

Upstream: pkg/distributor/validate.go, pkg/distributor/errors.go, pkg/ingester/errors.go. The reason under which
discarded samples are counted is the id with underscores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import ClassVar

import numpy as np

from mimir_ray.config.units import Duration
from mimir_ray.errors import ClientError, LimitExceeded, MimirRayError, Unavailable
from mimir_ray.model.exemplars import LABELS_RUNES_MAX
from mimir_ray.model.labels import METRIC_NAME
from mimir_ray.model.matchers import quote
from mimir_ray.roles.api import Refusal
from mimir_ray.wire.protobuf import RawLabel

_SHOWN = 200
"""So many characters of a label set or value are shown."""


def discard_reason(error: MimirRayError) -> str:
    """The value of `reason` in cortex_discarded_samples_total."""
    return error.id.replace("-", "_")


def format_series(labels: Sequence[tuple[str, str]]) -> str:
    """`name{a="b", c="d"}`, in the order given, duplicates included. Upstream: mimirpb.FromLabelAdaptersToString."""
    at = next((at for at, (name, _) in enumerate(labels) if name == METRIC_NAME), -1)
    others = ", ".join(f"{name}={quote(value)}" for place, (name, value) in enumerate(labels) if place != at)
    return (labels[at][1] if at >= 0 else "") + (f"{{{others}}}" if others else "") or "{}"


# Series.


@dataclass(eq=False)
class MissingMetricName(ClientError):
    id: ClassVar[str] = "missing-metric-name"

    def describe(self) -> str:
        return "received series has no metric name"


@dataclass(eq=False)
class InvalidMetricName(ClientError):
    id: ClassVar[str] = "metric-name-invalid"
    name: str

    def describe(self) -> str:
        ascii_only = "".join(char for char in self.name if char < "\x80")
        note = " (non-ascii characters removed)" if ascii_only != self.name else ""
        return f"received a series with invalid metric name: '{(ascii_only + note)[:_SHOWN]}'"


@dataclass(eq=False)
class TooManyLabels(LimitExceeded):
    id: ClassVar[str] = "max-label-names-per-series"
    flags: ClassVar[tuple[str, ...]] = ("validation.max-label-names-per-series",)
    kind: ClassVar[str] = "a series"
    series: str
    actual: int
    allowed: int

    def describe(self) -> str:
        ellipsis = "\u2026" if len(self.series) > _SHOWN else ""
        return (
            f"received {self.kind} whose number of labels exceeds the limit "
            f"(actual: {self.actual}, limit: {self.allowed}) series: '{self.series[:_SHOWN]}{ellipsis}'"
        )


@dataclass(eq=False)
class TooManyInfoLabels(TooManyLabels):
    id: ClassVar[str] = "max-label-names-per-info-series"
    flags: ClassVar[tuple[str, ...]] = ("validation.max-label-names-per-info-series",)
    kind: ClassVar[str] = "an info series"


@dataclass(eq=False)
class InvalidLabelName(ClientError):
    id: ClassVar[str] = "label-invalid"
    label: str
    series: str

    def describe(self) -> str:
        return f"received a series with an invalid label: '{self.label[:_SHOWN]}' series: '{self.series[:_SHOWN]}'"


@dataclass(eq=False)
class LabelNameTooLong(LimitExceeded):
    id: ClassVar[str] = "label-name-too-long"
    flags: ClassVar[tuple[str, ...]] = ("validation.max-length-label-name",)
    label: str
    series: str

    def describe(self) -> str:
        return (
            "received a series whose label name length exceeds the limit, "
            f"label: '{self.label[:_SHOWN]}' series: '{self.series[:_SHOWN]}'"
        )


@dataclass(eq=False)
class InvalidLabelValue(ClientError):
    id: ClassVar[str] = "label-value-invalid"
    label: str
    value: str
    metric: str

    def describe(self) -> str:
        return (
            f"received a series with invalid value in label '{self.label[:_SHOWN]}': "
            f"'{self.value[:_SHOWN]}' metric: '{self.metric[:_SHOWN]}'"
        )


@dataclass(eq=False)
class LabelValueTooLong(LimitExceeded):
    id: ClassVar[str] = "label-value-too-long"
    flags: ClassVar[tuple[str, ...]] = ("validation.max-length-label-value",)
    label: str
    value: str
    series: str

    def describe(self) -> str:
        return (
            f"received a series whose label value length exceeds the limit, label: '{self.label}', "
            f"value: '{self.value[:_SHOWN]}' (truncated) series: '{self.series[:_SHOWN]}'"
        )


@dataclass(eq=False)
class DuplicateLabelNames(ClientError):
    id: ClassVar[str] = "duplicate-label-names"
    label: str
    series: str

    def describe(self) -> str:
        label, series = self.label[:_SHOWN], self.series[:_SHOWN]
        return f"received a series with duplicate label name, label: '{label}' series: '{series}'"


# Samples.


@dataclass(eq=False)
class SampleTooFarInFuture(LimitExceeded):
    id: ClassVar[str] = "too-far-in-future"
    flags: ClassVar[tuple[str, ...]] = ("validation.create-grace-period",)
    direction: ClassVar[str] = "future"
    timestamp: int
    metric: str

    def describe(self) -> str:
        return (
            f"received a sample whose timestamp is too far in the {self.direction}, "
            f"timestamp: {self.timestamp} series: '{self.metric[:_SHOWN]}'"
        )


@dataclass(eq=False)
class SampleTooFarInPast(SampleTooFarInFuture):
    id: ClassVar[str] = "too-far-in-past"
    flags: ClassVar[tuple[str, ...]] = ("validation.past-grace-period",)
    direction: ClassVar[str] = "past"


@dataclass(eq=False)
class InvalidHistogramSchema(ClientError):
    id: ClassVar[str] = "invalid-native-histogram-schema"
    schema: int

    def describe(self) -> str:
        return f"received a native histogram sample with an invalid schema: {self.schema}"


@dataclass(eq=False)
class TooManyBuckets(LimitExceeded):
    id: ClassVar[str] = "max-native-histogram-buckets"
    flags: ClassVar[tuple[str, ...]] = ("validation.max-native-histogram-buckets",)
    what: ClassVar[str] = "too many buckets"
    timestamp: int
    series: str
    actual: int
    allowed: int

    def describe(self) -> str:
        return (
            f"received a native histogram sample with {self.what}, timestamp: {self.timestamp} "
            f"series: {self.series[:_SHOWN]}, buckets: {self.actual}, limit: {self.allowed}"
        )


@dataclass(eq=False)
class HistogramNotReducible(TooManyBuckets):
    id: ClassVar[str] = "not-reducible-native-histogram"
    what: ClassVar[str] = "too many buckets and cannot reduce"


@dataclass(eq=False)
class CustomBucketsNotReducible(TooManyBuckets):
    id: ClassVar[str] = "native-histogram-custom-buckets-not-reducible"
    what: ClassVar[str] = "more custom buckets than the limit"


@dataclass(eq=False)
class InvalidHistogram(ClientError):
    """A histogram whose parts contradict each other; `kind` is Mimir's id for the contradiction."""

    kind: str
    reason: str
    timestamp: int
    series: str

    def __post_init__(self) -> None:
        self.id = self.kind  # type: ignore[misc]

    def describe(self) -> str:
        return f"err: {self.reason}. timestamp={format_time(self.timestamp)}, series={self.series[:_SHOWN]}"


# Exemplars.


def format_labels(raw: Sequence[RawLabel]) -> str:
    """`{__name__="a", b="c"}`, in the order given."""
    pairs = ((name.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for name, value in raw)
    return "{" + ", ".join(f"{name}={quote(value)}" for name, value in pairs) + "}"


@dataclass(eq=False)
class InvalidExemplar(ClientError):
    """An exemplar that is not taken; its sample is."""

    what: ClassVar[str] = ""
    timestamp: int
    series: str
    labels: str

    def describe(self) -> str:
        return (
            f"received an exemplar {self.what}, timestamp: {self.timestamp} "
            f"series: {self.series[:_SHOWN]} labels: {self.labels[:_SHOWN]}"
        )


class ExemplarLabelsMissing(InvalidExemplar):
    id: ClassVar[str] = "exemplar-labels-missing"
    what: ClassVar[str] = "with no valid labels"


class ExemplarTimestampInvalid(InvalidExemplar):
    id: ClassVar[str] = "exemplar-timestamp-invalid"
    what: ClassVar[str] = "with no timestamp"


class ExemplarLabelsTooLong(InvalidExemplar):
    id: ClassVar[str] = "exemplar-labels-too-long"
    what: ClassVar[str] = f"where the size of its combined labels exceeds the limit of {LABELS_RUNES_MAX} characters"


# Metadata.


@dataclass(eq=False)
class MetadataWithoutName(ClientError):
    id: ClassVar[str] = "metadata-missing-metric-name"

    def describe(self) -> str:
        return "received a metric metadata with no metric name"


@dataclass(eq=False)
class MetadataNameTooLong(LimitExceeded):
    id: ClassVar[str] = "metric-name-too-long"
    flags: ClassVar[tuple[str, ...]] = ("validation.max-metadata-length",)
    family: str

    def describe(self) -> str:
        return (
            "received a metric metadata whose metric name length exceeds the limit, "
            f"metric name: '{self.family[:_SHOWN]}'"
        )


@dataclass(eq=False)
class MetadataUnitTooLong(LimitExceeded):
    id: ClassVar[str] = "unit-too-long"
    flags: ClassVar[tuple[str, ...]] = ("validation.max-metadata-length",)
    unit: str
    family: str

    def describe(self) -> str:
        return (
            "received a metric metadata whose unit name length exceeds the limit, "
            f"unit: '{self.unit[:_SHOWN]}' metric name: '{self.family[:_SHOWN]}'"
        )


# Rates and limits.


def format_number(value: float) -> str:
    """A float as Go's %v prints it: shortest digits, an exponent from 1e+06 on."""
    if not math.isfinite(value):
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    mantissa, exponent = np.format_float_scientific(value, unique=True, trim="-", exp_digits=2).split("e")
    if value and not -4 <= int(exponent) < 6:
        return f"{mantissa}e{exponent}"
    return np.format_float_positional(value, unique=True, trim="-")


class RateLimited(LimitExceeded):
    """The tenant sends too fast: status 429, or 529 if `overloaded`. Nothing was stored."""

    overloaded: bool = False


@dataclass(eq=False)
class RequestRateLimited(RateLimited):
    id: ClassVar[str] = "tenant-max-request-rate"
    flags: ClassVar[tuple[str, ...]] = ("distributor.request-rate-limit", "distributor.request-burst-size")
    rate: float
    burst: int

    def describe(self) -> str:
        return (
            "the request has been rejected because the tenant exceeded the request rate limit, "
            f"set to {format_number(self.rate)} requests/s across all distributors "
            f"with a maximum allowed burst of {self.burst}"
        )


@dataclass(eq=False)
class IngestionRateLimited(RateLimited):
    id: ClassVar[str] = "tenant-max-ingestion-rate"
    flags: ClassVar[tuple[str, ...]] = ("distributor.ingestion-rate-limit", "distributor.ingestion-burst-size")
    rate: float
    burst: int

    def describe(self) -> str:
        return (
            "the request has been rejected because the tenant exceeded the ingestion rate limit, "
            f"set to {format_number(self.rate)} items/s with a maximum allowed burst of {self.burst}. "
            "This limit is applied on the total number of samples, exemplars and metadata "
            "received across all distributors"
        )


@dataclass(eq=False)
class IngestionBurstLimited(RateLimited):
    """A single request with more items than may ever come at once."""

    id: ClassVar[str] = "tenant-max-ingestion-rate"
    flags: ClassVar[tuple[str, ...]] = ("distributor.ingestion-burst-size",)
    burst: int
    items: int

    def describe(self) -> str:
        return (
            "the request has been rejected because the tenant exceeded the ingestion burst size limit, "
            f"set to {self.burst}, with {self.items} items. "
            "This limit is applied on the total number of samples, exemplars and metadata "
            "received across all distributors"
        )


@dataclass(eq=False)
class InstanceIngestionRateReached(Unavailable):
    """This distributor takes as many items a second as it may: status 500."""

    id: ClassVar[str] = "distributor-max-ingestion-rate"

    def __str__(self) -> str:
        return (
            "the write request has been rejected because the distributor exceeded the ingestion rate limit "
            f"(err-mimir-{self.id}). To adjust the related limit, configure "
            "-distributor.instance-limits.max-ingestion-rate, or contact your service administrator."
        )


@dataclass(eq=False)
class TooManyInflightRequests(Unavailable):
    """This distributor works on as many pushes as it may: status 500."""

    id: ClassVar[str] = "distributor-max-inflight-push-requests"

    def __str__(self) -> str:
        return (
            "the write request has been rejected because the distributor exceeded the allowed number of inflight push "
            f"requests (err-mimir-{self.id}). To adjust the related limit, configure "
            "-distributor.instance-limits.max-inflight-push-requests, or contact your service administrator."
        )


@dataclass(eq=False)
class TooManyInflightBytes(Unavailable):
    id: ClassVar[str] = "distributor-max-inflight-push-requests-bytes"

    def __str__(self) -> str:
        return (
            "the write request has been rejected because the distributor exceeded the allowed total size in bytes of "
            f"inflight push requests (err-mimir-{self.id}). To adjust the related limit, configure "
            "-distributor.instance-limits.max-inflight-push-requests-bytes, or contact your service administrator."
        )


# Pairs of identical senders.


@dataclass(eq=False)
class ReplicasDidNotMatch(ClientError):
    """Samples of a replica that is not the elected one, which are not needed: status 202, so that it goes on."""

    replica: str
    elected: str

    def describe(self) -> str:
        return f"replicas did not match, rejecting sample: replica={self.replica}, elected={self.elected}"


# What ingesters said.


class IngesterError(MimirRayError):
    """A push to one ingester failed."""


@dataclass(eq=False)
class IngesterRefused(IngesterError, ClientError):
    """An ingester refused samples, as it would again; the others are stored. Status 400."""

    ingester: str
    tenant: str
    refusal: Refusal

    def describe(self) -> str:
        return f"failed pushing to ingester {self.ingester}: user={self.tenant}: {describe_refusal(self.refusal)}"


@dataclass(eq=False)
class IngesterRejected(IngesterError, ClientError):
    """An ingester refused a whole batch, as it would again. Status 400."""

    ingester: str
    tenant: str
    problem: str

    def describe(self) -> str:
        return f"failed pushing to ingester {self.ingester}: user={self.tenant}: {self.problem}"


@dataclass(eq=False)
class IngesterFailed(IngesterError, Unavailable):
    """An ingester could not take a batch. Status 500."""

    ingester: str
    problem: str

    def describe(self) -> str:
        return f"failed pushing to ingester {self.ingester}: {self.problem}"


@dataclass(eq=False)
class IngesterTimedOut(IngesterError, Unavailable):
    """No answer within the remote time-out; whether samples were stored is not known. Status 500."""

    ingester: str

    def describe(self) -> str:
        return (
            "exceeded configured distributor remote timeout: "
            f"failed pushing to ingester {self.ingester}: context deadline exceeded"
        )


_SAMPLE_REFUSALS = {
    "sample-out-of-order": (
        "the sample has been rejected because another sample with a more recent timestamp has already been ingested "
        "and out-of-order samples are not allowed"
    ),
    "sample-timestamp-too-old": "the sample has been rejected because its timestamp is too old",
    "sample-duplicate-timestamp": (
        "the sample has been rejected because another sample with the same timestamp, but a different value, "
        "has already been ingested"
    ),
}
_LIMIT_REFUSALS = {
    "max-series-per-user": ("per-user series limit", "ingester.max-global-series-per-user"),
    "max-series-per-metric": ("per-metric series limit", "ingester.max-global-series-per-metric"),
    "max-metadata-per-user": ("per-user metric metadata limit", "ingester.max-global-metadata-per-user"),
    "max-metadata-per-metric": ("per-metric metadata limit", "ingester.max-global-metadata-per-metric"),
}
_OF_A_METRIC = ("max-series-per-metric", "max-metadata-per-metric")


def describe_refusal(refusal: Refusal) -> str:
    """An ingester's soft error with its id. `limit` of a sample that is too old: the out-of-order window in ms."""
    error_id = f"(err-mimir-{refusal.reason})"
    if refusal.reason in _LIMIT_REFUSALS:
        what, flag = _LIMIT_REFUSALS[refusal.reason]
        text = (
            f"{what} of {refusal.limit} exceeded {error_id}. To adjust the related per-tenant limit, "
            f"configure -{flag}, or contact your service administrator."
        )
        return f"{text} This is for series {refusal.series}" if refusal.reason in _OF_A_METRIC else text
    if refusal.reason == "exemplar-series-missing":
        return (
            f"the exemplar has been rejected because the related series has not been ingested yet {error_id}. The "
            f"affected exemplar is {refusal.exemplar} with timestamp {format_time(refusal.timestamp)} "
            f"for series {refusal.series}"
        )
    if refusal.reason == "exemplar-out-of-order":
        return (
            f"err: out of order exemplar. timestamp={format_time(refusal.timestamp)}, "
            f"series={refusal.series}, exemplar={refusal.exemplar}"
        )
    text = _SAMPLE_REFUSALS.get(refusal.reason, "the sample has been rejected")
    if refusal.reason == "sample-timestamp-too-old" and refusal.limit:
        text = (
            "the sample has been rejected because another sample with a more recent timestamp has already been "
            f"ingested and this sample is beyond the out-of-order time window of {Duration(refusal.limit)}"
        )
    moment = format_time(refusal.timestamp)
    return f"{text} {error_id}. The affected sample has timestamp {moment} and is from series {refusal.series}"


def format_time(timestamp_ms: int) -> str:
    """RFC 3339 in UTC with as many decimals as there are, as Go's RFC3339Nano."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=timestamp_ms)
    except OverflowError:
        return str(timestamp_ms)
    fraction = f".{moment.microsecond // 1000:03d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + f"{fraction}Z"
