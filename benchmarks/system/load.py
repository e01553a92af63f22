"""The load: series as a fleet of pods has them, requests of many series, senders on several connections.

A sample has a constant length on the wire (8 bytes of value, 6 of time), so a request of the same series at another
time is the same bytes with holes filled by numpy: the generator costs far less than any server.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import snappy
from servers import Server

from mimir_ray.encoding.varint import encode_uvarint
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.wire.remote_write import encode_write_request

METRICS = 50
HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
_SAMPLE_BYTES, _VALUE_AT, _TIME_AT, _TIME_BYTES = 18, 3, 12, 6
_ANY_TIME_MS = 1 << 40


def series_of(count: int, replica: str = "") -> list[Labels]:
    """`METRICS` metrics of each pod: 12 buckets of a histogram, counters `c12_total`, ..., gauges `g35`, ...

    `replica`: of the pair of Prometheus servers that sends them; empty: they are from none.
    """
    made = []
    for number in range(count):
        pod, metric = divmod(number, METRICS)
        labels = {
            "cluster": f"cluster-{pod % 2}",
            "instance": f"10.0.{pod // 250}.{pod % 250}:8080",
            "job": ("api", "web", "worker", "cache")[pod % 4],
            "namespace": f"ns-{pod % 10}",
            "node": f"node-{pod // 10}",
            "pod": f"pod-{pod}",
            "region": "region-1",
        }
        if replica:
            labels["__replica__"] = replica
        if metric < 12:
            le = "+Inf" if metric == 11 else f"{0.001 * 2**metric:g}"
            made.append(labels_of({**labels, "__name__": "latency_seconds_bucket", "le": le}))
        elif metric < 35:
            made.append(labels_of({**labels, "__name__": f"c{metric}_total", "code": "200", "method": "GET"}))
        else:
            made.append(labels_of({**labels, "__name__": f"g{metric}"}))
    return made


def values_of(count: int, scrapes: int, seed: int = 1) -> np.ndarray:
    """float64[scrapes, count]: counters that grow, buckets that are cumulative, gauges that wander."""
    random = np.random.default_rng(seed)
    metric = np.arange(count) % METRICS
    steps = random.integers(0, 30, (scrapes, count)).astype(np.float64)
    counters = np.cumsum(steps, axis=0)
    gauges = np.round(100 + np.cumsum(random.normal(0, 1, (scrapes, count)), axis=0), 3)
    pods = counters[:, (np.arange(count) // METRICS) * METRICS]
    buckets = np.floor(pods * (metric + 1) / 12)
    return np.where(metric < 12, buckets, np.where(metric < 35, counters, gauges))


class Template:
    """Requests of these series with `samples` consecutive samples each."""

    def __init__(self, series: list[Labels], samples: int = 1) -> None:
        body = bytearray()
        places = []
        for labels in series:
            body += encode_write_request([(labels, [(_ANY_TIME_MS, 0.0)] * samples)])
            places.append(len(body) - _SAMPLE_BYTES * samples)
        self._body = np.frombuffer(bytes(body), np.uint8)
        starts = np.array(places)[:, None] + _SAMPLE_BYTES * np.arange(samples)
        self._value_holes = starts[:, :, None] + _VALUE_AT + np.arange(8)
        self._time_holes = starts[:, :, None] + _TIME_AT + np.arange(_TIME_BYTES)

    def request(self, times_ms: list[int], values: np.ndarray) -> bytes:
        """`values`: float64[samples, series]."""
        body = self._body.copy()
        columns = np.ascontiguousarray(values.T, "<f8")
        body[self._value_holes] = columns.view(np.uint8).reshape(*columns.shape, 8)
        body[self._time_holes] = [np.frombuffer(encode_uvarint(time_ms), np.uint8) for time_ms in times_ms]
        return bytes(snappy.compress(body.tobytes()))


@dataclass(slots=True)
class Sent:
    """What came of a stream of requests."""

    samples: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def send(server: Server, requests: Iterator[tuple[int, bytes]], connections: int) -> Sent:
    """Sends (samples, body) pairs on several connections; each is sent once."""
    sent, lock = Sent(), threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while True:
            with lock:
                one = next(requests, None)
            if one is None:
                connection.close()
                return
            began = time.perf_counter()
            connection.request("POST", server.push, one[1], {**HEADERS, **server.headers})
            answer = connection.getresponse()
            text = answer.read()
            took = time.perf_counter() - began
            with lock:
                sent.latencies_s.append(took)
                if answer.status // 100 == 2:
                    sent.samples += one[0]
                else:
                    sent.errors.append(f"{answer.status} {text[:200]!r}")

    threads = [threading.Thread(target=work) for _ in range(connections)]
    cpu, began = server.cpu_s(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent.wall_s, sent.cpu_s = time.perf_counter() - began, server.cpu_s() - cpu
    return sent
