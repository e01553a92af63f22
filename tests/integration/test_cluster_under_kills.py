"""Three zones, replication factor 3, and whatever may happen to a cluster while it is written to and asked.

One writer sends without a pause and repeats what was not acknowledged, as Prometheus does; one reader asks for
counts and sums over what was acknowledged and compares. Neither may ever be told something wrong.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import snappy

from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.wire.remote_write import encode_write_request
from tests.integration.deployment import PUSH_HEADERS, UNLIMITED, Answer, request, wait_for
from tests.integration.several_nodes import GATEWAYS, ZonedDeployment

SERIES = 60
INTERVAL_S = 0.2
BACKOFF_S = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
"""As Prometheus' remote write, whose longest pause is 5 s."""
INGESTERS = int(os.environ.get("MIMIR_RAY_CLUSTER_INGESTERS", "3"))
"""6 in the nightly run."""
TENANT = {"X-Scope-OrgID": "tests"}
FLAGS = (
    *UNLIMITED,
    f"-deploy.ingesters={INGESTERS}",
    # Ingesters that leave have their samples read from the bucket at once.
    "-querier.query-store-after=0s",
    "-blocks-storage.bucket-store.sync-interval=1s",
    "-compactor.cleanup-interval=1s",
    "-ingester.ring.min-ready-duration=0s",
    "-distributor.ha-tracker.enable",
    "-distributor.ha-tracker.enable-for-all-users",
    "-distributor.ha-tracker.max-clusters=1",
    "-distributor.ha-tracker.update-timeout=1s",
    "-distributor.ha-tracker.update-timeout-jitter-max=0s",
    "-distributor.ha-tracker.failover-timeout=3s",
    # 3 in the nightly run; else it follows from the zones.
    f"-ingester.ring.replication-factor={3 if INGESTERS > 3 else 0}",
)


def value_of(number: int, time_ms: int) -> int:
    """Small integers: their sums are exact in any order."""
    return number * 1000 + time_ms % 1000


def series_of(number: int) -> Labels:
    return labels_of({"__name__": "written", "number": str(number)})


class Writer(threading.Thread):
    def __init__(self, cluster: ZonedDeployment) -> None:
        super().__init__(name="writer")
        self.acknowledged: list[int] = []
        """Times of samples, ms, ascending; whatever was sent and is not in here is the last one."""
        self.refused: list[str] = []
        self.retries = 0
        self.slowest_s = 0.0
        self._cluster = cluster
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            time_ms = int(time.time() * 1000)
            batch = [(series_of(number), [(time_ms, float(value_of(number, time_ms)))]) for number in range(SERIES)]
            batch.append((labels_of({"__name__": "born", "at": str(time_ms)}), [(time_ms, 1.0)]))
            body = snappy.compress(encode_write_request(batch))
            began, attempt = time.monotonic(), 0
            while not self._sent(body):
                self.retries += 1
                self._ended.wait(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
                attempt += 1
                if self._ended.is_set():
                    return
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.acknowledged.append(time_ms)
            self._ended.wait(INTERVAL_S)

    def _sent(self, body: bytes) -> bool:
        try:
            answer = self._cluster.ask("POST", "/api/v1/push", body, {**PUSH_HEADERS, **TENANT})
        except OSError:
            return False
        if 400 <= answer.status < 500:
            self.refused.append(f"{answer.status} {answer.text}")
        return answer.status < 300

    def end(self) -> None:
        self._ended.set()
        self.join(60)


class Reader(threading.Thread):
    def __init__(self, cluster: ZonedDeployment, writer: Writer) -> None:
        super().__init__(name="reader")
        self.answers = 0
        self.retries = 0
        self.wrong: list[str] = []
        self._cluster = cluster
        self._writer = writer
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            times = list(self._writer.acknowledged)
            if times:
                self._check(times)

    def _check(self, times: list[int]) -> None:
        """All that was acknowledged until now, whatever comes in meanwhile."""
        seconds = (times[-1] - times[0]) // 1000 + 60
        wanted = {
            "count_over_time": float(SERIES * len(times)),
            "sum_over_time": float(sum(value_of(number, at) for at in times for number in range(SERIES))),
        }
        for function, value in wanted.items():
            found = ask(self._cluster, f"sum({function}(written[{seconds}s]))", times[-1])
            if found is None:
                self.retries += 1
                continue
            self.answers += 1
            if [float(one["value"][1]) for one in found] != [value]:
                self.wrong.append(f"{function} at {times[-1]}: {found}, wanted {value}; ring {self._cluster.ring()}")

    def end(self) -> None:
        self._ended.set()
        self.join(60)


def ask(cluster: ZonedDeployment, query: str, time_ms: int) -> list[dict[str, Any]] | None:
    """The result of an instant query; None where it is to be asked again."""
    path = f"/prometheus/api/v1/query?{urlencode({'query': query, 'time': f'{time_ms / 1000:.3f}'})}"
    try:
        answer = cluster.ask("GET", path, headers=TENANT)
    except OSError:
        return None
    if answer.status >= 500:
        return None
    assert answer.status == 200, answer.text
    return answer.json["data"]["result"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZonedDeployment]:
    one = ZonedDeployment(tmp_path_factory.mktemp("zones"), FLAGS)
    try:
        one.deployment.start()
        wait_for("all ingesters take writes", lambda: one.all_active(INGESTERS), timeout_s=60)
        yield one
    finally:
        one.end()


@pytest.fixture(scope="module")
def clients(cluster: ZonedDeployment) -> Iterator[tuple[Writer, Reader]]:
    writer = Writer(cluster)
    reader = Reader(cluster, writer)
    writer.start()
    reader.start()
    yield writer, reader
    writer.end()
    reader.end()


@pytest.fixture(autouse=True)
def both_go_on(clients: tuple[Writer, Reader]) -> Iterator[None]:
    """Before, during and after each test; and nobody was told anything wrong."""
    writer, reader = clients
    yield
    if not writer.is_alive():
        return
    written, answered = len(writer.acknowledged), reader.answers
    wait_for("writes succeed", lambda: len(writer.acknowledged) >= written + 2, timeout_s=60)
    wait_for("queries are answered", lambda: reader.answers >= answered + 2, timeout_s=60)
    assert not writer.refused
    assert not reader.wrong


def test_an_ingester_dies(cluster: ZonedDeployment, clients: tuple[Writer, Reader]) -> None:
    writer, _ = clients
    wait_for("the writer is under way", lambda: len(writer.acknowledged) >= 10)
    before = len(writer.acknowledged)
    cluster.signal_actor("IngesterActor", "zone-a")
    wait_for("writes go on with two of three", lambda: len(writer.acknowledged) >= before + 10)
    wait_for("it is back", lambda: cluster.all_active(INGESTERS), timeout_s=120)


def test_an_ingester_stalls_and_goes_on(cluster: ZonedDeployment, clients: tuple[Writer, Reader]) -> None:
    """Everybody else thinks that it is alive. It is sent a few calls and no more, and has not to be waited for."""
    writer, reader = clients
    before, answers = len(writer.acknowledged), reader.answers
    cluster.signal_actor("IngesterActor", "zone-c", signal.SIGSTOP)
    try:
        wait_for("writes go on", lambda: len(writer.acknowledged) >= before + 10)
        wait_for("queries too", lambda: reader.answers >= answers + 6, timeout_s=60)
        wait_for(
            "queries have found out", lambda: cluster.deployment.metric('instance_probes_total{outcome="no answer"}')
        )
        assert 0 < cluster.deployment.metric('calls_inflight{ingester="ingester-2"}') <= 2
    finally:
        cluster.signal_actor("IngesterActor", "zone-c", signal.SIGCONT)
    wait_for("it answers", lambda: cluster.deployment.metric('calls_inflight{ingester="ingester-2"}') == 0)


def of_pair(replica: str, pair: str = "pair") -> bytes:
    labels = labels_of({"__name__": "of_pair", "cluster": pair, "__replica__": replica})
    return snappy.compress(encode_write_request([(labels, [(int(time.time() * 1000), 1.0)])]))


def test_a_pair_has_one_elected_replica_at_all_gateways_whatever_the_ring_goes_through(
    cluster: ZonedDeployment,
) -> None:
    def push(gateway: int, replica: str, pair: str = "pair") -> Answer:
        headers = {**PUSH_HEADERS, "X-Scope-OrgID": "pairs"}
        return request(cluster.deployment.port + gateway, "POST", "/api/v1/push", of_pair(replica, pair), headers)

    def elected() -> set[str]:
        headers = {"Accept": "application/json"}
        pages = [
            request(cluster.deployment.port + at, "GET", "/distributor/ha_tracker", headers=headers).json["elected"]
            for at in range(GATEWAYS)
        ]
        return {one["replica"] for page in pages for one in page if one["userID"] == "pairs"}

    def takes_again(gateway: int, replica: str) -> bool:
        return push(gateway, replica).status == 200

    assert push(0, "a").status == 200
    assert [push(at, "b").status for at in (1, 0)] == [202, 202]
    assert push(1, "a").status == 200
    assert elected() == {"a"}
    assert "too-many-ha-clusters" in push(1, "a", "another").text
    (ring,) = cluster.deployment.pids_of("ray::RingActor")
    os.kill(ring, signal.SIGKILL)
    wait_for("Ray starts another", lambda: cluster.deployment.pids_of("ray::RingActor") not in ([], [ring]))
    wait_for("a is taken", lambda: takes_again(0, "a"))
    assert elected() == {"a"}, "the ring has not forgotten"
    assert push(1, "b").status == 202
    # a is silent from here on.
    wait_for("b is elected", lambda: takes_again(1, "b"))
    assert push(0, "a").status == 202
    assert elected() == {"b"}


def test_a_whole_node_dies_and_comes_back(cluster: ZonedDeployment, clients: tuple[Writer, Reader]) -> None:
    writer, reader = clients
    before, answers = len(writer.acknowledged), reader.answers
    cluster.kill_node("zone-b")
    wait_for("writes go on with two zones", lambda: len(writer.acknowledged) >= before + 10)
    wait_for("queries too", lambda: reader.answers >= answers + 4, timeout_s=60)
    cluster.start_node("zone-b")
    wait_for("its ingesters are back", lambda: cluster.all_active(INGESTERS), timeout_s=120)


def test_all_ingesters_are_rolled_one_after_the_other(cluster: ZonedDeployment) -> None:
    said = cluster.scale("--roll")
    assert said.count("again") == INGESTERS


def test_two_ingesters_are_added(cluster: ZonedDeployment) -> None:
    cluster.scale(f"-deploy.ingesters={INGESTERS + 2}")
    assert cluster.all_active(INGESTERS + 2)


def test_two_ingesters_are_removed(cluster: ZonedDeployment) -> None:
    cluster.scale(f"-deploy.ingesters={INGESTERS}")
    assert cluster.all_active(INGESTERS)


def test_every_acknowledged_sample_is_there_exactly_once(
    cluster: ZonedDeployment, clients: tuple[Writer, Reader]
) -> None:
    """Runs last."""
    writer, reader = clients
    writer.end()
    reader.end()
    times = writer.acknowledged
    seconds = (times[-1] - times[0]) // 1000 + 60
    found = wait_for("the checker is answered", lambda: ask(cluster, f"written[{seconds}s]", times[-1]))
    assert len(found) == SERIES
    for one in found:
        number = int(one["metric"]["number"])
        assert [(round(at * 1000), float(value)) for at, value in one["values"]] == [
            (at, float(value_of(number, at))) for at in times
        ]
    born = wait_for("the checker is answered", lambda: ask(cluster, f"born[{seconds}s]", times[-1]))
    assert sorted((int(one["metric"]["at"]), len(one["values"])) for one in born) == [(at, 1) for at in times]
