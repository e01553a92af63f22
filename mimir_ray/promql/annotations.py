"""Warnings and infos that evaluation leaves beside an answer.

Texts, deduplication and positions as Prometheus has them. An annotation is the same as another when
kind and raw text are equal, wherever in the query it arose; the last position wins.

Upstream: util/annotations/annotations.go.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from mimir_ray.model.matchers import quote

from .syntax.ast import NOWHERE, Span

ANNOTATIONS_MAX = 10_000
"""Different texts kept per kind in one query; more are counted, not kept."""

Kind = Literal["warning", "info"]


def go_float(value: float) -> str:
    """A number as Go's `%g` writes it: fewest digits that read back, an exponent below 1e-4 and from 1e+06 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1.0, value) < 0 else "0"
    mantissa, _, exponent_text = f"{float(value)!r}".partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent_text or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    exponent = point - 1
    if exponent < -4 or exponent >= 6:
        return _exponential(sign, digits, exponent)
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if len(digits) <= point:
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    return f"{sign}{digits[:point]}.{digits[point:]}"


def _exponential(sign: str, digits: str, exponent: int) -> str:
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def position(query: str, span: Span) -> str:
    """`line:column` of the span's start, both from 1, columns in bytes. Upstream: posrange StartPosInput."""
    if not query:
        return "unknown position"
    before = query.encode()[: span.start]
    if span.start < 0 or len(before) < span.start:
        return "invalid position"
    return f"{before.count(10) + 1}:{span.start - before.rfind(10)}"


@dataclass(frozen=True, slots=True)
class Annotation:
    """One warning or info; `text` is what makes it one of a kind."""

    kind: Kind
    text: str
    span: Span = NOWHERE

    def merge(self, earlier: Annotation) -> Annotation:
        """What remains of the same annotation raised twice."""
        return self

    def render(self, query: str) -> str:
        """As a user reads it."""
        return f"PromQL {self.kind}: {self.text} ({position(query, self.span)})"


@dataclass(frozen=True, slots=True)
class ForcedMonotonicity(Annotation):
    """histogram_quantile had to lift buckets; says which, how far and when (times in ms)."""

    first_ms: int = 0
    last_ms: int = 0
    bucket_min: float = 0.0
    bucket_max: float = 0.0
    diff_max: float = 0.0
    samples: int = 1

    def merge(self, earlier: Annotation) -> Annotation:
        assert isinstance(earlier, ForcedMonotonicity)
        return replace(
            earlier,
            first_ms=min(self.first_ms, earlier.first_ms),
            last_ms=max(self.last_ms, earlier.last_ms),
            bucket_min=min(self.bucket_min, earlier.bucket_min),
            bucket_max=max(self.bucket_max, earlier.bucket_max),
            diff_max=max(self.diff_max, earlier.diff_max),
            samples=self.samples + earlier.samples,
        )

    def render(self, query: str) -> str:
        return (
            f"PromQL {self.kind}: {self.text}, "
            f"from buckets {go_float(self.bucket_min)} to {go_float(self.bucket_max)}, "
            f"with a max diff of {self.diff_max:.2g}, over {self.samples} samples from {_rfc3339(self.first_ms)} "
            f"to {_rfc3339(self.last_ms)} ({position(query, self.span)})"
        )


@dataclass(frozen=True, slots=True)
class StartTimeOverlap(Annotation):
    """Samples of a counter claim time that others before them have counted; in how many windows."""

    windows: int = 1

    def merge(self, earlier: Annotation) -> Annotation:
        assert isinstance(earlier, StartTimeOverlap)
        return replace(earlier, windows=self.windows + earlier.windows)

    def render(self, query: str) -> str:
        many = f" ({self.windows} occurrences)" if self.windows > 1 else ""
        return f"PromQL {self.kind}: {self.text}{many} ({position(query, self.span)})"


def _rfc3339(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Annotations:
    """What one query collects. Not for several threads."""

    __slots__ = ("_found", "_skipped")

    def __init__(self) -> None:
        self._found: dict[tuple[Kind, str], Annotation] = {}
        self._skipped: dict[Kind, int] = {"warning": 0, "info": 0}

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Annotation]:
        return iter(self._found.values())

    def add(self, annotation: Annotation) -> None:
        """Keeps it, merged with the same one from before."""
        key = annotation.kind, annotation.text
        earlier = self._found.get(key)
        if earlier is not None:
            annotation = annotation.merge(earlier)
        elif len(self._found) >= ANNOTATIONS_MAX:
            self._skipped[annotation.kind] += 1
            return
        self._found[key] = annotation

    def warn(self, text: str, span: Span = NOWHERE) -> None:
        """A warning; `text` without `PromQL warning:` and position."""
        self.add(Annotation("warning", text, span))

    def info(self, text: str, span: Span = NOWHERE) -> None:
        """An info; `text` without `PromQL info:` and position."""
        self.add(Annotation("info", text, span))

    def merge(self, other: Iterable[Annotation]) -> None:
        """Takes over all annotations of another set."""
        for annotation in other:
            self.add(annotation)

    def as_strings(self, query: str, warnings_max: int = 0, infos_max: int = 0) -> tuple[list[str], list[str]]:
        """(warnings, infos) as users read them; of more than the maximum (0: none) only the number is told."""
        texts: dict[Kind, list[str]] = {"warning": [], "info": []}
        skipped = dict(self._skipped)
        maxima = {"warning": warnings_max, "info": infos_max}
        for annotation in self._found.values():
            kind = annotation.kind
            if maxima[kind] and len(texts[kind]) >= maxima[kind]:
                skipped[kind] += 1
            else:
                texts[kind].append(annotation.render(query))
        for kind, count in skipped.items():
            if count:
                texts[kind].append(f"{count} more {kind} annotations omitted")
        return texts["warning"], texts["info"]

    # The texts that Prometheus has. A metric name that is unknown is "".

    def invalid_quantile(self, quantile: float, span: Span) -> None:
        self.warn(f"quantile value should be between 0 and 1, got {go_float(quantile)}", span)

    def invalid_ratio(self, ratio: float, used: float, span: Span) -> None:
        self.warn(
            f"ratio value should be between -1 and 1, got {go_float(ratio)}, capping to {go_float(used)}",
            span,
        )

    def bad_bucket_label(self, metric_name: str, value: str, span: Span) -> None:
        text = f"bucket label {quote('le')} is missing or has a malformed value of {quote(value)}"
        self.warn(text + _for_metric(metric_name), span)

    def mixed_floats_histograms(self, metric_name: str, span: Span) -> None:
        self.warn(f"encountered a mix of histograms and floats for metric name {quote(metric_name)}", span)

    def mixed_floats_histograms_in_aggregation(self, span: Span) -> None:
        self.warn("encountered a mix of histograms and floats for aggregation", span)

    def mixed_classic_native(self, metric_name: str, span: Span) -> None:
        self.warn("vector contains a mix of classic and native histograms" + _for_metric(metric_name), span)

    def mixed_schemas(self, metric_name: str, span: Span) -> None:
        text = "vector contains a mix of histograms with exponential and custom buckets schemas for metric name"
        self.warn(f"{text} {quote(metric_name)}", span)

    def start_time_overlap(self, metric_name: str, span: Span, windows: int) -> None:
        """`windows`: how many of one or more series and steps saw such samples."""
        text = "sample has start time that overlaps with previous sample timestamp for metric"
        self.add(StartTimeOverlap("warning", f"{text} {quote(metric_name)}", span, windows))

    def histogram_not_counter(self, metric_name: str, span: Span) -> None:
        self.warn(f"this native histogram metric is not a counter: {quote(metric_name)}", span)

    def histogram_not_gauge(self, metric_name: str, span: Span) -> None:
        self.warn(f"this native histogram metric is not a gauge: {quote(metric_name)}", span)

    def reset_collision(self, operation: str, span: Span) -> None:
        """`operation`: addition, subtraction or aggregation."""
        self.warn(f"conflicting counter resets during histogram {operation}", span)

    def reconciled_buckets(self, operation: str, span: Span) -> None:
        """`operation`: addition, subtraction or aggregation."""
        self.info(f"mismatched custom buckets were reconciled during {operation}", span)

    def incompatible_types(self, left: str, operator: str, right: str, span: Span) -> None:
        text = f"incompatible sample types encountered for binary operator {quote(operator)}"
        self.info(f"{text}: {left} {operator} {right}", span)

    def histogram_ignored(self, aggregation: str, span: Span) -> None:
        self.info(f"ignored histogram in {aggregation} aggregation", span)

    def histograms_ignored_in_range(self, metric_name: str, span: Span) -> None:
        text = "ignored histograms in a range containing both floats and histograms for metric name"
        self.info(f"{text} {quote(metric_name)}", span)

    def nan_quantile(self, metric_name: str, span: Span) -> None:
        text = "input to histogram_quantile has NaN observations, result is NaN"
        self.info(text + _for_metric(metric_name), span)

    def skewed_quantile(self, metric_name: str, span: Span) -> None:
        text = "input to histogram_quantile has NaN observations, result is skewed higher"
        self.info(text + _for_metric(metric_name), span)

    def nan_fraction(self, metric_name: str, span: Span) -> None:
        text = "input to histogram_fraction has NaN observations, which are excluded from all fractions"
        self.info(text + _for_metric(metric_name), span)

    def sort_in_range_query(self, span: Span) -> None:
        self.warn(
            "sort is ineffective for range queries since results are always ordered by labels",
            span,
        )

    def possible_non_counter(self, metric_name: str, span: Span) -> None:
        text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:"
        self.info(f"{text} {quote(metric_name)}", span)

    def possible_non_counter_type(self, metric_name: str, metric_type: str, span: Span) -> None:
        """Where metrics have their type as a label."""
        text = 'metric might not be a counter, __type__ label is not set to "counter" or "histogram"'
        self.info(f"{text}, got {quote(metric_type)}: {quote(metric_name)}", span)

    def forced_monotonicity(
        self,
        metric_name: str,
        span: Span,
        first_ms: int,
        last_ms: int,
        bucket_min: float,
        bucket_max: float,
        diff_max: float,
        samples: int,
    ) -> None:
        """histogram_quantile lifted buckets in `samples` groups and steps between the two times."""
        page = "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile"
        text = f"input to histogram_quantile needed to be fixed for monotonicity (see {page})"
        self.add(
            ForcedMonotonicity(
                "info", text + _for_metric(metric_name), span,
                first_ms, last_ms, bucket_min, bucket_max, diff_max, samples,
            )
        )  # fmt: skip


def _for_metric(metric_name: str) -> str:
    return f" for metric name {quote(metric_name)}" if metric_name else ""
