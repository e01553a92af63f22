"""Prometheus' query API over HTTP."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import pytest

from mimir_ray.config.units import Bytes
from mimir_ray.errors import Unavailable
from mimir_ray.model.metadata import Metadata
from tests.gateway.serving import NOW_MS, Answer, Gateway, serving, settings_with

API = "/prometheus/api/v1"
NOW = NOW_MS / 1000


def fill(gateway: Gateway, tenant: str = "anonymous", count: int = 3) -> None:
    for number in range(count):
        points = [(NOW_MS - 60_000 + at * 15_000, float(number + at)) for at in range(5)]
        labels = {"__name__": "up", "job": "a" if number else "b", "http.status": str(number), "instance": str(number)}
        gateway.lists.of(tenant).add(labels, points)


@pytest.fixture(scope="module")
def filled() -> Iterator[Gateway]:
    with serving() as one:
        fill(one)
        yield one


def error_of(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.json["errorType"], answer.json["error"]


# Queries.


def test_an_instant_query_answers_in_prometheus_json(filled: Gateway) -> None:
    data = filled.ask(f"{API}/query", {"query": "sum(up)", "time": NOW}).data
    assert data == {"resultType": "vector", "result": [{"metric": {}, "value": [1_700_000_000, "15"]}]}


def test_without_a_time_it_is_now(filled: Gateway) -> None:
    assert filled.ask(f"{API}/query", {"query": "time()"}).data["result"] == [1_700_000_000, "1700000000"]


@pytest.mark.parametrize(
    ("query", "kind"),
    [("1", "scalar"), ('"x"', "string"), ("up", "vector"), ("up[1m]", "matrix"), ("nothing", "vector")],
)
def test_every_type_of_answer_is_named(filled: Gateway, query: str, kind: str) -> None:
    assert filled.ask(f"{API}/query", {"query": query}).data["resultType"] == kind


def test_a_range_query_answers_at_every_step_and_at_both_ends(filled: Gateway) -> None:
    asked = {"query": "sum(up)", "start": NOW - 30, "end": NOW, "step": "15s"}
    result = filled.ask(f"{API}/query_range", asked).data["result"]
    assert result == [{"metric": {}, "values": [[NOW - 30, "9"], [NOW - 15, "12"], [NOW, "15"]]}]


def test_a_query_may_come_as_a_form(filled: Gateway) -> None:
    answer = filled.form(f"{API}/query", {"query": "sum(up)"}, {"query": "nonsense(", "time": NOW - 60})
    assert answer.data["result"][0]["value"] == [NOW - 60, "3"]


def test_lookback_delta_is_how_far_back_a_selector_looks(filled: Gateway) -> None:
    asked = {"query": "sum(up)", "time": NOW + 20}
    assert filled.ask(f"{API}/query", asked).data["result"] != []
    assert filled.ask(f"{API}/query", {**asked, "lookback_delta": "10s"}).data["result"] == []
    assert error_of(filled.ask(f"{API}/query", {**asked, "lookback_delta": "0"}))[:2] == (400, "bad_data")


def test_statistics_come_when_asked_for(filled: Gateway) -> None:
    assert "stats" not in filled.ask(f"{API}/query", {"query": "up"}).data
    assert "timings" in filled.ask(f"{API}/query", {"query": "up", "stats": "all"}).data["stats"]


@pytest.mark.parametrize(
    ("path", "asked", "status", "kind", "text"),
    [
        ("query", {"query": "sum("}, 400, "bad_data", 'invalid parameter "query": 1:5: parse error:'),
        ("query", {}, 400, "bad_data", 'invalid parameter "query":'),
        ("query", {"query": "up", "time": "x"}, 400, "bad_data", 'invalid parameter "time": cannot parse "x"'),
        ("query", {"query": "up", "timeout": "x"}, 400, "bad_data", 'invalid parameter "timeout": cannot parse "x"'),
        ("query", {"query": "up", "limit": "-1"}, 400, "bad_data", 'invalid parameter "limit": limit must be non-neg'),
        ("query", {"query": "up + on (job) up"}, 422, "execution", "found duplicate series for the match group"),
        ("query_range", {"query": "up", "end": 1, "step": 1}, 400, "bad_data", 'invalid parameter "start":'),
        ("query_range", {"query": "up", "start": 1, "step": 1}, 400, "bad_data", 'invalid parameter "end":'),
        ("query_range", {"query": "up", "start": 1, "end": 2}, 400, "bad_data", 'invalid parameter "step":'),
        ("query_range", {"query": "up", "start": 2, "end": 1, "step": 1}, 400, "bad_data",
         'invalid parameter "end": end timestamp must not be before start time'),
        ("query_range", {"query": "up", "start": 1, "end": 2, "step": 0}, 400, "bad_data",
         'invalid parameter "step": zero or negative query resolution step widths are not accepted.'),
        ("query_range", {"query": "up", "start": 0, "end": 11_001, "step": 1}, 400, "bad_data",
         "exceeded maximum resolution of 11,000 points per timeseries."),
        ("query_range", {"query": "up[1m]", "start": 0, "end": 1, "step": 1}, 400, "bad_data", "invalid"),
        ("series", {}, 400, "bad_data", "no match[] parameter provided"),
        ("series", {"match[]": "{}"}, 400, "bad_data", 'invalid parameter "match[]"'),
        ("series", {"match[]": '{a=~".*"}'}, 400, "bad_data", 'invalid parameter "match[]": match[] must contain'),
        ("series", {"match[]": "sum(up)"}, 400, "bad_data", 'invalid parameter "match[]":'),
        ("labels", {"start": 2, "end": 1}, 400, "bad_data", 'invalid parameter "end": end timestamp'),
        ("labels", {"limit": "x"}, 400, "bad_data", 'invalid parameter "limit":'),
        ("metadata", {"limit": "x"}, 400, "bad_data", "limit must be a number"),
        ("metadata", {"limit_per_metric": "x"}, 400, "bad_data", "limit_per_metric must be a number"),
        ("format_query", {"query": "sum("}, 400, "bad_data", 'invalid parameter "query":'),
        ("parse_query", {"query": "sum("}, 400, "bad_data", 'invalid parameter "query":'),
    ],
)  # fmt: skip
def test_errors_have_prometheus_type_status_and_words(
    filled: Gateway, path: str, asked: dict[str, Any], status: int, kind: str, text: str
) -> None:
    found = error_of(filled.ask(f"{API}/{path}", asked))
    assert found[:2] == (status, kind)
    assert found[2].startswith(text), found[2]


def test_eleven_thousand_steps_are_still_fine(filled: Gateway) -> None:
    assert filled.ask(f"{API}/query_range", {"query": "1", "start": 0, "end": 11_000, "step": 1}).status == 200


@pytest.mark.parametrize("number", ["1e300", "-1e300", "4611686018427387904", "-9e18", "1e18"])
def test_numbers_without_bound_never_are_our_fault(filled: Gateway, number: str) -> None:
    for path, asked in (
        ("query", {"query": "rate(up[5m] offset 1d)", "time": number}),
        ("query", {"query": "up", "lookback_delta": number}),
        ("query", {"query": "up", "timeout": number}),
        ("query", {"query": "max_over_time(up[1h:1m])", "time": number}),
        ("query_range", {"query": "up", "start": number, "end": number, "step": "1"}),
        ("query_range", {"query": "up", "start": "-1e300", "end": number, "step": "9e9"}),
        ("query_range", {"query": "up", "start": "0", "end": "1", "step": number}),
        ("series", {"match[]": "up", "start": "-1e300", "end": number}),
        ("labels", {"end": number, "start": "-1e300"}),
        ("query", {"query": "up", "limit": number}),
    ):
        assert filled.ask(f"{API}/{path}", asked).status in (200, 400, 422, 503), (path, asked)


def test_what_storage_cannot_answer_is_no_answer(gateway: Gateway) -> None:
    fill(gateway)
    gateway.lists.of().error = Unavailable("too many unhealthy instances in the ring")
    for path, asked in (("query", {"query": "up"}), ("series", {"match[]": "up"}), ("labels", {})):
        wanted = (503, "unavailable", "too many unhealthy instances in the ring")
        assert error_of(gateway.ask(f"{API}/{path}", asked)) == wanted


def test_a_bug_is_an_internal_error(gateway: Gateway) -> None:
    fill(gateway)
    gateway.lists.of().error = ZeroDivisionError("division by zero")
    assert error_of(gateway.ask(f"{API}/query", {"query": "up"})) == (500, "internal", "division by zero")


def test_a_query_that_takes_too_long_is_stopped(filled: Gateway) -> None:
    answer = filled.ask(f"{API}/query", {"query": "up", "timeout": "0"})
    assert error_of(answer)[:2] == (503, "timeout")


def test_nobody_gets_more_time_than_the_setting_allows(filled: Gateway) -> None:
    filled.ask(f"{API}/query", {"query": "up", "timeout": "10h"})
    remaining = filled.lists.cancellations[-1].remaining_s()
    assert remaining is not None
    assert 100 < remaining <= 120


def test_a_query_over_the_tenants_length_is_refused_before_it_is_parsed() -> None:
    settings = settings_with(limits={"max_query_expression_size_bytes": Bytes(10)})
    with serving(settings) as one:
        status, kind, text = error_of(one.ask(f"{API}/query", {"query": "(" * 11}))
        assert (status, kind) == (400, "bad_data")
        assert text.startswith(
            "the raw query size exceeds the limit set for the tenant (query size: 11 bytes, limit: 10 bytes) "
            "(err-mimir-max-query-expression-size-bytes)"
        )
        assert one.ask(f"{API}/query", {"query": "1+2+3+4+5"}).status == 200


# Limits on results.


def test_a_limit_cuts_the_answer_and_says_so(filled: Gateway) -> None:
    for path, asked in (
        ("query", {"query": "up", "time": NOW}),
        ("query", {"query": "up[1m]", "time": NOW}),
        ("query_range", {"query": "up", "start": NOW - 30, "end": NOW, "step": 15}),
    ):
        whole = filled.ask(f"{API}/{path}", asked)
        cut = filled.ask(f"{API}/{path}", {**asked, "limit": 2})
        assert cut.data["result"] == whole.data["result"][:2]
        assert cut.json["warnings"] == ["results truncated due to limit"]
        assert "warnings" not in whole.json
        assert "warnings" not in filled.ask(f"{API}/{path}", {**asked, "limit": 3}).json


@pytest.mark.parametrize(
    ("path", "asked"), [("series", {"match[]": "up"}), ("labels", {}), ("label/instance/values", {})]
)
def test_a_limit_cuts_lists_and_says_so(filled: Gateway, path: str, asked: dict[str, Any]) -> None:
    whole, cut = filled.ask(f"{API}/{path}", asked), filled.ask(f"{API}/{path}", {**asked, "limit": 2})
    assert cut.data == whole.data[:2]
    assert cut.json["warnings"] == ["results truncated due to limit"]
    assert "warnings" not in whole.json


# Metadata.


def test_series_are_label_sets_each_once_in_order(filled: Gateway) -> None:
    found = filled.ask(f"{API}/series", {"match[]": ['up{job="a"}', 'up{instance="1"}']}).data
    assert [one["instance"] for one in found] == ["1", "2"]
    assert found[0] == {"__name__": "up", "job": "a", "http.status": "1", "instance": "1"}


def test_series_are_asked_for_without_samples_and_no_more_than_needed(filled: Gateway) -> None:
    filled.ask(f"{API}/series", {"match[]": "up", "limit": 2, "start": 5, "end": 6})
    selection = filled.lists.of().selections[-1]
    assert (selection.labels_only, selection.limit_series) == (True, 3)
    assert (selection.mint, selection.maxt) == (5000, 6000)


def test_label_names_and_values_are_sorted(filled: Gateway) -> None:
    assert filled.ask(f"{API}/labels").data == ["__name__", "http.status", "instance", "job"]
    assert filled.ask(f"{API}/label/job/values").data == ["a", "b"]
    assert filled.ask(f"{API}/label/job/values", {"match[]": 'up{instance="0"}'}).data == ["b"]
    assert filled.form(f"{API}/labels", {"match[]": "nothing"}).data == []


@pytest.mark.parametrize("name", ["U__http_2e_status", "http.status", "http%2Estatus", "U__http%5F2e_status"])
def test_values_of_a_label_whose_name_does_not_fit_into_a_path(filled: Gateway, name: str) -> None:
    assert filled.ask(f"{API}/label/{name}/values").data == ["0", "1", "2"]


def test_an_empty_label_name_is_refused(filled: Gateway) -> None:
    assert filled.ask(f"{API}/label/U__/values").status == 400


def test_metadata_is_grouped_by_family_and_limited(gateway: Gateway) -> None:
    gateway.lists.of().entries = [
        Metadata("a", "counter", "first", ""),
        Metadata("b", "gauge", "", "s"),
        Metadata("a", "counter", "second", ""),
    ]
    assert gateway.ask(f"{API}/metadata").data == {
        "a": [{"type": "counter", "help": "first", "unit": ""}, {"type": "counter", "help": "second", "unit": ""}],
        "b": [{"type": "gauge", "help": "", "unit": "s"}],
    }
    assert list(gateway.ask(f"{API}/metadata", {"limit": 1}).data) == ["a"]
    assert gateway.ask(f"{API}/metadata", {"limit": 0}).data == {}
    assert len(gateway.ask(f"{API}/metadata", {"limit_per_metric": 1}).data["a"]) == 1
    assert list(gateway.ask(f"{API}/metadata", {"metric": "b"}).data) == ["b"]


def test_queries_are_formatted_and_parsed(filled: Gateway) -> None:
    assert filled.ask(f"{API}/format_query", {"query": "sum   by(a)(b)"}).data == "sum by (a) (b)"
    assert filled.form(f"{API}/parse_query", {"query": "up"}).data["type"] == "vectorSelector"


# Tenants, compression.


def test_each_tenant_sees_its_own() -> None:
    with serving(settings_with(multitenancy=True)) as one:
        fill(one, "team-a")
        assert one.ask(f"{API}/query", {"query": "count(up)"}, x_scope_orgid="team-a").data["result"]
        assert one.ask(f"{API}/query", {"query": "count(up)"}, x_scope_orgid="team-b").data["result"] == []
        for path in ("query", "query_range", "series", "labels", "label/a/values", "metadata", "parse_query"):
            answer = one.ask(f"{API}/{path}")
            assert (answer.status, answer.text) == (401, "no org id\n"), path


def test_metadata_requests_are_counted_as_their_own_tenant(filled: Gateway) -> None:
    filled.ask(f"{API}/query", {"query": "1"})
    registry = filled.registry  # type: ignore[attr-defined]
    assert registry.get_sample_value("cortex_query_frontend_queries_total", {"op": "query", "user": "anonymous"}) >= 1


LONG = {"query": " or ".join(f'label_replace(vector({n}), "n", "{n}", "", "")' for n in range(60))}


@pytest.mark.parametrize(
    ("accepts", "zipped"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("GZIP", True), ("", False), ("identity", False),
     ("gzip;q=0", False), ("gzip; q=0.0", False), ("deflate", False)],
)  # fmt: skip
def test_answers_are_compressed_for_those_who_want_it(filled: Gateway, accepts: str, zipped: bool) -> None:
    plain = filled.ask(f"{API}/query", LONG, accept_encoding="identity")
    answer = filled.ask(f"{API}/query", LONG, accept_encoding=accepts)
    assert answer.headers["vary"] == "Accept-Encoding"
    assert (answer.headers.get("content-encoding") == "gzip") == zipped
    assert (gzip.decompress(answer.body) if zipped else answer.body) == plain.body
    assert len(answer.body) < len(plain.body) / 2 or not zipped


def test_a_small_answer_is_not_compressed(filled: Gateway) -> None:
    assert "content-encoding" not in filled.ask(f"{API}/query", {"query": "1"}, accept_encoding="gzip").headers


def test_compression_can_be_turned_off() -> None:
    with serving(settings_with(api={"response_compression_level": 0})) as one:
        assert "content-encoding" not in one.ask(f"{API}/query", LONG, accept_encoding="gzip").headers
