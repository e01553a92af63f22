"""Durations and sizes."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.config.units import MAX_DURATION_MS, Bytes, Duration, duration, size


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0", 0),
        ("1h30m", 5_400_000),
        ("1.5s", 1500),
        (".5s", 500),
        ("-5m", -300_000),
        ("2d", 172_800_000),
        ("1w", 604_800_000),
        ("1y", 31_536_000_000),
        ("1000000ns", 1),
        ("2000us", 2),
        ("2000µs", 2),
    ],
)
def test_a_duration_is_read_as_go_and_prometheus_write_it(text: str, ms: int) -> None:
    assert duration(text) == ms


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "1h-5m", "1e3s", "five", "300y", "1us"])
def test_what_is_no_duration_or_too_fine_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        Duration.parse(text)


@given(st.integers(min_value=-MAX_DURATION_MS, max_value=MAX_DURATION_MS))
def test_a_printed_duration_is_read_back_as_itself(ms: int) -> None:
    assert Duration.parse(str(Duration(ms))) == ms


@pytest.mark.parametrize(("ms", "text"), [(0, "0s"), (129_600_000, "1d12h"), (604_800_000, "1w"), (1500, "1s500ms")])
def test_a_duration_prints_in_its_shortest_form(ms: int, text: str) -> None:
    assert str(Duration(ms)) == text


def test_a_duration_survives_pickling_with_its_type() -> None:
    copy = pickle.loads(pickle.dumps(duration("5m")))
    assert (type(copy), copy.seconds, copy.ms) == (Duration, 300.0, 300_000)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1048576", 1048576), ("512KiB", 524288), ("100MB", 100_000_000), ("1.5GiB", 1610612736), ("7B", 7), ("2k", 2000)],
)
def test_a_size_is_read_with_and_without_a_unit(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1XB", "iB", "5i", "0.3KiB"])
def test_what_is_no_whole_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        Bytes.parse(text)
