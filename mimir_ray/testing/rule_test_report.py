"""How outcomes of unit tests of rules look: exactly as promtool writes them.

Upstream: cmd/promtool/unittest.go; model/histogram FloatHistogram.TestExpression; util/junitxml.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mimir_ray.gotemplate.floats import format_float
from mimir_ray.model.float_histogram import (
    CUSTOM_BUCKETS_SCHEMA,
    GAUGE,
    NOT_RESET,
    RESET,
    Counts,
    FloatHistogram,
    Indexes,
)
from mimir_ray.model.labels import is_legacy_label_name
from mimir_ray.model.matchers import quote

Pairs = tuple[tuple[str, str], ...]
LabelsAndAnnotations = tuple[Pairs, Pairs]


def format_pairs(pairs: Pairs) -> str:
    """Upstream: Labels.String."""
    inside = (f"{name if is_legacy_label_name(name) else quote(name)}={quote(value)}" for name, value in pairs)
    return f"{{{', '.join(inside)}}}"


def indent(text: str, by: str) -> str:
    """All lines but the first."""
    return text.replace("\n", "\n" + by)


def format_alerts(alerts: Sequence[LabelsAndAnnotations]) -> str:
    if not alerts:
        return "[]"
    shown = (
        f"{at}:" + indent(f"\nLabels:{format_pairs(labels)}\nAnnotations:{format_pairs(annotations)}", "  ")
        for at, (labels, annotations) in enumerate(alerts)
    )
    return "[\n" + ",\n".join(shown) + "\n]"


@dataclass(frozen=True, slots=True)
class ParsedSample:
    """`histogram`: its expression, "" for a float."""

    labels: Pairs
    value: float
    histogram: str = ""

    def __str__(self) -> str:
        return f"{format_pairs(self.labels)} {self.histogram or format_float(self.value, 'E')}"


def format_samples(samples: Sequence[ParsedSample]) -> str:
    return ", ".join(map(str, samples)) if samples else "nil"


_HINTS = {RESET: "reset", NOT_RESET: "not_reset", GAUGE: "gauge"}


def histogram_expression(histogram: FloatHistogram) -> str:
    """A histogram as input series notate it."""
    parts = []
    if histogram.schema != 0:
        parts.append(f"schema:{histogram.schema}")
    for name, value in (
        ("count", histogram.count),
        ("sum", histogram.sum),
        ("z_bucket", histogram.zero_count),
        ("z_bucket_w", histogram.zero_threshold),
    ):
        if value != 0:
            parts.append(f"{name}:{format_float(value, 'g')}")
    if histogram.schema == CUSTOM_BUCKETS_SCHEMA:
        parts.append(f"custom_values:{_numbers(histogram.custom_values.tolist())}")
    if histogram.hint in _HINTS:
        parts.append(f"counter_reset_hint:{_HINTS[histogram.hint]}")
    parts += _buckets("buckets", "offset", histogram.positive, histogram.positive_counts)
    parts += _buckets("n_buckets", "n_offset", histogram.negative, histogram.negative_counts)
    return f"{{{{{' '.join(parts)}}}}}"


def _buckets(name: str, offset_name: str, indexes: Indexes, counts: Counts) -> list[str]:
    """From the first bucket with something in it to the last, those in between too."""
    known = {index: count for index, count in zip(indexes.tolist(), counts.tolist(), strict=True) if count != 0}
    if not known:
        return []
    first, last = min(known), max(known)
    listed = f"{name}:{_numbers([known.get(index, 0.0) for index in range(first, last + 1)])}"
    return [f"{offset_name}:{first}", listed] if first else [listed]


def _numbers(values: Sequence[float]) -> str:
    return f"[{' '.join(format_float(value, 'g') for value in values)}]"


@dataclass(slots=True)
class JunitCase:
    name: str
    failures: list[str] = field(default_factory=list)
    error: str = ""


@dataclass(slots=True)
class JunitSuite:
    """The tests of one file. `errors` counts what kept the whole file from running."""

    name: str
    timestamp: str = ""
    cases: list[JunitCase] = field(default_factory=list)
    errors: int = 0

    def case(self, name: str) -> JunitCase:
        self.cases.append(JunitCase(name))
        return self.cases[-1]

    def abort(self, reason: str) -> None:
        self.errors += 1
        (self.cases[-1] if self.cases else self.case("unknown")).error = reason


_XML = str.maketrans(
    {'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\t": "&#x9;", "\n": "&#xA;", "\r": "&#xD;"}
)


def junit_xml(suites: Sequence[JunitSuite]) -> str:
    out = ["<testsuites>"]
    for suite in suites:
        failures = sum(len(case.failures) for case in suite.cases)
        out.append(
            f'<testsuite name="{_xml(suite.name)}" tests="{len(suite.cases)}" failures="{failures}" '
            f'errors="{suite.errors}" skipped="0" timestamp="{_xml(suite.timestamp)}">'
        )
        for case in suite.cases:
            out.append(f'<testcase name="{_xml(case.name)}">')
            out += [f"<failure>{_xml(failure)}</failure>" for failure in case.failures]
            out.append(f"<error>{_xml(case.error)}</error>" if case.error else "")
            out.append("</testcase>")
        out.append("</testsuite>")
    out.append("</testsuites>")
    return "".join(out)


def _xml(text: str) -> str:
    allowed = "".join(char if char in "\t\n\r" or char >= " " else "\ufffd" for char in text)
    return allowed.translate(_XML)
