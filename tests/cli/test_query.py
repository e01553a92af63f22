"""The command that asks a query."""

from __future__ import annotations

from typing import Any

import pytest

from mimir_ray.cli.query import main

URL = "--url=http://here/prometheus/"
NOW = 1_700_000_000_000


class Server:
    """Answers always the same, and remembers what it was asked."""

    def __init__(self, **answer: Any) -> None:
        self._answer = answer
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []

    def __call__(self, url: str, parameters: dict[str, str], headers: dict[str, str]) -> dict[str, Any]:
        self.asked.append((url, parameters, headers))
        return self._answer


def success(kind: str, result: Any, **more: Any) -> Server:
    return Server(status="success", data={"resultType": kind, "result": result}, **more)


def test_a_vector_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    server = success(
        "vector",
        [
            {"metric": {"__name__": "up", "job": "a"}, "value": [1, "1"]},
            {"metric": {}, "value": [1, "0.5"]},
            {"metric": {"__name__": "h"}, "histogram": [1, {"count": "3", "sum": "4.5", "buckets": []}]},
        ],
        warnings=["PromQL warning: careful"],
    )
    assert main(["up", URL, "--tenant=team"], server, NOW) == 0
    assert server.asked == [
        ("http://here/prometheus/api/v1/query", {"query": "up", "time": "1700000000"}, {"X-Scope-OrgID": "team"})
    ]
    out, err = capsys.readouterr()
    assert out == 'up{job="a"}  1\n{}           0.5\nh            histogram count=3 sum=4.5\n'
    assert err == "PromQL warning: careful\n"


def test_a_matrix_is_a_list_of_points_a_series(capsys: pytest.CaptureFixture[str]) -> None:
    server = success("matrix", [{"metric": {"a": "1"}, "values": [[0, "1"], [60.5, "2"]]}])
    assert main(["x", URL, "--start=-1h", "--step=1m"], server, NOW) == 0
    asked = {"query": "x", "start": "1699996400", "end": "1700000000", "step": "60"}
    assert server.asked == [("http://here/prometheus/api/v1/query_range", asked, {})]
    assert capsys.readouterr().out == '{a="1"}\n  1970-01-01T00:00:00.000Z  1\n  1970-01-01T00:01:00.500Z  2\n'


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("12.5", "12.5"), ("now", "1700000000"), ("2023-11-14T22:13:20Z", "1700000000"), ("-90s", "1699999910")],
)
def test_a_time_is_said_in_many_ways(given: str, seconds: str) -> None:
    server = success("scalar", [0, "1"])
    assert main(["1", URL, f"--time={given}"], server, NOW) == 0
    assert server.asked[0][1]["time"] == seconds


def test_a_range_has_a_step_even_where_none_is_named() -> None:
    server = success("matrix", [])
    assert main(["x", URL, "--start=-1h"], server, NOW) == 0
    assert server.asked[0][1]["step"] == "60"


def test_a_plan_is_printed_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(status="success", data={"explain": "1 steps\n  Select"})
    assert main(["x", URL, "--explain"], server, NOW) == 0
    assert server.asked[0][1]["explain"] == "1"
    assert capsys.readouterr().out == "1 steps\n  Select\n"


def test_an_error_is_said_and_told_by_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["x", URL], Server(status="error", errorType="bad_data", error="no"), NOW) == 1
    assert capsys.readouterr().err == "bad_data: no\n"
    assert main(["x", URL, "--time=yesterday"], success("vector", []), NOW) == 2
    assert main(["x", "--url=http://127.0.0.1:1"], None, NOW) == 3


def test_without_a_server_it_says_where_it_looked(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["x", f"--data-dir={tmp_path}"], success("vector", []), NOW) == 3
    assert "no mimir-ray runs on" in capsys.readouterr().err
