"""Templates of alerts against what promtool made of them (templates.yml), and what newer Prometheus adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mimir_ray.errors import InvalidArgument
from mimir_ray.gotemplate.errors import TemplateSyntaxError
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.labels import labels_of
from mimir_ray.roles.ruler.sample import Sample
from mimir_ray.roles.ruler.templates import AlertData, alert_functions, check_template, expand

GOLDEN: list[dict[str, str]] = yaml.safe_load(Path(__file__).with_name("templates.yml").read_text())
LABELS = labels_of({"__name__": "up", "job": "j1", "instance": "h1:80"})
NOW_MS = 60_000
SAMPLES = [Sample(LABELS, NOW_MS, 0.25), Sample(labels_of({**dict(LABELS), "job": "j2", "instance": "h0:80"}), 0, 3.0)]


def ask(expression: str, _time_ms: int) -> list[Sample]:
    if expression == "up{":
        raise InvalidArgument("1:4: parse error: unexpected end of input inside braces")
    return [] if expression == "nope" else SAMPLES


def expanded(text: str, value: float | FloatHistogram = 0.25, server_url: str | None = None) -> str:
    data = AlertData(LABELS, {"zone": "z1"}, "http://ex/p", value)
    return expand("A", text, data, alert_functions(ask, NOW_MS, server_url))


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["template"][:60])
def test_a_template_comes_to_what_promtool_makes_of_it(case: dict[str, Any]) -> None:
    if "refused" in case:
        with pytest.raises(TemplateSyntaxError) as caught:
            check_template("A", case["template"])
        assert str(caught.value) == case["refused"]
        return
    check_template("A", case["template"])
    assert expanded(case["template"]) == case["text"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{{ toDuration 90.5 }} {{ (toDuration 90.5).Seconds }} {{ toDuration 0.001 }}", "1m30.5s 90.5 1ms"),
        ('{{ parseDuration "-5m" }} {{ parseDuration "1d" | toDuration }}', "-300 24h0m0s"),
        ("{{ now }} {{ now | humanizeTimestamp }}", "60 1970-01-01 00:01:00 +0000 UTC"),
        ('{{ urlQueryEscape "a b/c" }}', "a+b%2Fc"),
    ],
)
def test_functions_of_newer_prometheus(text: str, wanted: str) -> None:
    assert expanded(text) == wanted


def test_the_servers_address_is_there_where_it_is_known() -> None:
    assert expanded("{{ externalURL }} {{ pathPrefix }}", server_url="http://mimir/prom") == "http://mimir/prom /prom"


def test_a_histogram_prints_its_buckets() -> None:
    text = expanded("{{ $value }}", FloatHistogram(zero_threshold=0.5, zero_count=1.0, count=1.0, sum=0.25))
    assert text == "{count:1, sum:0.25, [-0.5,0.5]:1}"


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    assert (
        expanded('{{ "a\\xff" }}|{{ match "a" "a\\xff" }}|{{ reReplaceAll "a" "b" "a\\xff" }}')
        == "a\ufffd|true|b\ufffd"
    )


def test_times_overflow_as_int64() -> None:
    text = "{{ $d := toDuration 9e9 }}{{ (((toTime 9e9).Add $d).Add $d).Year }} {{ (toTime 9e9).Year }}"
    assert expanded(text) == "2241 2255"


def test_a_template_that_calls_itself_ends_with_an_error() -> None:
    text = expanded('{{ define "x" }}{{ template "x" . }}{{ end }}{{ template "x" . }}')
    assert text.endswith("exceeded maximum template depth (50)>")
