"""The index and its kernels against dicts: every series gets one reference, matchers select what they accept."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.encoding.hashing import xxhash64_of
from mimir_ray.model.labels import Labels
from mimir_ray.model.matchers import Matcher, MatchType
from mimir_ray.testing.sources import satisfies
from mimir_ray.testing.strategies import label_sets
from mimir_ray.testing.writes import label_section
from mimir_ray.tsdb.index import columns, interning, postings
from mimir_ray.tsdb.index.postings import Postings
from mimir_ray.tsdb.index.series_index import SeriesIndex

matchers = st.builds(
    Matcher,
    st.sampled_from(MatchType),
    st.sampled_from(["__name__", "a", "b", "job", "le", "none"]),
    st.sampled_from(["", "a", "b", "m", "a|b", "a|", ".*", ".+", "[ab]", "1.", "ä", "up", "a.*", "a.+", "ä.*", "u.+"]),
)


def intern(index: SeriesIndex, series: list[Labels], **limits: int) -> tuple[list[int], list[int]]:
    sections = [label_section(labels) for labels in series]
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in sections]))).astype(np.int64)
    references, created = index.intern(b"".join(sections), cuts, **limits)
    return references.tolist(), created.tolist()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(label_sets(), max_size=30), max_size=4), st.booleans())
def test_references_are_dense_in_order_of_first_sight_and_keep_their_labels(
    rounds: list[list[Labels]], stored: bool
) -> None:
    index = SeriesIndex()
    known: dict[Labels, int] = {}
    for series in rounds:
        new = [row for row, labels in enumerate(series) if labels not in known and labels not in series[:row]]
        for row in new:
            known[series[row]] = len(known)
        assert intern(index, series) == ([known[labels] for labels in series], new)
        if stored:
            restored = SeriesIndex()
            restored.restore(index.state())
            index = restored
    assert len(index) == index.live == len(known)
    assert index.labels(np.arange(len(known), dtype=np.int32)).to_labels() == list(known)
    flat = [b"".join(n.encode() + b"\xff" + v.encode() + b"\xff" for n, v in labels) for labels in known]
    assert index.stable_hashes().tolist() == [xxhash64_of(one) for one in flat]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(label_sets(), max_size=40, unique=True),
    st.lists(label_sets(), max_size=10, unique=True),
    st.lists(st.lists(matchers, max_size=3), min_size=1, max_size=4),
    st.sets(st.integers(0, 39)),
)
def test_matchers_select_what_they_accept(
    first: list[Labels], later: list[Labels], questions: list[list[Matcher]], drop: set[int]
) -> None:
    # Small heads have no inverted index; this makes one early, so that all ways are taken.
    tail, postings._TAIL_MIN = postings._TAIL_MIN, 4
    try:
        index = SeriesIndex()
        inverted = Postings(index)
        intern(index, first)
        dropped = sorted(one for one in drop if one < len(first))
        for part in (first, [one for one in later if one not in first]):
            if part is not first:
                index.drop(np.array(dropped, np.int32))
                inverted.note_dropped(len(dropped))
                intern(index, part)
            references = np.arange(len(index), dtype=np.int32)
            everything = index.labels(references).to_labels()
            live = [n for n in range(len(index)) if part is first or n not in dropped]
            for question in questions:
                expected = [n for n in live if satisfies(everything[n], question)]
                assert inverted.select(question).tolist() == expected
    finally:
        postings._TAIL_MIN = tail


@given(st.lists(st.text(max_size=6), max_size=8, unique=True), st.text(max_size=4), st.booleans())
def test_the_prefix_kernel_says_what_startswith_says(texts: list[str], prefix: str, more: bool) -> None:
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in raw]))).astype(np.int64)
    values = np.arange(len(raw), dtype=np.int32)[::-1].copy()
    wanted = prefix.encode("utf-8", "surrogatepass")
    fits = np.empty(len(raw), np.bool_)
    arena = np.frombuffer(b"".join(raw) or b"x", np.uint8)
    postings.begin_with(values, arena, cuts, np.frombuffer(wanted, np.uint8), more, fits)
    assert fits.tolist() == [one.startswith(wanted) and len(one) >= len(wanted) + more for one in reversed(raw)]


def test_patterns_over_a_hundred_thousand_values_of_one_label() -> None:
    index = SeriesIndex()
    names = [f"/api/v{number % 7}/item-{number:06d}" for number in range(100_000)]
    intern(index, [(("__name__", "m"), ("path", name)) for name in names])
    inverted = Postings(index)
    for pattern, expected in {
        "/api/v1/item-000001": [1],
        "/api/v1/item-000001|/api/v2/item-000002|nothing": [1, 2],
        "/api/v1.*": list(range(1, 100_000, 7)),
        "/api/v1/item-099996.+": [],
        "/api/v[12]/item-09999.": [number for number in range(99_990, 100_000) if number % 7 in (1, 2)],
    }.items():
        assert inverted.select((Matcher(MatchType.REGEX, "path", pattern),)).tolist() == expected
        refused = inverted.select((Matcher(MatchType.NOT_REGEX, "path", pattern),))
        assert len(refused) == 100_000 - len(expected) and not np.isin(expected, refused).any()


def test_thousands_of_series_grow_every_table() -> None:
    index = SeriesIndex()
    series: list[Labels] = [(("__name__", f"m{n % 7}"), ("id", f"{n}"), (f"l{n % 300}", "v")) for n in range(6000)]
    assert intern(index, series)[0] == list(range(6000))
    assert intern(index, series) == (list(range(6000)), [])
    inverted = Postings(index)
    for question in ([Matcher(MatchType.EQUAL, "id", "4711")], [Matcher(MatchType.REGEX, "__name__", "m[12]")]):
        expected = [n for n, labels in enumerate(series) if satisfies(labels, question)]
        assert inverted.select(question).tolist() == expected
        assert inverted.select(question).tolist() == expected


def test_a_dropped_series_comes_back_under_a_new_reference_also_after_tables_were_rebuilt() -> None:
    index = SeriesIndex()
    a: Labels = (("__name__", "a"),)
    assert intern(index, [a])[0] == [0]
    index.drop(np.array([0], np.int32))
    assert intern(index, [a])[0] == [1]
    index.restore(index.state())
    assert intern(index, [a])[0] == [1]
    assert index.live == 1


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_no_bytes_confuse_the_label_parser(data: bytes) -> None:
    array = np.frombuffer(data, np.uint8)
    cuts = np.array([0, len(data)], np.int64)
    count = interning.check_labels(array, cuts)
    assert count == reference_count(data)


def reference_count(data: bytes) -> int:
    """How many labels a section has, read byte by byte; -1 if it is none."""

    def field(at: int, end: int, tags: bytes) -> tuple[int, int] | None:
        if data[at] not in tags:
            return None
        length = shift = 0
        for byte in range(at + 1, min(end, at + 11)):
            length |= (data[byte] & 127) << shift
            shift += 7
            if data[byte] < 128:
                return (byte + 1, byte + 1 + length) if byte + 1 + length <= end else None
        return None

    at = count = 0
    while at < len(data):
        label = field(at, len(data), b"\x0a")
        if label is None:
            return -1
        at = label[0]
        while at < label[1]:
            part = field(at, label[1], b"\x0a\x12")
            if part is None:
                return -1
            at = part[1]
        count += 1
    return count


def test_limits_count_live_series() -> None:
    index = SeriesIndex()
    series: list[Labels] = [(("__name__", "a"), ("n", str(n))) for n in range(5)]
    assert intern(index, series, series_max=3)[0] == [0, 1, 2, interning.OVER_USER_LIMIT, interning.OVER_USER_LIMIT]
    assert intern(index, series, metric_series_max=4)[0] == [0, 1, 2, 3, interning.OVER_METRIC_LIMIT]
    index.drop(np.array([1], np.int32))
    assert intern(index, series[3:], series_max=4)[0] == [3, 4]


def test_columns_carry_only_the_strings_in_use() -> None:
    index = SeriesIndex()
    intern(index, [(("__name__", "a"), ("x", "1")), (("__name__", "b"), ("y", "1")), (("__name__", "c"), ("z", "\0"))])
    found = index.labels(np.array([1, 0], np.int32))
    assert found.names == ("__name__", "x", "y")
    assert sorted(found.table.strings) == ["", "1", "a", "b"]
    view: columns.IndexView = index.view()
    assert view.names(np.array([2], np.int32)) == ["__name__", "z"]
    assert view.values(np.array([0, 2], np.int32), index.find_name("z")) == ["\0"]
