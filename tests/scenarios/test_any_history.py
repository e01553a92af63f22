"""Any history of samples through ingesters, bucket, compactors and store-gateways answers as the plain list does.

Appends in order, late and again, stale markers, histograms; restarts, head compactions, flushes, shipping, compaction
in the bucket by the compactor's own code, blocks that leave the ingesters; two replicas of everything, or one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ray.config.limits import Limits
from mimir_ray.config.units import Duration
from mimir_ray.model.float_histogram import FloatHistogram
from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.selection import Selection
from mimir_ray.model.series import STALE_NAN
from mimir_ray.roles.ingester.config import TsdbConfig
from mimir_ray.testing.blocks import content
from mimir_ray.testing.sources import Value
from mimir_ray.wire.pb.prompb import remote_pb2
from tests.roles.compactor.world import World, ring_of

from .cluster import NOW_MS, TENANT, Cluster, close_to

MINUTE = 60_000
STEP = 10_000
ROUND = 6
"""Steps that one append goes on in time."""
START = (NOW_MS - 60 * MINUTE) // (8 * MINUTE) * (8 * MINUTE)
SERIES = 5
HISTOGRAMS = 2
TSDB = TsdbConfig(block_ranges_period=(Duration(2 * MINUTE),), retention_period=Duration(MINUTE))
QUERIES = (
    "m",
    "sum by (zone) (rate(m[3m]))",
    "count_over_time(m[100m])",
    "histogram_count(latency)",
    "histogram_sum(sum(rate(latency[3m])))",
    "count({__name__=~'.+'}) by (__name__)",
)
FLOATS = Selection((Matcher(MatchType.EQUAL, "__name__", "m"),), 0, 1 << 50)
EVENTS = ("append", "late", "again", "cut", "flush", "ship", "compact", "leave", "restart", "restart gateway")
Sample = tuple[Labels, int, Value]


@dataclass
class History:
    """A cluster that ships into a bucket, compactors of that bucket, and what was and will be sent."""

    directory: Path
    cluster: Cluster
    chance: random.Random
    shards: int
    sent: list[Sample] = field(default_factory=list)
    held: list[Sample] = field(default_factory=list)
    """Scraped, and on its way yet."""
    step: int = 0

    def __post_init__(self) -> None:
        self.world = World(
            self.directory,
            self.cluster.bucket,
            block_ranges=tuple(Duration(minutes * MINUTE) for minutes in (2, 4, 8)),
            deletion_delay=Duration(2 * MINUTE),
        )
        self.world.clock = self.cluster.clock
        self.world.limits[TENANT] = Limits(compactor_split_and_merge_shards=self.shards)
        ring = ring_of("a", "b")
        self.compactors = [self.world.compactor(name, lambda: ring) for name in ("a", "b")]

    def append(self) -> None:
        """The next scrapes, some of which come late."""
        now: list[Sample] = []
        for step in range(self.step, self.step + ROUND):
            for sample in scrape(step):
                (self.held if self.chance.random() < 0.15 else now).append(sample)
        self.step += ROUND
        self._push(now)

    def late(self) -> None:
        self.chance.shuffle(self.held)
        some = len(self.held) // 2 + 1
        self._push(self.held[:some])
        del self.held[:some]

    def again(self) -> None:
        """What a sender repeats that did not hear of its success."""
        self._push(self.chance.sample(self.sent, min(30, len(self.sent))))

    def cut(self) -> None:
        for node in self.cluster.nodes.values():
            node.ingester.compact()

    def flush(self) -> None:
        for node in self.cluster.nodes.values():
            node.ingester.flush()

    def ship(self) -> None:
        for node in self.cluster.nodes.values():
            node.ingester.ship()

    def compact(self) -> None:
        """One run of each compactor, and bucket indexes that are read."""
        for compactor in self.compactors:
            compactor.compact_all()
        self._index()

    def leave(self) -> None:
        """Blocks leave the ingesters once they have been in the bucket, and in its index, for long enough."""
        self.ship()
        self._index()
        self.cluster.pass_time(70)
        self.ship()

    def restart(self) -> None:
        self.cluster.restart(self.chance.choice(sorted(self.cluster.nodes)))

    def restart_gateway(self) -> None:
        number = self.chance.choice(sorted(self.cluster.gateways))
        self.cluster.kill_gateway(number)
        self.cluster.start_gateway(number)

    def _index(self) -> None:
        for compactor in self.compactors:
            compactor.cleaner.clean_all()
        self.cluster.sync()

    def _push(self, samples: list[Sample]) -> None:
        if samples:
            self.cluster.push_raw(request_of(samples))
        for labels, at, value in samples:
            self.cluster.written.add(labels, [(at, value)])
        self.sent += samples

    def check(self) -> None:
        cluster, end = self.cluster, START + self.step * STEP
        assert content(cluster.source(), FLOATS) == content(cluster.written, FLOATS)
        for query in QUERIES:
            assert close_to(cluster.instant(query, end), cluster.expected(query, end)), query
            found = cluster.range(query, START, end, 45_000)
            assert close_to(found, cluster.expected_range(query, START, end, 45_000)), query
        everything = Selection((), 0, 1 << 50)
        wanted = {labels for labels, points in cluster.written.series.items() if points}
        assert cluster.source().label_names(everything) == sorted({name for one in wanted for name, _ in one})


def scrape(step: int) -> list[Sample]:
    """Series come and go; one has stale markers."""
    at = START + step * STEP
    found: list[Sample] = []
    for number in range(SERIES):
        if step % 30 < 5 * number and number > 2:
            continue
        value: Value = STALE_NAN if number == 1 and step % 9 == 8 else float(step * (number + 1) % 100)
        found.append((labels_of({"__name__": "m", "i": str(number), "zone": "ab"[number % 2]}), at, value))
    for number in range(HISTOGRAMS):
        found.append((labels_of({"__name__": "latency", "i": str(number)}), at, FloatHistogram(
            schema=1, zero_threshold=1e-3, zero_count=float(step), count=float(step), sum=float(7 * step + number)
        )))  # fmt: skip
    return found


def request_of(samples: list[Sample]) -> bytes:
    """A remote-write request."""
    body = remote_pb2.WriteRequest()
    grouped: dict[Labels, list[tuple[int, Value]]] = {}
    for labels, at, value in samples:
        grouped.setdefault(labels, []).append((at, value))
    for labels, points in grouped.items():
        series = body.timeseries.add()
        for name, text in labels:
            series.labels.add(name=name, value=text)
        for at, value in sorted(points, key=lambda point: point[0]):
            if isinstance(value, FloatHistogram):
                one: dict[str, Any] = {"zero_count_int": int(value.zero_count), "count_int": int(value.count)}
                series.histograms.add(schema=1, sum=value.sum, timestamp=at, zero_threshold=1e-3, **one)
            else:
                series.samples.add(value=value, timestamp=at)
    return body.SerializeToString()


@given(
    events=st.lists(st.sampled_from(EVENTS), min_size=4, max_size=16),
    seed=st.integers(0, 1 << 16),
    replicas=st.sampled_from([1, 2]),
    shards=st.sampled_from([0, 2]),
)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_history_answers_as_the_plain_list_of_its_samples(
    tmp_path_factory: pytest.TempPathFactory, events: list[str], seed: int, replicas: int, shards: int
) -> None:
    folder = tmp_path_factory.mktemp("history")
    with Cluster(folder, ingesters=2, replication_factor=replicas, store_gateways=2, tsdb=TSDB) as cluster:
        history = History(folder, cluster, random.Random(seed), shards)
        history.append()
        for event in events:
            getattr(history, event.replace(" ", "_"))()
        history.check()
        history.append()
        history.flush()
        history.leave()
        history.compact()
        entries = [entry for node in cluster.nodes.values() for entry in node.ingester._entries()]
        assert entries and not any(entry.database.blocks.metas for entry in entries)
        history.check()
