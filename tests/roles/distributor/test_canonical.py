"""The sorting kernel against Python's sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.config.limits import Limits
from mimir_ray.roles.distributor.canonical import LABELS_MAX, sort_sections, split_sections
from mimir_ray.wire.protobuf import MalformedProtobuf, RawLabel, encode_labels, parse_labels
from tests.roles.distributor.fakes import canonical_labels

_labels = st.lists(
    st.tuples(st.binary(max_size=3), st.binary(max_size=2) | st.sampled_from([b"v" * 127, b"v" * 128, b"v" * 20_000])),
    max_size=6,
)


def sorted_section(section: bytes) -> bytes | None:
    """The kernel's answer for one section behind some other bytes; None: not plain."""
    data = np.frombuffer(b"xyz" + section, np.uint8)
    out, starts, ends = sort_sections(data, np.array([3]), np.array([3 + len(section)]))
    return out[starts[0] : ends[0]].tobytes() if ends[0] >= 0 else None


@given(_labels)
@settings(deadline=None)
def test_labels_are_sorted_and_empty_values_dropped(labels: list[RawLabel]) -> None:
    assert sorted_section(encode_labels(labels)) == encode_labels(canonical_labels(labels, Limits()))


@given(st.lists(_labels, max_size=4))
@settings(deadline=None)
def test_sections_do_not_disturb_each_other(sections: list[list[RawLabel]]) -> None:
    encoded = [encode_labels(labels) for labels in sections]
    cuts = np.cumsum([0, *map(len, encoded)])
    out, starts, ends = sort_sections(np.frombuffer(b"".join(encoded) + b"\0", np.uint8), cuts[:-1], cuts[1:])
    found = [out[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]
    assert found == [encode_labels(canonical_labels(labels, Limits())) for labels in sections]


@given(st.binary(max_size=40))
@settings(deadline=None, max_examples=300)
def test_arbitrary_bytes_are_left_alone_or_read_as_protobuf(section: bytes) -> None:
    found = sorted_section(section)
    try:
        labels = parse_labels(section, 0, len(section))
    except MalformedProtobuf:
        assert found is None
    else:
        assert found in (None, encode_labels(canonical_labels(labels, Limits())))


def test_lengths_become_as_short_as_they_can_be() -> None:
    assert sorted_section(b"\x0a\x89\x00\x0a\x81\x00a\x12\x82\x00bc") == encode_labels([(b"a", b"bc")])


def test_more_labels_than_fit_are_left_alone() -> None:
    labels = [(f"l{at:03d}".encode(), b"v") for at in range(LABELS_MAX + 1)]
    assert sorted_section(encode_labels(labels)) is None
    assert sorted_section(encode_labels(labels[1:][::-1])) == encode_labels(labels[1:])


@given(st.lists(_labels | st.just([(b"a", b"b")]), max_size=5), st.binary(max_size=3))
@settings(deadline=None)
def test_labels_are_found_as_a_parser_finds_them(sections: list[list[RawLabel]], odd: bytes) -> None:
    encoded = [encode_labels(labels) for labels in sections]
    # A label that has its value first is not plain.
    encoded.append(b"\x0a" + bytes([5 + len(odd)]) + b"\x12" + bytes([len(odd)]) + odd + b"\x0a\x01n")
    cuts = np.cumsum([0, *map(len, encoded)])
    found = split_sections(b"".join(encoded), cuts[:-1], cuts[1:])
    assert found == [*sections, [(b"n", odd)]]


def test_a_section_that_is_malformed_is_said_to_be() -> None:
    with pytest.raises(MalformedProtobuf):
        split_sections(b"\x0a\x7f", np.array([0]), np.array([2]))
