"""The query API and the pages around it, over a real socket and through all processes."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.metadata import Metadata
from tests.integration.deployment import TENANT, Answer, Deployment, request

BASE = "/prometheus/api/v1"
TENANT_HEADER = {"X-Scope-OrgID": TENANT}
STEP_MS = 15_000
POINTS = 41
INSTANCES = 5

RUNTIME = "overrides:\n  tests: {ingestion_rate: 123456}\n"


@pytest.fixture(scope="module")
def now_ms() -> int:
    return int(time.time()) * 1000


def named(name: str, **others: str) -> Labels:
    return labels_of({"__name__": name, **others})


@pytest.fixture(scope="module")
def deployment(deploy: Callable[..., Deployment], tmp_path_factory: pytest.TempPathFactory, now_ms: int) -> Deployment:
    """Two ingesters with ten minutes of counters `requests_total` and gauges `load`, and a few oddities."""
    runtime = tmp_path_factory.mktemp("runtime") / "runtime.yaml"
    runtime.write_text(RUNTIME)
    one = deploy("-deploy.ingesters=2", "-validation.name-validation-scheme=utf8", f"-runtime-config.file={runtime}")
    one.start()
    times = [now_ms - (POINTS - 1 - place) * STEP_MS for place in range(POINTS)]
    series: list[tuple[Labels, list[tuple[int, float]]]] = []
    for instance in range(INSTANCES):
        others = {"instance": str(instance), "job": "even" if instance % 2 == 0 else "odd"}
        counts = [(at, 15.0 * place * (instance + 1)) for place, at in enumerate(times)]
        series.append((named("requests_total", **others), counts))
        series.append((named("load", **others), [(at, float(instance)) for at in times]))
    series.append((named("odd_values", kind="nan"), [(now_ms, float("nan"))]))
    series.append((named("odd_values", kind="inf"), [(now_ms, float("inf"))]))
    series.append((labels_of({"__name__": "http.status", "http.code": "200"}), [(now_ms, 1.0)]))
    metadata = [
        Metadata("requests_total", "counter", "All requests.", ""),
        Metadata("load", "gauge", "How busy it is.", ""),
    ]
    answer = one.push(series, metadata=metadata)
    assert answer.status == 200, answer.text
    return one


def post(deployment: Deployment, path: str, form: dict[str, Any], url: dict[str, Any] | None = None) -> Answer:
    headers = {**TENANT_HEADER, "Content-Type": "application/x-www-form-urlencoded"}
    where = f"{BASE}/{path}" + (f"?{urlencode(url)}" if url else "")
    return request(deployment.port, "POST", where, urlencode(form, doseq=True).encode(), headers)


def bad_data(answer: Answer, part: str, status: int = 400, kind: str = "bad_data") -> None:
    assert answer.status == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json
    assert (body["status"], body["errorType"]) == ("error", kind)
    assert part in body["error"]


# --- parameters ---


def test_the_request_of_grafanas_save_and_test_is_answered(deployment: Deployment) -> None:
    data = deployment.result("query", query="1+1", time=4)
    assert data == {"resultType": "scalar", "result": [4, "2"]}
    assert post(deployment, "query", {"query": "1+1", "time": "4"}).json["data"] == data


def test_the_health_check_of_ray_needs_no_escapes(deployment: Deployment) -> None:
    answer = deployment.get(f"{BASE}/query?query=vector(1)", TENANT_HEADER)
    assert answer.json["status"] == "success"


def test_a_form_and_the_url_are_merged_and_the_form_goes_first(deployment: Deployment) -> None:
    answer = post(deployment, "query", {"query": "2"}, {"query": "3", "time": "7", "stats": "all"})
    assert answer.json["data"]["result"] == [7, "2"]
    assert "stats" in answer.json["data"]


def test_unknown_parameters_are_ignored(deployment: Deployment) -> None:
    assert deployment.ask("query", query="1", max_samples_processed_warning_threshold=1, nocache=1).status == 200


def test_times_are_seconds_or_rfc_3339(deployment: Deployment, now_ms: int) -> None:
    moment = datetime.fromtimestamp(now_ms / 1000, timezone.utc)
    texts = [str(now_ms / 1000), str(now_ms // 1000), moment.isoformat(), moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")]
    answers = [deployment.result("query", query="load", time=text) for text in texts]
    assert all(answer == answers[0] for answer in answers)
    assert len(answers[0]["result"]) == INSTANCES


def test_a_query_without_time_is_of_now(deployment: Deployment) -> None:
    before = time.time()
    (at, value) = deployment.result("query", query="time()")["result"]
    assert before - 1 <= at <= time.time() + 1
    assert float(value) == pytest.approx(at)


@pytest.mark.parametrize(
    "path, parameters, part",
    [
        ("query", {"query": "sum("}, 'invalid parameter "query": 1:'),
        ("query", {"query": ""}, 'invalid parameter "query"'),
        ("query", {}, 'invalid parameter "query"'),
        (
            "query",
            {"query": "1", "time": "soon"},
            'invalid parameter "time": invalid time value for \'time\': cannot parse "soon" to a valid timestamp',
        ),
        ("query", {"query": "1", "timeout": "x"}, 'cannot parse "x" to a valid duration'),
        ("query", {"query": "1", "limit": "x"}, "limit"),
        ("query", {"query": "1", "limit": "-1"}, "limit"),
        ("query", {"query": "1", "lookback_delta": "0"}, "lookback_delta"),
        ("query_range", {"query": "1", "end": "2", "step": "1"}, 'invalid parameter "start"'),
        ("query_range", {"query": "1", "start": "2", "end": "1", "step": "1"}, 'invalid parameter "end"'),
        ("query_range", {"query": "1", "start": "1", "end": "2", "step": "0"}, "zero or negative query resolution"),
        ("query_range", {"query": "1", "start": "1", "end": "2", "step": "-1"}, "zero or negative query resolution"),
        ("query_range", {"query": "1", "start": "0", "end": "11001", "step": "1"}, "exceeded maximum resolution"),
        ("query_range", {"query": "x[1m]", "start": "0", "end": "10", "step": "1"}, "invalid expression type"),
        ("series", {}, "no match[] parameter provided"),
        ("series", {"match": "{}"}, "match[] must contain at least one non-empty matcher"),
        ("series", {"match": "{x="}, 'invalid parameter "match[]"'),
        ("labels", {"start": "2", "end": "1"}, 'invalid parameter "end"'),
        ("labels", {"limit": "-5"}, "limit"),
        ("label/job/values", {"match": "{x=~'('}"}, 'invalid parameter "match[]"'),
        ("metadata", {"limit": "x"}, "limit must be a number"),
        ("format_query", {"query": "rate(x)"}, 'invalid parameter "query"'),
    ],
)
def test_a_bad_parameter_is_400_and_named(
    path: str, parameters: dict[str, str], part: str, deployment: Deployment
) -> None:
    bad_data(deployment.ask(path, **parameters), part)


def test_exactly_11000_steps_are_allowed(deployment: Deployment) -> None:
    data = deployment.result("query_range", query="1", start=0, end=11_000, step=1)
    assert len(data["result"][0]["values"]) == 11_001


def test_series_that_become_the_same_are_an_execution_error(deployment: Deployment, now_ms: int) -> None:
    answer = deployment.ask("query", query="abs({__name__=~'load|requests_total'})", time=now_ms / 1000)
    bad_data(answer, "vector cannot contain metrics with the same labelset", 422, "execution")


def test_an_ambiguous_match_is_an_execution_error(deployment: Deployment, now_ms: int) -> None:
    answer = deployment.ask("query", query="load * on (job) load", time=now_ms / 1000)
    bad_data(answer, "many-to-many matching not allowed", 422, "execution")


def test_a_query_that_runs_out_of_time_is_503(deployment: Deployment, now_ms: int) -> None:
    answer = deployment.ask("query", query="sum(load)", time=now_ms / 1000, timeout="0.000001")
    bad_data(answer, "timed out", 503, "timeout")


@pytest.mark.parametrize("path", ["query?query=1", "labels", "series?match[]=up", "label/job/values", "metadata"])
def test_without_a_tenant_it_is_401_in_plain_text(path: str, deployment: Deployment) -> None:
    answer = deployment.get(f"{BASE}/{path}")
    assert (answer.status, answer.text) == (401, "no org id\n")
    assert answer.headers["content-type"].startswith("text/plain")


# --- answers ---


def test_a_range_query_has_every_step(deployment: Deployment, now_ms: int) -> None:
    start = now_ms // 1000 - 300
    data = deployment.result(
        "query_range", query="sum by (job) (rate(requests_total[1m]))", start=start, end=start + 300, step="30s"
    )
    assert [one["metric"] for one in data["result"]] == [{"job": "even"}, {"job": "odd"}]
    for one, expected in zip(data["result"], (1 + 3 + 5, 2 + 4), strict=True):
        assert [at for at, _ in one["values"]] == [start + 30 * step for step in range(11)]
        assert all(float(value) == pytest.approx(expected) for _, value in one["values"])


def test_values_that_are_no_numbers_are_text(deployment: Deployment, now_ms: int) -> None:
    found = deployment.result("query", query="sort(odd_values)", time=now_ms / 1000)["result"]
    assert {one["metric"]["kind"]: one["value"][1] for one in found} == {"nan": "NaN", "inf": "+Inf"}


def test_a_range_selector_gives_the_samples_themselves(deployment: Deployment, now_ms: int) -> None:
    data = deployment.result("query", query='load{instance="3"}[1m]', time=now_ms / 1000)
    assert data["resultType"] == "matrix"
    assert data["result"][0]["values"] == [[now_ms / 1000 - 15 * back, "3"] for back in (3, 2, 1, 0)]


@pytest.mark.parametrize(
    "path, parameters, count",
    [
        ("query", {"query": "load"}, lambda data: len(data["result"])),
        ("query_range", {"query": "load", "step": "15"}, lambda data: len(data["result"])),
        ("labels", {}, len),
        ("label/instance/values", {}, len),
        ("series", {"match": "load"}, len),
    ],
)
def test_a_limit_cuts_the_answer_and_says_so(
    path: str, parameters: dict[str, str], count: Callable[[Any], int], deployment: Deployment, now_ms: int
) -> None:
    span = {"time": now_ms / 1000} if path == "query" else {"start": now_ms / 1000 - 60, "end": now_ms / 1000}
    cut = deployment.ask(path, **parameters, **span, limit=2).json
    whole = deployment.ask(path, **parameters, **span, limit=40_000).json
    unlimited = deployment.ask(path, **parameters, **span, limit=0).json
    assert count(cut["data"]) == 2
    assert cut["warnings"] == ["results truncated due to limit"]
    assert count(whole["data"]) > 2
    assert "warnings" not in whole
    assert unlimited == whole


def test_statistics_come_only_when_asked_for(deployment: Deployment, now_ms: int) -> None:
    asked = {"query": "sum(load)", "time": now_ms / 1000}
    assert "stats" not in deployment.result("query", **asked)
    stats = deployment.result("query", **asked, stats="true")["stats"]
    assert {"totalQueryableSamples", "peakSamples"} <= set(stats["samples"])
    assert {"evalTotalTime", "execTotalTime", "queryPreparationTime"} <= set(stats["timings"])


def test_samples_that_the_gateway_looks_at_are_counted(deployment: Deployment, now_ms: int) -> None:
    stats = deployment.result("query", query="load", time=now_ms / 1000, stats="true")["stats"]
    assert stats["samples"]["totalQueryableSamples"] == INSTANCES


def test_samples_that_ingesters_look_at_are_counted(deployment: Deployment, now_ms: int) -> None:
    stats = deployment.result("query", query="sum(load)", time=now_ms / 1000, stats="true")["stats"]
    assert stats["samples"]["totalQueryableSamples"] == INSTANCES


def test_answers_are_compressed_when_the_client_can(deployment: Deployment, now_ms: int) -> None:
    path = f"{BASE}/query?query={quote('requests_total[10m]')}&time={now_ms / 1000}"
    plain = deployment.get(path, TENANT_HEADER)
    packed = deployment.get(path, {**TENANT_HEADER, "Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body)


def test_the_lookback_can_be_chosen(deployment: Deployment, now_ms: int) -> None:
    asked = {"query": "count(load)", "time": now_ms / 1000 + 100}
    assert deployment.result("query", **asked)["result"][0]["value"][1] == str(INSTANCES)
    assert deployment.result("query", **asked, lookback_delta="50s")["result"] == []


def test_labels_and_values_can_be_narrowed(deployment: Deployment, now_ms: int) -> None:
    assert deployment.result("labels", match="load") == ["__name__", "instance", "job"]
    assert deployment.result("label/instance/values", match='load{job="odd"}') == ["1", "3"]
    several = deployment.result("label/__name__/values", match=["load", "odd_values"])
    assert several == ["load", "odd_values"]
    assert deployment.result("label/nothing/values") == []
    assert post(deployment, "labels", {"match[]": ["load"]}).json["data"] == ["__name__", "instance", "job"]


def test_series_are_label_sets(deployment: Deployment) -> None:
    found = deployment.result("series", match=['load{instance="1"}', 'load{instance="1",job="odd"}'])
    assert found == [{"__name__": "load", "instance": "1", "job": "odd"}]


def test_label_names_in_the_path_may_be_escaped(deployment: Deployment) -> None:
    assert deployment.result("label/U__http_2e_code/values") == ["200"]
    assert deployment.result("label/U__job/values") == ["even", "odd"]
    assert deployment.result(f"label/{quote('http.code')}/values") == ["200"]


def test_utf8_names_can_be_queried(deployment: Deployment, now_ms: int) -> None:
    found = deployment.result("query", query='{"http.status", "http.code"="200"}', time=now_ms / 1000)["result"]
    assert [one["metric"] for one in found] == [{"__name__": "http.status", "http.code": "200"}]


def test_metadata_is_by_family(deployment: Deployment) -> None:
    load = [{"type": "gauge", "help": "How busy it is.", "unit": ""}]
    assert deployment.result("metadata", metric="load") == {"load": load}
    assert set(deployment.result("metadata")) == {"load", "requests_total"}
    assert len(deployment.result("metadata", limit=1)) == 1
    assert deployment.result("metadata", metric="none") == {}


def test_queries_are_formatted_and_parsed(deployment: Deployment) -> None:
    assert deployment.result("format_query", query="sum( load )by(job)") == "sum by (job) (load)"
    tree = deployment.result("parse_query", query="sum by (job) (load)")
    assert (tree["type"], tree["op"], tree["grouping"]) == ("aggregation", "sum", ["job"])
    assert post(deployment, "format_query", {"query": "1 +  1"}).json["data"] == "1 + 1"


# --- pages around it ---


def test_build_information_is_at_three_places_and_names_mimir(deployment: Deployment) -> None:
    paths = [f"{prefix}/api/v1/status/buildinfo" for prefix in ("", "/prometheus", "/alertmanager")]
    answers = [deployment.get(path) for path in paths]
    assert [answer.status for answer in answers] == [200, 200, 200]
    data = answers[0].json["data"]
    assert all(answer.json["data"] == data for answer in answers)
    assert data["application"] == "Grafana Mimir"
    assert data["features"]
    assert all(isinstance(value, str) for value in data["features"].values())


def test_flags_are_only_at_the_root(deployment: Deployment) -> None:
    assert deployment.get(f"{BASE}/status/flags", TENANT_HEADER).status == 404
    for name in ("flags", "config"):
        assert deployment.get(f"/api/v1/status/{name}").json == {"status": "success", "data": {}}


def test_the_prefix_itself_answers(deployment: Deployment) -> None:
    assert deployment.get("/prometheus/").status == 200
    assert deployment.get("/").status == 200
    assert deployment.get("/no/such/page").status == 404
    assert request(deployment.port, "DELETE", "/ready").status == 405


def test_the_configuration_is_shown_as_it_is(deployment: Deployment) -> None:
    whole = deployment.get("/config").text
    assert f"http_listen_port: {deployment.port}" in whole
    different = deployment.get("/config?mode=diff").text
    assert f"http_listen_port: {deployment.port}" in different
    assert len(different) < len(whole) / 5
    assert "http_listen_port: 8080" in deployment.get("/config?mode=defaults").text


def test_overrides_of_tenants_are_shown(deployment: Deployment) -> None:
    assert "123456" in deployment.get("/runtime_config").text
    assert deployment.get("/api/v1/user_limits").status == 401
    assert deployment.get("/api/v1/user_limits", TENANT_HEADER).json["ingestion_rate"] == 123456
    assert deployment.get("/api/v1/user_limits", {"X-Scope-OrgID": "else"}).json["ingestion_rate"] == 10000


def test_services_and_the_ring_are_pages_and_json(deployment: Deployment) -> None:
    wants_json = {"Accept": "application/json"}
    states = {one["service"]: one["status"] for one in deployment.get("/services", wants_json).json["services"]}
    assert set(states.values()) == {"Running"}
    assert {"gateway", "ring", "ingester/0", "ingester/1"} <= set(states)
    ring = deployment.get("/ingester/ring", wants_json).json["shards"]
    assert [one["state"] for one in ring] == ["ACTIVE", "ACTIVE"]
    assert sum(one["ownership"] for one in ring) == pytest.approx(1.0)
    for path in ("/services", "/ingester/ring"):
        page = deployment.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert "Running" in page.text or "ACTIVE" in page.text
    assert deployment.get("/ready").text == "ready\n"


def test_metrics_of_all_processes_are_on_one_page(deployment: Deployment) -> None:
    lines = deployment.get("/metrics").text.splitlines()
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    assert {
        "cortex_distributor_received_samples_total",
        "cortex_ingester_memory_series",
        "cortex_request_duration_seconds_bucket",
    } <= names
    received = [line for line in lines if line.startswith("cortex_distributor_received_samples_total{")]
    assert sum(float(line.rpartition(" ")[2]) for line in received) == POINTS * INSTANCES * 2 + 3
