"""Influx line protocol as series."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.errors import ClientError
from mimir_ray.wire.influx import InvalidLine, InvalidPrecision, parse_lines

NOW_MS = 1_700_000_000_000


def found(text: str, precision: str = "ns") -> dict[str, tuple[dict[str, str], int, float]]:
    series = parse_lines(text.encode(), precision, NOW_MS)
    out = {}
    for labels, ((time, value),) in series:
        rest = {name: one for name, one in labels if name not in ("__name__", "__mimir_source__")}
        assert dict(labels)["__mimir_source__"] == "influx"
        out[dict(labels)["__name__"]] = (rest, time, value)
    return out


def test_a_field_is_a_series_and_the_field_value_is_the_measurement() -> None:
    text = "cpu,host=a,region=eu usage=0.5,value=2i 1700000000123000000"
    assert found(text) == {
        "cpu_usage": ({"host": "a", "region": "eu"}, NOW_MS + 123, 0.5),
        "cpu": ({"host": "a", "region": "eu"}, NOW_MS + 123, 2.0),
    }


def test_numbers_are_floats_and_strings_are_passed_over() -> None:
    text = 'm a=1i,b=2u,c=-3.5e2,d=t,e=FALSE,f="x, y=1 \\"z\\"",g=.5'
    assert {name: value for name, (_, _, value) in found(text).items()} == {
        "m_a": 1.0, "m_b": 2.0, "m_c": -350.0, "m_d": 1.0, "m_e": 0.0, "m_g": 0.5,
    }  # fmt: skip
    assert all(time == NOW_MS for _, time, _ in found(text).values())


def test_names_are_made_fit_and_escapes_resolved() -> None:
    text = r"my\ disk.io,my\,tag=a\ b\=c,9th=x read-bytes=1"
    assert found(text) == {"my_disk_io_read_bytes": ({"my_tag": "a b=c", "_9th": "x"}, NOW_MS, 1.0)}


def test_comments_empty_lines_and_strings_over_lines_are_read() -> None:
    text = '# all of "this\n\nm a=1\n  m s="one\ntwo",b=2\r\nn value=3'
    assert sorted(found(text)) == ["m_a", "m_b", "n"]


@pytest.mark.parametrize(
    ("precision", "stamp"), [("ms", 1), ("s", 1), ("us", 1_000), ("m", 1), ("h", 1), ("ns", 1_000_000)]
)
def test_timestamps_have_the_unit_that_the_sender_names(precision: str, stamp: int) -> None:
    unit = {"ms": 1, "s": 1_000, "us": 1, "m": 60_000, "h": 3_600_000, "ns": 1}[precision]
    assert found(f"m value=1 {stamp}", precision)["m"][1] == unit


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(InvalidPrecision, match="precision supplied is not valid: years"):
        parse_lines(b"m value=1", "years", NOW_MS)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("m", "missing fields"),
        (",a=b v=1", "missing measurement"),
        ("m,a v=1", "missing tag value"),
        ("m,=b v=1", "missing tag key"),
        ("m,a=b,a=c v=1", "duplicate tags"),
        ("m v", "missing field value"),
        ("m =1", "missing field key"),
        ("m v=x", "invalid number"),
        ("m v=99999999999999999999i", "integer out of range"),
        ("m v=-1u", "integer out of range"),
        ('m v="a', "unbalanced quotes"),
        ("m v=1 soon", "bad timestamp"),
        ("m v=1 9999999999999999999", "time outside range"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(line: str, reason: str) -> None:
    with pytest.raises(InvalidLine, match=reason):
        parse_lines(line.encode(), "", NOW_MS)


@given(st.text(alphabet='mn,= "\\\n#1i.e-tT') | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_series_or_an_error(text: str) -> None:
    with contextlib.suppress(ClientError):
        for labels, samples in parse_lines(text.encode(), "", NOW_MS):
            assert list(labels) == sorted(labels)
            assert len(samples) == 1
