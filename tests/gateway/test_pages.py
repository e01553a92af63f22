"""Pages and status APIs: rings, services, readiness, configuration, metrics, static files."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceId, InstanceState
from mimir_ray.config.overrides import RuntimeConfigSettings
from mimir_ray.telemetry.federation import merge
from tests.gateway.serving import Gateway, serving, settings_with

EVIL = '<script>alert("x")</script>'


def register(gateway: Gateway, name: str, **more: object) -> None:
    tokens = np.array([len(name), 1 << 31], np.uint32)
    desc = InstanceDesc(InstanceId(name), f"ingester/{name}", "zone-a", InstanceState.ACTIVE, tokens)
    gateway.ring.register(INGESTER, replace(desc, **more))  # type: ignore[arg-type]


# Rings.


def test_a_ring_page_is_there_before_anyone_joined(gateway: Gateway) -> None:
    assert gateway.ask("/ingester/ring").status == 200
    assert gateway.ask("/ingester/ring", accept="application/json").json == {
        "shards": [],
        "now": "2023-11-14T22:13:20Z",
    }


def test_a_ring_page_is_json_for_programs(gateway: Gateway) -> None:
    register(gateway, "a")
    register(gateway, "b", tokens=np.array([7], np.uint32), zone="")
    gateway.ring.set_read_only(INGESTER, InstanceId("b"), True)
    gateway.clock.advance_ms(1000)
    found = gateway.ask("/ingester/ring", accept="application/json").json
    first, second = found["shards"]
    assert first == {
        "id": "a",
        "state": "ACTIVE",
        "address": "ingester/a",
        "timestamp": "2023-11-14T22:13:20Z",
        "registered_timestamp": "2023-11-14T22:13:20Z",
        "read_only": False,
        "read_only_updated_timestamp": "",
        "zone": "zone-a",
        "tokens": [1, 1 << 31],
        "healthy": True,
        "ownership": first["ownership"],
    }
    assert first["ownership"] + second["ownership"] == pytest.approx(1)
    assert (second["read_only"], second["read_only_updated_timestamp"]) == (True, "2023-11-14T22:13:20Z")
    assert found["now"] == "2023-11-14T22:13:21Z"


def test_an_instance_without_a_sign_of_life_is_shown_as_unhealthy(gateway: Gateway) -> None:
    register(gateway, "a")
    gateway.clock.advance_ms(60_001)
    (found,) = gateway.ask("/ingester/ring", accept="application/json").json["shards"]
    assert (found["state"], found["healthy"]) == ("UNHEALTHY", False)
    assert "UNHEALTHY" in gateway.ask("/ingester/ring").text


def test_a_ring_page_shows_text_as_text(gateway: Gateway) -> None:
    register(gateway, EVIL, address=EVIL, zone=EVIL)
    page = gateway.ask("/ingester/ring")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "alert" in page.text
    assert "<script>alert" not in page.text


def test_an_instance_is_forgotten_and_the_page_shown_again(gateway: Gateway) -> None:
    register(gateway, "a")
    register(gateway, "b")
    answer = gateway.form("/ingester/ring", {"forget": "a"})
    assert (answer.status, answer.headers["location"]) == (302, "/ingester/ring")
    assert list(gateway.ring.snapshot(INGESTER).instances) == ["b"]


@pytest.mark.parametrize("fields", [{"forget": "nobody"}, {}])
def test_forgetting_nobody_is_an_error(gateway: Gateway, fields: dict[str, str]) -> None:
    register(gateway, "a")
    assert gateway.form("/ingester/ring", fields).status == 404
    assert list(gateway.ring.snapshot(INGESTER).instances) == ["a"]


# Services and readiness.


def test_ready_says_who_is_missing(gateway: Gateway) -> None:
    gateway.not_ready.append("ingester/0: Starting: replaying")
    answer = gateway.ask("/ready")
    assert (answer.status, answer.text) == (503, "Some services are not Running:\ningester/0: Starting: replaying\n")
    gateway.not_ready.clear()
    assert (gateway.ask("/ready").status, gateway.ask("/ready").text) == (200, "ready\n")
    assert gateway.ask("/prometheus/-/ready").status == 200
    assert gateway.ask("/prometheus/-/healthy").status == 200


def test_services_are_listed_for_people_and_programs(gateway: Gateway) -> None:
    gateway.states[:] = [("gateway", "Running", ""), ("ingester/0", "Failed", EVIL)]
    assert gateway.ask("/services", accept="application/json").json == {
        "services": [
            {"service": "gateway", "status": "Running", "detail": ""},
            {"service": "ingester/0", "status": "Failed", "detail": EVIL},
        ]
    }
    page = gateway.ask("/services").text
    assert "ingester/0" in page
    assert "<script>alert" not in page


# What it runs with.


@pytest.mark.parametrize("prefix", ["", "/prometheus", "/alertmanager"])
def test_grafana_can_tell_what_this_is(gateway: Gateway, prefix: str) -> None:
    data = gateway.ask(f"{prefix}/api/v1/status/buildinfo").data
    assert data["application"] == "Grafana Mimir"
    assert set(data) == {"application", "version", "revision", "branch", "goVersion", "features"}
    assert all(value in ("true", "false") for value in data["features"].values())


def test_the_configuration_is_shown_in_force_by_default_and_by_difference() -> None:
    with serving(settings_with(limits={"ingestion_rate": 5.0})) as one:
        whole = yaml.safe_load(one.ask("/config").text)
        assert whole["limits"]["ingestion_rate"] == 5
        assert whole["target"] == "all"
        assert yaml.safe_load(one.ask("/config", {"mode": "defaults"}).text)["limits"]["ingestion_rate"] == 10_000
        difference = yaml.safe_load(one.ask("/config", {"mode": "diff"}).text)
        assert difference == {"server": {"http_listen_port": 0}, "limits": {"ingestion_rate": 5}}
        assert yaml.safe_load(one.ask("/config", {"mode": "other"}).text) == whole


def test_without_a_runtime_file_there_is_no_runtime_configuration(gateway: Gateway) -> None:
    assert gateway.ask("/runtime_config").status == 404
    assert gateway.ask("/api/v1/user_limits").status == 404


def test_the_runtime_configuration_and_the_limits_of_a_tenant_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "runtime.yaml"
    file.write_text("overrides: {team-a: {ingestion_rate: 7}}")
    with serving(settings_with(multitenancy=True, runtime_config=RuntimeConfigSettings(file=(str(file),)))) as one:
        assert yaml.safe_load(one.ask("/runtime_config", {"mode": "diff"}).text) == {
            "overrides": {"team-a": {"ingestion_rate": 7}}
        }
        assert one.ask("/api/v1/user_limits", x_scope_orgid="team-a").json["ingestion_rate"] == 7
        assert one.ask("/api/v1/user_limits", x_scope_orgid="team-b").json["ingestion_rate"] == 10_000
        assert (one.ask("/api/v1/user_limits").status, one.ask("/api/v1/user_limits").text) == (401, "no org id\n")


def test_metrics_of_all_processes_come_as_one_text(gateway: Gateway) -> None:
    text = b"# TYPE up gauge\nup 1\n" + b"".join(b"x%d 1\n" % n for n in range(300))
    gateway.exposition = merge({"a": text, "b": b"# TYPE up gauge\nup 0\n"})
    answer = gateway.ask("/metrics", accept_encoding="gzip")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert gzip.decompress(answer.body) == gateway.exposition
    lines = gateway.ask("/metrics").text.splitlines()
    assert lines.count("# TYPE up gauge") == 1
    assert {'up{pod="a"} 1', 'up{pod="b"} 0'} <= set(lines)


# Pages for people.


@pytest.mark.parametrize("path", ["/", "/graph", "/ingester/ring", "/services"])
def test_pages_stand_in_one_frame_with_nothing_left_to_fill_in(gateway: Gateway, path: str) -> None:
    page = gateway.ask(path)
    assert page.status == 200
    assert "mimir-ray" in page.text
    assert "{{" not in page.text


def test_a_page_names_the_tenant_that_it_asks_as() -> None:
    evil = '"><script>alert(1)</script>'
    with serving(settings_with(multitenancy=True, scraper={"tenant": evil})) as one:
        page = one.ask("/graph").text
        assert "<script>alert" not in page
        assert "&quot;&gt;&lt;script&gt;" in page


@pytest.mark.parametrize("name", ["style.css", "chart.js", "index.js", "graph.js", "icon.svg"])
def test_static_files_are_served_with_their_type(gateway: Gateway, name: str) -> None:
    answer = gateway.ask(f"/static/{name}")
    assert answer.status == 200
    assert answer.body
    kind = answer.headers["content-type"]
    assert {"css": "css", "js": "javascript", "svg": "svg"}[name.rsplit(".", maxsplit=1)[-1]] in kind


@pytest.mark.parametrize("name", ["frame.html", "nothing.css", "..%2F__init__.py", "%2e%2e%2fkernel.py"])
def test_nothing_else_is_served_from_disk(gateway: Gateway, name: str) -> None:
    assert gateway.ask(f"/static/{name}").status == 404


# Paths.


def test_everything_stands_below_the_path_prefix() -> None:
    with serving(settings_with(server={"http_listen_port": 0, "http_path_prefix": "/mimir"})) as one:
        register(one, "a")
        for path in (
            "/ready",
            "/",
            "/prometheus/api/v1/query?query=1",
            "/api/v1/status/buildinfo",
            "/static/style.css",
        ):
            assert one.ask(f"/mimir{path}").status == 200, path
            assert one.ask(path).status == 404, path
        page = one.ask("/mimir/").text
        assert 'href="/mimir/static/style.css"' in page
        answer = one.form("/mimir/ingester/ring", {"forget": "a"})
        assert answer.headers["location"] == "/mimir/ingester/ring"


def test_the_query_api_stands_where_the_setting_says() -> None:
    with serving(settings_with(api={"prometheus_http_prefix": "/p"})) as one:
        assert one.ask("/p/api/v1/query?query=1").status == 200
        assert one.ask("/prometheus/api/v1/query?query=1").status == 404
        assert one.ask("/p/-/ready").status == 200


def test_unknown_paths_and_methods_are_answered_as_go_does(gateway: Gateway) -> None:
    answer = gateway.ask("/nowhere")
    assert (answer.status, answer.text) == (404, "404 page not found\n")
    assert gateway.ask("/api/v1/push").status == 405
    assert gateway.ask("/ready", method="DELETE").status == 405


# Requests are counted.


def test_requests_are_counted_by_route_and_status(gateway: Gateway) -> None:
    gateway.ask("/prometheus/api/v1/label/job/values")
    gateway.ask("/prometheus/api/v1/label/instance/values")
    gateway.ask("/nowhere/1")
    gateway.ask("/nowhere/2")

    def count(route: str, status: str) -> float:
        labels = {"method": "GET", "route": route, "status_code": status, "ws": "false"}
        return gateway.registry.get_sample_value("cortex_request_duration_seconds_count", labels) or 0  # type: ignore[attr-defined]

    assert count("prometheus_api_v1_label_name_values", "200") == 2
    assert count("other", "404") == 2
    assert gateway.registry.get_sample_value("cortex_inflight_requests") == 0  # type: ignore[attr-defined]
