"""Grafana's Prometheus data source: what its Go half sends for panels, the editor, variables and *Save & test*."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.compat.raw import TENANT, send
from tests.gateway.serving import NOW_MS, Answer, Gateway

NOW_S = NOW_MS // 1000
API = "/prometheus/api/v1"
FORWARDED = (
    ("User-Agent", "Grafana/12.1.0"),
    ("X-Grafana-Org-Id", "1"),
    ("X-Grafana-User", "admin"),
    ("X-Dashboard-Uid", "abc"),
    ("X-Panel-Id", "2"),
    ("X-Scope-Orgid", TENANT),
    ("Accept-Encoding", "identity"),
)


def get(gateway: Gateway, path: str, **parameters: Any) -> Answer:
    named = [("match[]" if name == "match" else name, value) for name, value in parameters.items()]
    target = f"{path}?{urlencode(named, doseq=True)}" if named else path
    return send(gateway, f"GET {target}", FORWARDED)


def post(gateway: Gateway, path: str, in_url: str = "", **form: Any) -> Answer:
    named = [("match[]" if name == "match" else name, value) for name, value in form.items()]
    headers = (*FORWARDED, ("Content-Type", "application/x-www-form-urlencoded"))
    return send(gateway, f"POST {path}{in_url}", headers, urlencode(named, doseq=True).encode())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_save_and_test_asks_what_one_and_one_is_at_the_beginning_of_time(gateway: Gateway, method: str) -> None:
    ask = get if method == "GET" else post
    answer = ask(gateway, f"{API}/query", query="1+1", time="4")
    assert answer.data == {"resultType": "scalar", "result": [4, "2"]}
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("prefix", ["", "/prometheus", "/alertmanager"])
def test_buildinfo_is_that_of_a_mimir(gateway: Gateway, prefix: str) -> None:
    data = get(gateway, f"{prefix}/api/v1/status/buildinfo").data
    assert data["application"] == "Grafana Mimir"
    assert data["features"] and all(isinstance(value, str) for value in data["features"].values())
    assert isinstance(data["version"], str) and data["version"][0] in "23"


def test_nobody_takes_it_for_a_thanos(gateway: Gateway) -> None:
    assert get(gateway, f"{API}/status/flags").status == 404
    assert get(gateway, "/api/v1/status/flags").status == 200


def test_a_panel_asks_for_a_range(gateway: Gateway) -> None:
    answer = post(
        gateway,
        f"{API}/query_range",
        "?stats=all&max_samples_processed_warning_threshold=1000000&max_samples_processed_error_threshold=10000000",
        query="sum by (job) (rate(jobs_total[1m0s]))",
        start=str(NOW_S - 3600),
        end=f"{NOW_S}",
        step="15",
    )
    assert answer.data["resultType"] == "matrix"
    assert [one["metric"] for one in answer.data["result"]] == [{"job": "api"}, {"job": "web"}]
    assert "samples" in answer.data["stats"], "parameters of URL and form are merged"


def test_a_step_may_be_a_fraction_and_a_time_have_nanoseconds(gateway: Gateway) -> None:
    answer = get(gateway, f"{API}/query_range", query="up", start=f"{NOW_S - 60}.5", end=NOW_S, step="7.5")
    assert len(answer.data["result"]) == 2
    answer = get(gateway, f"{API}/query", query="up", time=f"{NOW_S}.123456789", timeout="30s")
    assert answer.data["resultType"] == "vector" and len(answer.data["result"]) == 2


def test_an_empty_panel_is_no_error(gateway: Gateway) -> None:
    answer = post(gateway, f"{API}/query_range", query="nothing", start=NOW_S - 60, end=NOW_S, step=15)
    assert answer.data["result"] == []


def test_what_a_user_should_read_comes_as_json(gateway: Gateway) -> None:
    answer = post(gateway, f"{API}/query", query="sum(")
    assert (answer.status, answer.json["errorType"]) == (400, "bad_data")
    assert "parse error" in answer.json["error"]
    answer = post(gateway, f"{API}/query_range", query="up", start=0, end=NOW_S, step=1)
    assert answer.status == 400 and "11,000 points" in answer.json["error"]


def test_exemplars_are_probed_with_milliseconds(gateway: Gateway) -> None:
    for ask in (get, post):
        answer = ask(gateway, f"{API}/query_exemplars", query="test", start=NOW_MS - 60_000, end=NOW_MS)
        assert answer.json == {"status": "success", "data": []}


def test_the_editor_completes_names_and_values(gateway: Gateway) -> None:
    times = {"start": NOW_S - 3600, "end": NOW_S}
    assert post(gateway, f"{API}/labels", **times, limit=40000).data == ["__name__", "http.status", "instance", "job"]
    assert post(gateway, f"{API}/labels", **times, limit=1000, match='{__name__=~".*up.*"}').data == [
        "__name__", "instance", "job",
    ]  # fmt: skip
    assert get(gateway, f"{API}/label/__name__/values", **times, limit=40000).data == ["jobs_total", "up"]
    typed = get(gateway, f"{API}/label/__name__/values", **times, limit=1000, match='{__name__=~".*job.*"}')
    assert typed.data == ["jobs_total"]
    assert get(gateway, f"{API}/label/U__http_2e_status/values", **times).data == ["200"]


def test_a_cut_list_says_so(gateway: Gateway) -> None:
    answer = get(gateway, f"{API}/label/__name__/values", start=NOW_S - 3600, end=NOW_S, limit=1)
    assert (answer.status, answer.json["data"]) == (200, ["jobs_total"])
    assert answer.json["warnings"] == ["results truncated due to limit"]
    assert "warnings" not in get(gateway, f"{API}/label/__name__/values", limit=0).json


def test_a_variable_may_be_a_bare_selector(gateway: Gateway) -> None:
    answer = post(gateway, f"{API}/series", match="up", start=NOW_S - 3600, end=NOW_S, limit=40000)
    assert {"__name__": "up", "job": "api", "instance": "api:80"} in answer.data
    assert len(post(gateway, f"{API}/series", match='{__name__!=""}', start=NOW_S - 3600, end=NOW_S).data) == 4


def test_a_scope_asks_with_several_selectors(gateway: Gateway) -> None:
    answer = get(gateway, f"{API}/label/job/values", match=['up{job="api"}', 'jobs_total{job="web"}'], limit=1000)
    assert answer.data == ["api", "web"]


def test_metadata_drives_hints(gateway: Gateway) -> None:
    data = get(gateway, f"{API}/metadata", limit=40000).data
    assert data["jobs_total"] == [{"type": "counter", "help": "Jobs.", "unit": ""}]
    assert list(get(gateway, f"{API}/metadata", limit=1).data) == ["jobs_total"] or len(data) == 2


def test_the_root_of_the_data_source_answers(gateway: Gateway) -> None:
    assert get(gateway, "/prometheus/").status == 200
    assert get(gateway, "/prometheus/-/healthy").status == 200
