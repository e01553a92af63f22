"""Times, durations, numbers, and forms, as Prometheus reads them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.gateway.blueprints.prometheus import unescape_label_name
from mimir_ray.gateway.blueprints.push import retry_after_s
from mimir_ray.gateway.parameters import (
    MAX_TIME_MS,
    MIN_TIME_MS,
    BadParameter,
    BadRequest,
    Parameters,
    parse_duration_ms,
    parse_time_ms,
)
from mimir_ray.roles.distributor.config import RetryAfterConfig


@dataclass
class FakeRequest:
    query_string: str = ""
    method: str = "GET"
    content_type: str = ""
    body: bytes = b""


def form(body: bytes, query: str = "", method: str = "POST") -> Parameters:
    return Parameters(FakeRequest(query, method, "application/x-www-form-urlencoded; charset=utf-8", body))  # type: ignore[arg-type]


def url(query: str) -> Parameters:
    return Parameters(FakeRequest(query))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("0", 0),
        ("1700000000", 1_700_000_000_000),
        ("1700000000.123", 1_700_000_000_123),
        ("1700000000.9996", 1_700_000_001_000),
        ("-1.5", -1500),
        ("+7.", 7000),
        (".5", 500),
        ("1e3", 1_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T22:13:20.5Z", 1_700_000_000_500),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000_000),
        ("2023-11-14t22:13:20z", 1_700_000_000_000),
        ("1969-12-31T23:59:59.25Z", -750),
        ("-292273086-05-16T16:47:06Z", MIN_TIME_MS),
        ("292277025-08-18T07:12:54.999999999Z", MAX_TIME_MS),
    ],
)
def test_a_time_is_a_number_of_seconds_or_rfc_3339(text: str, time_ms: int) -> None:
    assert parse_time_ms(text) == time_ms


@pytest.mark.parametrize(
    "text",
    ["", "x", "nan", "inf", "1_000", " 1", "1 ", "١٢", "0x10", "1h", "2023-11-14", "2023-11-14T22:13:20",
     "2023-13-14T22:13:20Z", "2023-11-14T22:13:20Zx", "2023-11-14 22:13:20Z", "2023-02-30T00:00:00Z"],
)  # fmt: skip
def test_what_is_no_time_is_refused_in_prometheus_words(text: str) -> None:
    with pytest.raises(ValueError, match=f'cannot parse "{text}" to a valid timestamp'):
        parse_time_ms(text)


@pytest.mark.parametrize("text", ["1e300", "-1e300", "9" * 300])
def test_a_time_beyond_all_times_leaves_room_for_lookbacks(text: str) -> None:
    assert abs(parse_time_ms(text)) == 1 << 62


@given(st.integers(-(10**14), 10**14))
def test_every_millisecond_is_read_as_it_was_written(time_ms: int) -> None:
    sign = "-" if time_ms < 0 else ""
    assert parse_time_ms(f"{sign}{abs(time_ms) // 1000}.{abs(time_ms) % 1000:03}") == time_ms


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-14 * 60, 14 * 60))
def test_every_rfc_3339_time_is_read_whatever_its_zone(moment: datetime, minutes: int) -> None:
    local = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    wanted = (local - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)
    assert parse_time_ms(local.isoformat()) == wanted


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_an_error_that_says_so(text: str) -> None:
    try:
        assert abs(parse_time_ms(text)) <= 1 << 62
    except ValueError as error:
        assert "to a valid timestamp" in str(error)


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [("15", 15_000), ("0.5", 500), ("1e2", 100_000), ("-3", -3000), ("5m", 300_000), ("1h30m", 5_400_000), ("0", 0),
     ("1d", 86_400_000)],
)  # fmt: skip
def test_a_duration_is_a_number_of_seconds_or_has_units(text: str, duration_ms: int) -> None:
    assert parse_duration_ms(text) == duration_ms


@pytest.mark.parametrize("text", ["", "x", "m5", "1m1h", "nan", "1_0", " 5m"])
def test_what_is_no_duration_is_refused_in_prometheus_words(text: str) -> None:
    with pytest.raises(ValueError, match=f'cannot parse "{text}" to a valid duration$'):
        parse_duration_ms(text)


@pytest.mark.parametrize("text", ["1e10", "-1e10", "inf", "-Inf", "9" * 400])
def test_a_duration_that_no_int64_of_nanoseconds_holds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="overflows int64"):
        parse_duration_ms(text)


def test_the_form_comes_before_the_url() -> None:
    found = form(b"query=a&match%5B%5D=1&match[]=2", "query=b&match[]=3&start=7")
    assert found.get("query") == "a"
    assert found.all("match[]") == ["1", "2", "3"]
    assert found.get("start") == "7"


def test_only_a_post_has_a_form() -> None:
    assert form(b"query=a", "", "GET").get("query") == ""


def test_a_body_that_is_no_form_is_not_looked_at() -> None:
    request = FakeRequest("", "POST", "application/json", b"query=a")
    assert Parameters(request).get("query") == ""  # type: ignore[arg-type]


def test_plus_and_percent_mean_what_they_mean_in_forms() -> None:
    assert form(b"query=sum+by+(a)+(b%2Bc%C3%BC)").get("query") == "sum by (a) (b+cü)"


def test_a_form_that_is_not_utf_8_is_a_bad_request() -> None:
    with pytest.raises(BadRequest):
        form(b"query=\xff")


def test_missing_and_empty_values_are_the_default() -> None:
    assert url("").time_ms("time", 5) == 5
    assert url("time=").time_ms("time", 5) == 5
    assert url("step=").duration_ms("step", 7) == 7
    with pytest.raises(BadParameter, match='invalid parameter "start": cannot parse "" to a valid timestamp'):
        url("").time_ms("start")


@pytest.mark.parametrize(
    ("query", "limit"), [("", 0), ("limit=", 0), ("limit=0", 0), ("limit=%2B7", 7), ("limit=7&limit=x", 7)]
)
def test_a_limit_is_a_number_and_nothing_is_no_limit(query: str, limit: int) -> None:
    assert url(query).limit() == limit


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", 'strconv.Atoi: parsing "x": invalid syntax'),
        ("1.5", 'strconv.Atoi: parsing "1.5": invalid syntax'),
        ("٣", 'strconv.Atoi: parsing "٣": invalid syntax'),
        ("-1", "limit must be non-negative"),
        ("9" * 30, f'strconv.Atoi: parsing "{"9" * 30}": value out of range'),
    ],
)
def test_a_bad_limit_is_named(text: str, reason: str) -> None:
    with pytest.raises(BadParameter) as caught:
        url(f"limit={text}").limit()
    assert str(caught.value) == f'invalid parameter "limit": {reason}'


# Label names that are escaped to fit into a path.


@pytest.mark.parametrize(
    ("name", "decoded"),
    [
        ("job", "job"),
        ("U__http_2e_status", "http.status"),
        ("U__a__b", "a_b"),
        ("U__", ""),
        ("U____", "_"),
        ("U___1F600_", "😀"),
        ("U___e9_t_e9_", "été"),
        ("U__a_b", "U__a_b"),
        ("U__a_", "U__a_"),
        ("U__a_zz_", "U__a_zz_"),
        ("U__a_d800_", "U__a_d800_"),
        ("U__a_10ffff_", "U__a_10ffff_"),  # as upstream: five digits at most
        ("U__a_110000_", "U__a_110000_"),
    ],
)
def test_label_names_are_unescaped_as_upstream_does(name: str, decoded: str) -> None:
    assert unescape_label_name(name) == decoded


@given(st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFFF), max_size=10))
def test_every_escaped_label_name_comes_back(name: str) -> None:
    legacy = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:")
    escaped = "".join("__" if c == "_" else c if c in legacy else f"_{ord(c):x}_" for c in name)
    assert unescape_label_name(f"U__{escaped}") == name


# When to try again.


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    [("1", 6), ("2", 12), ("3", 24), ("5", 96), ("50", 96), ("0", 6), ("-1", 6), ("", 6), ("²", 6), ("9" * 5000, 6)],
)
def test_the_pause_doubles_with_every_attempt(attempt: str, seconds: int) -> None:
    assert retry_after_s(attempt, RetryAfterConfig(), 1.0) == seconds


@given(st.integers(1, 20))
def test_the_pause_stays_within_its_bounds(attempt: int) -> None:
    assert 6 <= retry_after_s(str(attempt), RetryAfterConfig()) <= 96
