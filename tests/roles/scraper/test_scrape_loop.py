"""What one target's scrapes come to, as remote-write requests."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.series import STALE_NAN_BITS
from mimir_ray.roles.scraper.scraper import METADATA_EVERY, REPORTS, Scrape, ScrapeLoop, Target
from mimir_ray.wire.pb.prompb import remote_pb2

TARGET = Target("host:9100", "/metrics", (("job", "node"),))
NOW = 1_700_000_000_000
STALE = "stale"
Decoded = dict[Labels, list[tuple[int, float | str]]]


def decode(request: bytes) -> Decoded:
    """Series with their points; staleness markers as `STALE`."""
    found: Decoded = {}
    for series in remote_pb2.WriteRequest.FromString(request).timeseries:
        labels = tuple((one.name, one.value) for one in series.labels)
        assert labels == labels_of(labels), "not canonical"
        assert labels not in found, "a series twice in one request"
        found[labels] = [
            (
                one.timestamp,
                STALE if struct.unpack("<Q", struct.pack("<d", one.value))[0] == STALE_NAN_BITS else one.value,
            )
            for one in series.samples
        ]
    return found


def named(request: bytes, name: str) -> Decoded:
    """Those of one metric, without the labels that all have."""
    own = {("__name__", name), ("instance", "host:9100"), ("job", "node")}
    found = {labels: points for labels, points in decode(request).items() if ("__name__", name) in labels}
    assert all(own <= set(labels) for labels in found)
    return {tuple(pair for pair in labels if pair not in own): points for labels, points in found.items()}


def good(text: str, content_type: str = "text/plain") -> Scrape:
    return Scrape(text.encode(), content_type, 0.25)


FAILED = Scrape(None, "", 0.5)


def reports(request: bytes) -> list[float | str]:
    return [named(request, name)[()][0][1] for name in REPORTS]


def test_samples_get_the_targets_labels_and_the_time_of_the_scrape() -> None:
    request = ScrapeLoop(TARGET).request(good('a{x="1"} 5\nb 7\n'), NOW)
    assert named(request, "a") == {(("x", "1"),): [(NOW, 5.0)]}
    assert named(request, "b") == {(): [(NOW, 7.0)]}


def test_every_scrape_is_reported() -> None:
    loop = ScrapeLoop(TARGET)
    assert reports(loop.request(good("a 1\nb 2\n"), NOW)) == [1.0, 0.25, 2.0, 2.0, 2.0]
    assert reports(loop.request(good("a 1\nc 2\n"), NOW + 1)) == [1.0, 0.25, 2.0, 2.0, 1.0]
    assert reports(loop.request(FAILED, NOW + 2)) == [0.0, 0.5, 0.0, 0.0, 0.0]
    assert reports(loop.request(good("a 1\n"), NOW + 3)) == [1.0, 0.25, 1.0, 1.0, 1.0]


def test_an_empty_answer_is_a_good_one() -> None:
    assert reports(ScrapeLoop(TARGET).request(good(""), NOW)) == [1.0, 0.25, 0.0, 0.0, 0.0]


def test_a_series_that_is_gone_gets_one_staleness_marker() -> None:
    loop = ScrapeLoop(TARGET)
    loop.request(good("a 1\nb 2\n"), NOW)
    assert named(loop.request(good("b 2\n"), NOW + 10), "a") == {(): [(NOW + 10, STALE)]}
    assert named(loop.request(good("b 2\n"), NOW + 20), "a") == {}


def test_a_series_that_came_back_is_there_again() -> None:
    loop = ScrapeLoop(TARGET)
    loop.request(good("a 1\n"), NOW)
    loop.request(good(""), NOW + 10)
    assert named(loop.request(good("a 3\n"), NOW + 20), "a") == {(): [(NOW + 20, 3.0)]}


@pytest.mark.parametrize("bad", [FAILED, good("this is { no metric\n"), Scrape(b"a 1\n\xff\n", "text/plain", 0.1)])
def test_all_series_of_a_target_that_failed_get_markers_once(bad: Scrape) -> None:
    loop = ScrapeLoop(TARGET)
    loop.request(good("a 1\nb 2\n"), NOW)
    failed = loop.request(bad, NOW + 10)
    assert reports(failed)[0] == 0.0
    assert named(failed, "a") == named(failed, "b") == {(): [(NOW + 10, STALE)]}
    assert len(decode(loop.request(bad, NOW + 20))) == len(REPORTS)


def test_a_target_that_leaves_gets_markers_for_everything_its_reports_included() -> None:
    loop = ScrapeLoop(TARGET)
    loop.request(good("a 1\n"), NOW)
    found = decode(loop.farewell(NOW + 5))
    assert {dict(labels)["__name__"] for labels in found} == {"a", *REPORTS}
    assert all(points == [(NOW + 5, STALE)] for points in found.values())


def test_timestamps_of_the_target_stay_and_such_series_get_no_marker() -> None:
    loop = ScrapeLoop(TARGET)
    assert named(loop.request(good("a 1 1234\nb 1\n"), NOW), "a") == {(): [(1234, 1.0)]}
    gone = loop.request(good(""), NOW + 10)
    assert named(gone, "a") == {}
    assert named(gone, "b") == {(): [(NOW + 10, STALE)]}
    loop.request(good("a 1 1234\n"), NOW + 20)
    assert named(loop.farewell(NOW + 30), "a") == {}


def test_labels_of_the_sample_that_the_target_has_too_are_exported() -> None:
    request = ScrapeLoop(TARGET).request(good('a{job="other",instance="there"} 1\n'), NOW)
    assert named(request, "a") == {(("exported_instance", "there"), ("exported_job", "other")): [(NOW, 1.0)]}


def test_labels_that_are_exported_already_are_exported_once_more() -> None:
    text = 'a{job="x",exported_job="y"} 1\na{job="z",exported_job="y"} 2\n'
    assert named(ScrapeLoop(TARGET).request(good(text), NOW), "a") == {
        (("exported_exported_job", "x"), ("exported_job", "y")): [(NOW, 1.0)],
        (("exported_exported_job", "z"), ("exported_job", "y")): [(NOW, 2.0)],
    }


def test_labels_with_an_empty_value_are_absent() -> None:
    request = ScrapeLoop(TARGET).request(good('a{x="",job=""} 1\n'), NOW)
    assert named(request, "a") == {(): [(NOW, 1.0)]}


def test_of_two_samples_of_one_series_the_first_counts() -> None:
    request = ScrapeLoop(TARGET).request(good('a{x="1"} 1\na{x="1",y=""} 2\na{x="1"} 3\n'), NOW)
    assert named(request, "a") == {(("x", "1"),): [(NOW, 1.0)]}


def test_a_series_written_another_way_is_the_same_series() -> None:
    loop = ScrapeLoop(TARGET)
    loop.request(good('a{x="1",y="2"} 1\n'), NOW)
    request = loop.request(good('a{y="2", x="1"} 2\n'), NOW + 10)
    assert named(request, "a") == {(("x", "1"), ("y", "2")): [(NOW + 10, 2.0)]}
    assert reports(request)[-1] == 0.0


def test_a_nan_of_the_target_is_a_value_and_no_marker() -> None:
    ((_, value),) = named(ScrapeLoop(TARGET).request(good("a NaN\n"), NOW), "a")[()]
    assert value != value


def test_openmetrics_is_understood_by_its_content_type() -> None:
    text = "# TYPE a counter\na_total 5 1700000000.5\n# EOF\n"
    request = ScrapeLoop(TARGET).request(good(text, "application/openmetrics-text; version=1.0.0"), NOW)
    assert named(request, "a_total") == {(): [(1_700_000_000_500, 5.0)]}


def test_metadata_come_along_now_and_then() -> None:
    loop = ScrapeLoop(TARGET)
    text = "# HELP a What it is.\n# TYPE a gauge\na 1\n"
    with_metadata = []
    for scrape in range(2 * METADATA_EVERY):
        message = remote_pb2.WriteRequest.FromString(loop.request(good(text), NOW + scrape))
        with_metadata.append([(one.metric_family_name, one.type, one.help) for one in message.metadata])
    assert with_metadata[0] == with_metadata[METADATA_EVERY] == [("a", 2, "What it is.")]
    assert sum(bool(one) for one in with_metadata) == 2


@given(st.lists(st.sets(st.sampled_from("abcde")) | st.none(), max_size=8))
def test_whatever_comes_and_goes_each_series_is_present_or_ended(scrapes: list[set[str] | None]) -> None:
    loop = ScrapeLoop(TARGET)
    alive: set[str] = set()
    for at, exposed in enumerate(scrapes):
        request = loop.request(
            FAILED if exposed is None else good("".join(f"{name} 1\n" for name in sorted(exposed))), at
        )
        found = {dict(labels)["__name__"]: points for labels, points in decode(request).items()}
        now = exposed or set()
        assert {name for name in found if name not in REPORTS} == alive | now
        assert all(found[name] == [(at, 1.0)] for name in now)
        assert all(found[name] == [(at, STALE)] for name in alive - now)
        alive = now


@given(st.text(max_size=20), st.floats(0.1, 1000))
def test_scrapes_of_a_target_begin_at_a_place_of_its_own_in_the_interval(address: str, interval_s: float) -> None:
    offset = ScrapeLoop(Target(address)).offset_s(interval_s)
    assert 0 <= offset <= interval_s
    assert offset == ScrapeLoop(Target(address)).offset_s(interval_s)
