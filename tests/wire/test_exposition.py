"""Answers of scrape targets become columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mimir_ray.model.labels import labels_of
from mimir_ray.model.metadata import Metadata
from mimir_ray.model.series import NORMAL_NAN_BITS
from mimir_ray.wire.exposition import NO_TIMESTAMP, InvalidExposition, parse_exposition, parse_series

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def parse_one(text: str, content_type: str = "") -> tuple:
    found = parse_exposition(text.encode(), content_type)
    assert len(found) == 1
    return parse_series(found.series[0]), int(found.timestamps[0]), float(found.values[0])


def test_a_sample_has_labels_a_value_and_a_timestamp() -> None:
    labels, timestamp, value = parse_one('up{job="node",instance="a:1"} 1.5 1395066363000\n')
    assert labels == (("__name__", "up"), ("instance", "a:1"), ("job", "node"))
    assert (timestamp, value) == (1395066363000, 1.5)


def test_a_sample_without_timestamp_says_so() -> None:
    assert parse_one("up 1") == ((("__name__", "up"),), NO_TIMESTAMP, 1.0)


def test_an_empty_label_value_means_that_the_label_is_absent() -> None:
    assert parse_one('up{job="",a="b"} 1')[0] == (("__name__", "up"), ("a", "b"))


def test_escapes_in_label_values_are_resolved() -> None:
    assert parse_one(r'a{b="C:\\DIR\n\"x\" \q"} 1')[0][1] == ("b", 'C:\\DIR\n"x" \\q')


def test_braces_and_spaces_inside_quotes_belong_to_the_value() -> None:
    assert parse_one('a{b="} 5 {"} 1')[0][1] == ("b", "} 5 {")


def test_a_quoted_name_stands_among_the_labels() -> None:
    assert parse_one('{"my.metric","a.b"="c"} 1')[0] == (("__name__", "my.metric"), ("a.b", "c"))


@pytest.mark.parametrize(("text", "value"), [("+Inf", math.inf), ("-Inf", -math.inf), ("1e-7", 1e-7), ("0x1p-2", 0.25)])
def test_values_are_numbers_of_go(text: str, value: float) -> None:
    assert parse_one(f"a {text}")[2] == value


def test_every_nan_is_the_normal_one() -> None:
    values = parse_exposition(b"a NaN\nb nan\n").values
    assert values.view(np.uint64).tolist() == [NORMAL_NAN_BITS] * 2


def test_help_and_type_become_metadata() -> None:
    text = b"# HELP a says \\\\ and\\nmore\n# TYPE a counter\n# TYPE b untyped\n# nothing\na 1\n"
    assert parse_exposition(text).metadata == (Metadata("a", "counter", "says \\ and\nmore"), Metadata("b", "unknown"))


def test_openmetrics_has_units_seconds_and_exemplars() -> None:
    text = '# TYPE a counter\n# UNIT a seconds\na_total{x="y"} 17 1520879607.789 # {trace_id="t"} 0.67\n# EOF\n'
    found = parse_exposition(text.encode(), OPENMETRICS)
    assert found.metadata == (Metadata("a", "counter", "", "seconds"),)
    assert found.timestamps.tolist() == [1520879607789]


def test_openmetrics_must_end_with_eof() -> None:
    with pytest.raises(InvalidExposition, match="does not end with # EOF"):
        parse_exposition(b"a 1\n", OPENMETRICS)


def test_nothing_may_follow_eof() -> None:
    with pytest.raises(InvalidExposition, match="after # EOF"):
        parse_exposition(b"a 1\n# EOF\nb 1\n", OPENMETRICS)


@pytest.mark.parametrize("bad", ["a", "1a 3", "a 1 2 3", 'a{b="c} 1', "a 1_0", "a 1 1.5", "a x", "# TYPE a thing"])
def test_what_cannot_be_read_names_its_line(bad: str) -> None:
    with pytest.raises(InvalidExposition) as caught:
        parse_exposition(f"ok 1\n\n{bad}\nok 2\n".encode())
    assert caught.value.line == 3


def test_invalid_utf8_names_its_line() -> None:
    with pytest.raises(InvalidExposition, match="line 2: invalid UTF-8"):
        parse_exposition(b'a 1\nb{c="\xff"} 1\n')


@pytest.mark.parametrize("bad", ["a{b=c}", 'a{b="c"x="d"}', 'a{b="c",b="d"}', '{b="c"}', "{}"])
def test_labels_that_cannot_be_read_are_refused(bad: str) -> None:
    with pytest.raises(InvalidExposition):
        parse_series(bad)


_names = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
_values = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\x0b\x0c\x1c\x1d\x1e\u2028\u2029"), max_size=6)


@given(_names, st.dictionaries(_names, _values, max_size=4), st.floats(), st.none() | st.integers(-(1 << 40), 1 << 40))
def test_it_agrees_with_the_official_parser(
    name: str, labels: dict[str, str], value: float, timestamp: int | None
) -> None:
    labels.pop("__name__", None)
    escaped = ",".join(
        '{}="{}"'.format(k, v.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')) for k, v in labels.items()
    )
    text = f"{name}{{{escaped}}} {value}{'' if timestamp is None else f' {timestamp}'}\n"
    (family,) = text_string_to_metric_families(text)
    sample = family.samples[0]
    got_labels, got_timestamp, got_value = parse_one(text)
    assert got_labels == labels_of({"__name__": name} | sample.labels)
    assert np.array_equal(got_value, sample.value, equal_nan=True)
    assert got_timestamp == (NO_TIMESTAMP if timestamp is None else timestamp)


@given(st.binary(max_size=60), st.sampled_from(["", OPENMETRICS]))
def test_arbitrary_bytes_are_read_or_refused(body: bytes, content_type: str) -> None:
    try:
        found = parse_exposition(body, content_type)
        for text in found.series:
            parse_series(text)
    except InvalidExposition:
        pass
