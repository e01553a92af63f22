"""mimirtool, vmalert, Python clients, the Prometheus UI: those of their calls that are served."""

from __future__ import annotations

import time
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote, urlencode

import orjson
import pytest

from mimir_ray.testing.blocks import make_block
from tests.compat.raw import TENANT, Headers, send, stored
from tests.compat.test_alloy import REQUEST, SERIES
from tests.gateway.serving import NOW_MS, Gateway

NOW_S = NOW_MS // 1000
API = "/prometheus/api/v1"
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
DAY_MS = 24 * 3_600_000


def mimirtool(user: str = "") -> Headers:
    """Basic authentication where it has a key; the tenant always goes in its header too."""
    authorization = (("Authorization", f"Basic {b64encode(f'{user}:key'.encode()).decode()}"),) if user else ()
    return (("User-Agent", "mimirtool/2.17.0"), *authorization, ("X-Scope-Orgid", TENANT), ("Accept-Encoding", "gzip"))


@pytest.mark.parametrize("user", ["", TENANT])
def test_mimirtool_backfills_a_block(gateway: Gateway, tmp_path: Path, user: str) -> None:
    ulid = ULID if user else f"{ULID[:-1]}W"
    points = [(NOW_MS - DAY_MS + at * 15_000, float(at)) for at in range(30)]
    make_block(tmp_path, [((("__name__", "old"),), points)], ulid)
    folder, base = tmp_path / ulid, f"/api/v1/upload/block/{ulid}"
    meta = orjson.loads((folder / "meta.json").read_bytes())
    headers = mimirtool(user)
    as_json = (*headers, ("Content-Type", "application/json"))
    answer = send(gateway, f"POST {base}/start", as_json, orjson.dumps(meta))
    assert (answer.status, answer.body) == (200, b"")
    for path in ("chunks/000001", "index"):
        target = f"POST {base}/files?path={quote(path, safe='')}"
        octets = (*headers, ("Content-Type", "application/octet-stream"))
        assert send(gateway, target, octets, (folder / path).read_bytes()).status == 200
    assert send(gateway, f"POST {base}/finish", headers).status == 200
    deadline = time.monotonic() + 60
    while (found := send(gateway, f"GET {base}/check", headers).json)["result"] != "complete":
        assert found == {"result": "validating"} and time.monotonic() < deadline
    # Once more: the block is there already, which mimirtool takes for "skip".
    assert send(gateway, f"POST {base}/start", as_json, orjson.dumps(meta)).status == 409


def test_mimirtool_asks_queries(gateway: Gateway) -> None:
    headers = (*mimirtool(), ("Content-Type", "application/x-www-form-urlencoded"))
    body = urlencode({"query": "sum(up)", "time": f"{NOW_S}.000"}).encode()
    answer = send(gateway, f"POST {API}/query", headers, body)
    assert answer.data["result"][0]["value"] == [NOW_S, "2"]


def test_mimirtool_reads_404_as_not_there(gateway: Gateway) -> None:
    assert send(gateway, f"GET /api/v1/upload/block/{ULID[:-1]}X/check", mimirtool()).status == 404


def test_vmalert_reads_and_writes(gateway: Gateway) -> None:
    headers = (("User-Agent", "vmalert"), ("X-Scope-Orgid", TENANT), ("Accept-Encoding", "identity"))
    form = (*headers, ("Content-Type", "application/x-www-form-urlencoded"))
    target = f"POST {API}/query?{urlencode({'query': 'up == 1', 'step': '60s', 'time': NOW_S})}"
    assert len(send(gateway, target, form).data["result"]) == 2
    target = f"POST {API}/query_range?{urlencode({'query': 'up', 'start': NOW_S - 60, 'end': NOW_S, 'step': '15s'})}"
    assert len(send(gateway, target, form).data["result"]) == 2
    written = (
        *headers,
        ("Content-Encoding", "snappy"),
        ("Content-Type", "application/x-protobuf"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    )
    assert send(gateway, "POST /api/v1/write", written, REQUEST).status == 200
    assert stored(gateway) == [(SERIES, NOW_MS, 1.0)]


def python(agent: str) -> Headers:
    return (("User-Agent", agent), ("Accept-Encoding", "identity"), ("Accept", "*/*"), ("X-Scope-OrgID", TENANT))


def test_prometheus_api_client_connects_and_lists(gateway: Gateway) -> None:
    headers = python("python-requests/2.32.5")
    assert send(gateway, "GET /prometheus/", headers).status == 200
    assert send(gateway, f"GET {API}/label/__name__/values", headers).data[:1] == ["jobs_total"]
    target = f"GET {API}/query?query=up%7Bjob%3D%22api%22%7D"
    assert len(send(gateway, target, headers).data["result"]) == 1
    query = {"query": "up", "start": NOW_S - 600, "end": NOW_S, "step": "60"}
    assert len(send(gateway, f"GET {API}/query_range?{urlencode(query)}", headers).data["result"]) == 2
    # A chunk of a metric, as get_metric_range_data asks for it.
    query = {"query": "up[600s]", "time": NOW_S}
    assert send(gateway, f"GET {API}/query?{urlencode(query)}", headers).data["resultType"] == "matrix"


def test_prometheus_pandas_asks_below_the_prefix(gateway: Gateway) -> None:
    headers = python("python-requests/2.32.5")
    assert send(gateway, f"GET {API}/query?query=up&time={NOW_S}.0", headers).data["resultType"] == "vector"
    moments = {"start": "2023-11-14T22:00:00+00:00", "end": "2023-11-14T22:10:00.000000+00:00", "step": "1m"}
    target = f"GET {API}/query_range?{urlencode({'query': 'up', **moments})}"
    assert send(gateway, target, headers).data["resultType"] == "matrix"


UI = (("User-Agent", "Mozilla/5.0"), ("Accept", "application/json"), ("X-Scope-OrgID", TENANT))


def test_the_prometheus_ui_parses_and_formats(gateway: Gateway) -> None:
    target = f"GET {API}/parse_query?{urlencode({'query': 'sum by(job)(rate(up[5m]))'})}"
    assert send(gateway, target, UI).data["type"] == "aggregation"
    target = f"GET {API}/format_query?{urlencode({'query': 'sum by(job)(up)'})}"
    assert send(gateway, target, UI).data == "sum by (job) (up)"


def test_the_prometheus_ui_asks_for_statistics_and_one_metadata(gateway: Gateway) -> None:
    target = f"GET {API}/query?{urlencode({'query': 'up', 'time': f'{NOW_S}.5', 'stats': 'true', 'limit': 10000})}"
    assert "timings" in send(gateway, target, UI).data["stats"]
    assert list(send(gateway, f"GET {API}/metadata?metric=up", UI).data) == ["up"]


def test_codemirror_promql_asks_with_rfc_3339_times(gateway: Gateway) -> None:
    moments = {"start": "2023-11-14T21:13:20.123Z", "end": "2023-11-14T22:13:20.456Z"}
    form = (*UI, ("Content-Type", "application/x-www-form-urlencoded"))
    assert send(gateway, f"POST {API}/labels", form, urlencode(moments).encode()).data[0] == "__name__"
    body = urlencode({**moments, "match[]": "up"}).encode()
    assert len(send(gateway, f"POST {API}/series", form, body).data) == 2
    assert send(gateway, f"GET {API}/status/flags", UI).status == 404, "which it tolerates"
