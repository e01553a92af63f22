from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from mimir_ray.encoding.hashing import xxhash64_of
from mimir_ray.errors import Unavailable
from mimir_ray.model.labels import Labels
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.model.metadata import Metadata
from mimir_ray.promql.source import Selection, Shard
from mimir_ray.testing.contracts import SERIES_SOURCE_CHECKS, MakeSource, Series
from mimir_ray.testing.writes import label_section, write_batch
from mimir_ray.tsdb.chunks.files import ChunkFiles
from mimir_ray.tsdb.head.head import Head
from mimir_ray.tsdb.head.settings import HeadSettings, PushLimits

ALL = Selection((Matcher(MatchType.REGEX, "__name__", ".+"),), -(1 << 60), 1 << 60)
A: Labels = (("__name__", "a"), ("x", "1"))
B: Labels = (("__name__", "a"), ("x", "2"))
C: Labels = (("__name__", "c"), ("y", "3"))


@pytest.fixture
def make_head(tmp_path: Path) -> Callable[..., Head]:
    numbers = itertools.count()
    return lambda settings=None: Head(ChunkFiles(tmp_path / f"{next(numbers)}"), settings)


@pytest.fixture
def head(make_head: Callable[..., Head]) -> Head:
    return make_head()


def content(head: Head, selection: Selection = ALL) -> dict[Labels, list[tuple[int, float]]]:
    found = {}
    for batch in head.select(selection):
        for row, labels in enumerate(batch.labels.to_labels()):
            part = slice(batch.offsets[row], batch.offsets[row + 1])
            found[labels] = list(zip(batch.timestamps[part].tolist(), batch.values[part].tolist(), strict=True))
    return found


@pytest.mark.parametrize("flushed", ["in the log", "in chunks", "in both"])
@pytest.mark.parametrize("check", SERIES_SOURCE_CHECKS, ids=lambda check: check.__name__)
def test_a_head_is_a_series_source(
    check: Callable[[MakeSource], None], flushed: str, make_head: Callable[..., Head]
) -> None:
    def make(series: Sequence[Series]) -> Head:
        head = make_head()
        half = [(labels, points[: len(points) // 2]) for labels, points in series]
        rest = [(labels, points[len(points) // 2 :]) for labels, points in series]
        limits = PushLimits(out_of_order_window_ms=3_600_000)
        for part in (half, rest):
            assert all(result.error is None for result in head.push([write_batch(new=part)], 0, limits))
            if flushed == "in chunks" or (flushed == "in both" and part is half):
                head.flush()
        return head

    check(make)


def test_a_reference_is_as_good_as_labels_and_labels_find_it_again(head: Head) -> None:
    first = head.push([write_batch(new=[(A, [(1, 1.0)]), (B, [(1, 2.0)])])], 0)[0]
    assert first.new_references.tolist() == [0, 1]
    again = head.push([write_batch(first.incarnation, known=[(1, 2, 3.0)], new=[(C, [(2, 4.0)]), (A, [(2, 5.0)])])], 0)[
        0
    ]
    assert again.new_references.tolist() == [2, 0]
    assert not again.stale
    assert content(head) == {A: [(1, 1.0), (2, 5.0)], B: [(1, 2.0), (2, 3.0)], C: [(2, 4.0)]}


def test_references_of_another_incarnation_are_not_looked_at(head: Head) -> None:
    known = head.push([write_batch(new=[(A, [(1, 1.0)])])], 0)[0]
    result = head.push([write_batch(known.incarnation + 1, known=[(0, 2, 2.0)], new=[(B, [(2, 2.0)])])], 0)[0]
    assert result.stale
    assert content(head) == {A: [(1, 1.0)], B: [(2, 2.0)]}


def test_references_that_were_never_given_are_unknown(head: Head) -> None:
    known = head.push([write_batch(new=[(A, [(1, 1.0)])])], 0)[0]
    result = head.push(
        [write_batch(known.incarnation, known=[(-1, 2, 2.0), (0, 2, 2.0), (1, 2, 2.0), (-2, 2, 2.0)])], 0
    )[0]
    assert result.unknown.tolist() == [0, 2, 3]
    assert not result.refusals
    assert content(head) == {A: [(1, 1.0), (2, 2.0)]}


def test_each_reason_names_its_first_sample_and_counts_the_others(head: Head) -> None:
    hour = 3_600_000
    known = head.push([write_batch(new=[(A, [(10 * hour, 1.0)]), (B, [(10 * hour, 1.0)])])], 0)[0]
    late = 10 * hour - 1
    samples = [(0, 10 * hour, 1.0), (1, 10 * hour, 9.0), (0, late, 1.0), (1, late, 1.0), (0, 9 * hour - 1, 1.0)]
    result = head.push([write_batch(known.incarnation, known=samples)], 0)[0]
    assert {(one.reason, one.sample, one.timestamp, one.count, one.series) for one in result.refusals} == {
        ("sample-duplicate-timestamp", 1, 10 * hour, 1, '{__name__="a", x="2"}'),
        ("sample-out-of-order", 2, late, 2, '{__name__="a", x="1"}'),
        ("sample-timestamp-too-old", 4, 9 * hour - 1, 1, '{__name__="a", x="1"}'),
    }


def test_limits_refuse_new_series_only(head: Head) -> None:
    head.push([write_batch(new=[(A, [(1, 1.0)])])], 0)
    result = head.push([write_batch(new=[(A, [(2, 1.0)]), (C, [(2, 1.0)])])], 0, PushLimits(series_max=1))[0]
    assert result.new_references.tolist() == [0, -1]
    (refusal,) = result.refusals
    assert (refusal.reason, refusal.sample, refusal.limit) == ("max-series-per-user", 1, 1)
    assert refusal.series == '{__name__="c", y="3"}'
    result = head.push([write_batch(new=[(B, [(2, 1.0)]), (C, [(2, 1.0)])])], 0, PushLimits(metric_series_max=1))[0]
    assert [one.reason for one in result.refusals] == ["max-series-per-metric"]
    assert content(head) == {A: [(1, 1.0), (2, 1.0)], C: [(2, 1.0)]}


@pytest.mark.parametrize("damaged", [b"\x0b\x00", b"\x0a\x7f", b"\x0a\x02\x0a\x05", b"\x0a", b"\x0a" + b"\xff" * 11])
def test_malformed_labels_fail_the_batch_and_store_nothing(head: Head, damaged: bytes) -> None:
    batch = write_batch(new=[(A, [(1, 1.0)]), (B, [(1, 1.0)])])
    batch.label_bytes = label_section(A) + damaged
    batch.label_offsets = np.array([0, len(label_section(A)), len(batch.label_bytes)], np.int64)
    result, good = head.push([batch, write_batch(new=[(C, [(1, 1.0)])])], 0)
    assert result.error is not None
    assert good.error is None
    assert content(head) == {C: [(1, 1.0)]}


def test_a_journal_that_fails_stops_everything_until_its_records_are_written(head: Head) -> None:
    written: list[int] = []
    broken = True

    def journal(records: list[tuple[int, list[object]]]) -> None:
        if broken:
            raise Unavailable("disk full")
        written.extend(kind for kind, _ in records)

    head.journal = journal
    batch = write_batch(new=[(A, [(1, 1.0)])])
    assert head.push([batch], 0)[0].error is not None
    assert head.push([batch], 0)[0].error is not None
    broken = False
    assert head.push([batch], 0)[0].error is None
    assert written == [1, 2], "the series and the sample of the first attempt, once"


def test_dropped_series_are_not_found_and_their_references_are_unknown(head: Head) -> None:
    hour = 3_600_000
    known = head.push([write_batch(new=[(A, [(hour, 1.0)]), (B, [(hour, 1.0)])])], 0)[0]
    head.push([write_batch(known.incarnation, known=[(1, 2 * hour, 1.0)])], 0)
    head.truncate(2 * hour)
    assert head.collect() == 1
    assert content(head) == {B: [(2 * hour, 1.0)]}
    assert head.label_values("x", ALL) == ["2"]
    assert head.label_values("x", Selection((), -(1 << 60), 1 << 60)) == ["2"]
    assert head.stats.series == 1
    result = head.push([write_batch(known.incarnation, known=[(0, 2 * hour, 5.0)], new=[(A, [(2 * hour, 6.0)])])], 0)[0]
    assert result.unknown.tolist() == [0]
    assert result.new_references.tolist() == [2]
    assert content(head)[A] == [(2 * hour, 6.0)]


def test_shards_are_prometheus_stable_hash_modulo_their_count(head: Head) -> None:
    many = [((("__name__", "m"), ("n", str(n))), [(1, float(n))]) for n in range(50)]
    head.push([write_batch(new=many)], 0)
    for index in range(3):
        expected = {
            labels
            for labels, _ in many
            if xxhash64_of(b"".join(name.encode() + b"\xff" + value.encode() + b"\xff" for name, value in labels)) % 3
            == index
        }
        assert content(head, Selection(ALL.matchers, 0, 10, shard=Shard(index, 3))).keys() == expected


def test_names_values_and_metadata(head: Head) -> None:
    gauge = Metadata("a", "gauge", "what it is", "s")
    head.push([write_batch(new=[(A, [(1, 1.0)]), (B, [(50, 1.0)]), (C, [(99, 1.0)])], metadata=(gauge,))], 0)
    everything = Selection((), 0, 100)
    assert head.label_names(everything) == ["__name__", "x", "y"]
    assert head.label_values("x", everything) == ["1", "2"]
    assert head.label_values("nope", everything) == []
    assert head.label_values("x", Selection((), 40, 60)) == ["2"]
    assert head.label_names(Selection((Matcher(MatchType.EQUAL, "y", "3"),), 0, 100)) == ["__name__", "y"]
    assert head.metadata() == head.metadata("a") == [gauge]
    assert head.metadata("b") == []
    assert head.series_count() == 3
    assert head.series_count((Matcher(MatchType.EQUAL, "__name__", "a"),)) == 2


def test_an_empty_head_takes_less_than_a_megabyte(head: Head) -> None:
    assert head.stats.bytes < 1 << 20


def test_a_reader_sees_every_push_before_it_and_nothing_half(make_head: Callable[..., Head]) -> None:
    """Each push writes one sample to every series, so series of equal length are a consistent moment."""
    head = make_head(HeadSettings(log_capacity_min=64, log_capacity_max=256, log_samples_per_series=1))
    series = [((("__name__", "m"), ("n", str(n))), [(0, 0.0)]) for n in range(20)]
    known = head.push([write_batch(new=series)], 0)[0]
    acknowledged = 0
    problems: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set() and not problems:
            least = acknowledged
            batches = head.select(Selection(ALL.matchers, 0, 1 << 40, batch_series=7))
            most = acknowledged + 1
            lengths = set()
            for batch in batches:
                for start, end in itertools.pairwise(batch.offsets.tolist()):
                    lengths.add(end - start)
                    if batch.timestamps[start:end].tolist() != list(range(0, 10 * (end - start), 10)):
                        problems.append("not a prefix")
            if len(lengths) != 1 or not least <= lengths.pop() - 1 <= most:
                problems.append(f"series of different moments: {lengths}")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(1, 400):
        head.push([write_batch(known.incarnation, known=[(n, 10 * turn, float(turn)) for n in range(20)])], 0)
        acknowledged = turn
    done.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert head.stats.closed_chunks > 0


def test_series_that_never_got_a_sample_are_invisible_and_dropped_with_the_old_ones(head: Head) -> None:
    hour = 3_600_000
    head.push([write_batch(new=[(A, [(10 * hour, 1.0)]), (B, [(hour, 1.0)]), (C, [])])], 0)
    assert content(head).keys() == {A}
    head.truncate(2 * hour)
    assert head.collect() == 2
    assert head.stats.series == 1


@pytest.mark.parametrize("flushed", [False, True])
def test_a_late_sample_newer_than_all_of_its_series_is_found(head: Head, flushed: bool) -> None:
    limits = PushLimits(out_of_order_window_ms=86_400_000)
    day = 86_400_000
    head.push([write_batch(new=[(A, [(1, 1.0)]), (B, [(day, 2.0)])])], 0, limits)
    head.push([write_batch(new=[(A, [(1000, 3.0)])])], 0, limits)
    if flushed:
        head.flush()
    assert head.stats.appended_late == 1
    assert content(head, Selection((), 500, 2000)) == {A: [(1000, 3.0)]}
