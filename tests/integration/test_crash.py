"""What was acknowledged survives the death of any process, and of all of them; and nothing is there twice.

A writer goes on while processes are killed, as a sender would: it repeats what was not acknowledged.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from mimir_ray.model.labels import Labels, labels_of
from tests.integration.deployment import TENANT, UNLIMITED, Deployment, wait_for

FLAGS = (
    *UNLIMITED,
    "-deploy.ingesters=2",
    # As small as they may be, so that segments are cut and checkpoints written while processes die.
    "-blocks-storage.tsdb.wal-segment-size-bytes=1MiB",
    "-blocks-storage.tsdb.wal-checkpoint-size-bytes=1MiB",
    # Heads are cut into blocks all the time, and those uploaded.
    "-blocks-storage.tsdb.block-ranges-period=3s",
    "-blocks-storage.tsdb.head-compaction-interval=1s",
    "-blocks-storage.tsdb.ship-interval=1s",
    # Half of a range is shorter than some deaths: what is sent again after them comes late.
    "-ingester.out-of-order-time-window=1h",
)
SERIES = 400
INTERVAL_MS = 100
QUIET_S = 1.5
"""The writer goes on for so long before and after a death."""


class Writer(threading.Thread):
    """Sends one sample of each of `SERIES` series at a time, and one of a series that is new each time.

    What is not acknowledged is sent again, as it was. Every sample has a value of its own, so that one in a wrong
    place shows.
    """

    def __init__(self, deployment: Deployment, name: str) -> None:
        super().__init__(name=name)
        self.series: list[Labels] = [
            labels_of({"__name__": "written", "writer": name, "number": str(number)}) for number in range(SERIES)
        ]
        self.acknowledged: list[int] = []
        """Times, ms."""
        self.maybe: int | None = None
        """Sent, but neither acknowledged nor refused when the writer stopped."""
        self.refused: list[str] = []
        self.failures = 0
        self._deployment = deployment
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            now_ms = int(time.time() * 1000)
            while not self._ended.is_set() and not self._sent(now_ms):
                self._ended.wait(0.05)
            self._ended.wait(INTERVAL_MS / 1000)

    def _sent(self, time_ms: int) -> bool:
        batch = [(labels, [(time_ms, value_of(number, time_ms))]) for number, labels in enumerate(self.series)]
        batch.append((labels_of({"__name__": "born", "writer": self.name, "at": str(time_ms)}), [(time_ms, 1.0)]))
        try:
            answer = self._deployment.push(batch)
        except OSError:
            self.maybe = time_ms
            self.failures += 1
            return False
        if 400 <= answer.status < 500:
            self.refused.append(f"{answer.status} {answer.text}")
        if answer.status >= 500:
            self.maybe = time_ms
            self.failures += 1
            return False
        self.maybe = None
        self.acknowledged.append(time_ms)
        return True

    def end(self) -> None:
        self._ended.set()
        self.join(60)


def value_of(number: int, time_ms: int) -> float:
    return number * 1e7 + time_ms % 10_000_000


@contextmanager
def writing(deployment: Deployment, name: str) -> Iterator[Writer]:
    """A writer that writes before, during and after the block, and was then found whole."""
    writer = Writer(deployment, name)
    writer.start()
    try:
        wait_for("the writer is under way", lambda: len(writer.acknowledged) >= 5)
        time.sleep(QUIET_S)
        yield writer
        before = len(writer.acknowledged)
        wait_for("writes succeed again", lambda: len(writer.acknowledged) >= before + 5, timeout_s=60)
        time.sleep(QUIET_S)
    finally:
        writer.end()
    assert not writer.refused
    assert_whole(deployment, writer)


def samples(deployment: Deployment, writer: Writer, seconds: int) -> dict[str, list[Any]]:
    """Number of the series → [[time, value], ...], asked again while an ingester is coming back."""
    query = f'written{{writer="{writer.name}"}}[{seconds}s]'

    def ask() -> Any:
        answer = deployment.ask("query", query=query, time=time.time())
        return answer if answer.status < 500 else None

    answer = wait_for("queries are answered", ask, timeout_s=60)
    assert answer.status == 200, answer.text
    return {one["metric"]["number"]: one["values"] for one in answer.json["data"]["result"]}


def assert_whole(deployment: Deployment, writer: Writer) -> None:
    """Every acknowledged sample is there, and what else is there may only be the last one sent."""
    seconds = int(time.time() - writer.acknowledged[0] / 1000) + 10
    found = samples(deployment, writer, seconds)
    assert len(found) == SERIES
    for number in range(SERIES):
        points = found[str(number)]
        times = [round(time_s * 1000) for time_s, _ in points]
        assert times == sorted(set(times)), "in order, and each once"
        missing = set(writer.acknowledged) - set(times)
        assert not missing, f"series {number}: {len(missing)} of {len(writer.acknowledged)} acknowledged are gone"
        assert set(times) - set(writer.acknowledged) <= {writer.maybe}
        assert all(float(value) == value_of(number, at) for at, (_, value) in zip(times, points, strict=True))
    born = deployment.result("query", query=f'born{{writer="{writer.name}"}}[{seconds}s]', time=time.time())["result"]
    births = [int(one["metric"]["at"]) for one in born]
    assert len(set(births)) == len(births)
    assert set(writer.acknowledged) <= set(births) <= {*writer.acknowledged, writer.maybe}
    assert all(len(one["values"]) == 1 for one in born)
    counted = deployment.result(
        "query", query=f'sum(count_over_time(written{{writer="{writer.name}"}}[{seconds}s]))', time=time.time()
    )
    assert float(counted["result"][0]["value"][1]) == sum(map(len, found.values()))


def test_samples_survive_the_death_of_an_ingester(deployment: Deployment) -> None:
    with writing(deployment, "ingester"):
        before = set(deployment.pids_of("ray::IngesterActor"))
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        wait_for(
            "Ray starts another",
            lambda: len(now := set(deployment.pids_of("ray::IngesterActor"))) == 2 and now != before,
            timeout_s=60,
        )


def test_samples_survive_the_death_of_all_ingesters(deployment: Deployment) -> None:
    with writing(deployment, "ingesters") as writer:
        for pid in deployment.pids_of("ray::IngesterActor"):
            os.kill(pid, signal.SIGKILL)
        before = len(writer.acknowledged)
    assert len(writer.acknowledged) > before


def test_an_ingester_that_stalls_costs_a_moment_and_no_threads(deployment: Deployment) -> None:
    """It is alive to Ray and to the ring, and says nothing: whoever needs it is told soon, and nobody else waits."""
    with writing(deployment, "stalled") as writer:
        stalled = min(deployment.pids_of("ray::IngesterActor"))
        os.kill(stalled, signal.SIGSTOP)
        try:
            before = writer.failures
            wait_for("writes are answered with an error", lambda: writer.failures > before)
            with ThreadPoolExecutor(30) as pool:  # more than the gateway has threads for queries
                answers = list(pool.map(lambda _: deployment.ask("query", query="sum(written)"), range(30)))
            assert {one.status for one in answers} == {503}, [one.text for one in answers]
            assert deployment.result("query", query="1 + 1")["result"][1] == "2"
            assert deployment.metric("cortex_distributor_ingester_calls_inflight{") == 2
        finally:
            os.kill(stalled, signal.SIGCONT)


def test_writes_go_on_while_the_ring_is_dead(deployment: Deployment) -> None:
    with writing(deployment, "ring") as writer:
        (ring,) = deployment.pids_of("ray::RingActor")
        os.kill(ring, signal.SIGKILL)
        wait_for("Ray starts another", lambda: deployment.pids_of("ray::RingActor") not in ([], [ring]), timeout_s=60)
        wait_for("all is ready", lambda: deployment.get("/ready").status == 200, timeout_s=60)
    assert writer.failures == 0


def test_samples_survive_the_death_of_the_gateway(deployment: Deployment) -> None:
    with writing(deployment, "gateway") as writer:
        (gateway,) = deployment.pids_of("ray::GatewayActor")
        os.kill(gateway, signal.SIGKILL)
    assert writer.failures


def test_samples_survive_the_death_of_everything(deployment: Deployment) -> None:
    with writing(deployment, "everything") as writer:
        deployment.kill()
        assert not deployment.pids()
        deployment.start()
    assert writer.failures


def test_samples_survive_an_orderly_restart(deployment: Deployment) -> None:
    with writing(deployment, "restart") as writer:
        assert deployment.stop(signal.SIGTERM) == 0
        assert not deployment.pids()
        deployment.start()
    assert writer.failures


def test_meanwhile_blocks_went_into_the_bucket(deployment: Deployment) -> None:
    metas = [json.loads(path.read_bytes()) for path in deployment.data.glob(f"blocks/{TENANT}/*/meta.json")]
    assert len(metas) > 5
    assert all(meta["thanos"]["source"] == "receive" for meta in metas)


@pytest.mark.parametrize("name", ["ingester", "ingesters", "stalled", "ring", "gateway", "everything", "restart"])
def test_older_samples_are_still_whole_after_all_of_that(name: str, deployment: Deployment) -> None:
    """Runs last: restarts that came later must not have touched what earlier tests wrote."""
    found = deployment.result("query", query=f'count_over_time(written{{writer="{name}"}}[1h])', time=time.time())
    counts = {one["value"][1] for one in found["result"]}
    assert len(found["result"]) == SERIES
    assert len(counts) == 1
    assert float(counts.pop()) > 2 * QUIET_S * 1000 / (INTERVAL_MS * 4)
