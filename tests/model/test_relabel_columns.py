"""Relabelling of many series at once does what it does to each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.config.tenant_rules import RelabelConfig
from mimir_ray.model import relabel_columns
from mimir_ray.model.label_rows import NO_NAME, Groups, LabelRows, Text
from mimir_ray.model.relabel import Relabelling, rule_problem
from mimir_ray.model.relabel_columns import labels_added, relabel_rows

Sets = list[dict[str, str]]


def rows_of(series: Sets, added: int = 0) -> LabelRows:
    """Label sets as rows with so many free places."""
    rows = LabelRows(
        Text(np.empty(0, np.uint8), 0),
        [],
        np.cumsum([0, *(len(labels) + added for labels in series)], dtype=np.int64),
        *(np.zeros(sum(map(len, series)) + added * len(series), kind) for kind in (np.int32, np.int64, np.int64)),
        np.ones(len(series), np.bool_),
    )
    rows.codes[:] = NO_NAME
    for labels, first in zip(series, rows.offsets.tolist(), strict=False):
        for place, (name, value) in enumerate(labels.items(), first):
            rows.codes[place] = rows.code(name.encode())
            rows.starts[place], rows.ends[place] = rows.text.append([value.encode()])
    return rows


def sets_of(rows: LabelRows) -> list[dict[str, str] | None]:
    """The label sets of all series; None for those that are dropped."""
    found: list[dict[str, str] | None] = []
    for row in range(len(rows)):
        labels: dict[str, str] = {}
        for place in range(rows.offsets[row], rows.offsets[row + 1]):
            value = rows.text.data[rows.starts[place] : rows.ends[place]].tobytes().decode()
            if value:
                name = rows.names[rows.codes[place]].decode()
                assert name not in labels
                labels[name] = value
        found.append(labels if rows.alive[row] else None)
    return found


def one_by_one(relabelling: Relabelling, series: Sets) -> list[dict[str, str] | None]:
    changed = [dict(labels) for labels in series]
    return [labels if relabelling.apply(labels) else None for labels in changed]


def together(relabelling: Relabelling, series: Sets) -> list[dict[str, str] | None]:
    rows = rows_of(series, labels_added(relabelling))
    relabel_rows(relabelling, rows)
    return sets_of(rows)


# Few names and letters, so that rules meet labels and labels meet each other.
_names = st.sampled_from(["__name__", "__meta_x", "a", "aa", "ab", "b", "é", "t_a"])
_values = st.text("aAb;é\nßİΣ1", min_size=1, max_size=4)
_series = st.lists(st.dictionaries(_names, _values, max_size=5), min_size=1, max_size=12)
_regexes = st.sampled_from(
    [
        "(.*)", ".*", ".+", "", "a", "a|b", "a(.*)", "(.*)b", "é(.+)", "(.+)", "a.*", "(a+)(b*)", "(?P<x>.)(.*)",
        "[^;]*;(.*)", "(?i)A", "(a)|b", "a;", "__(.*)",
    ]
)  # fmt: skip
_replacements = st.sampled_from(["$1", "${1}x", "", "x", "$$", "$2$1", "${x}é", "$9", "$01", "$1a", "$0", "a$1b"])
_targets = st.sampled_from(["a", "b", "ab", "new", "t_$1", "$1", "${x}", "é"])
_sources = st.lists(_names, max_size=3).map(tuple)
_separators = st.sampled_from([";", "", "/", "éé"])


def _rule(action: str, **fields: st.SearchStrategy[object]) -> st.SearchStrategy[RelabelConfig]:
    return st.builds(RelabelConfig, action=st.just(action), **fields)  # type: ignore[arg-type]


_plain = st.sampled_from(["a", "b", "new", "__name__"])
_joined = {"source_labels": _sources, "separator": _separators}
_rules = st.one_of(
    _rule("replace", **_joined, regex=_regexes, target_label=_targets, replacement=_replacements),
    _rule("keep", **_joined, regex=_regexes),
    _rule("drop", **_joined, regex=_regexes),
    _rule("keepequal", source_labels=_sources, target_label=_plain),
    _rule("dropequal", source_labels=_sources, target_label=_plain),
    _rule("hashmod", **_joined, modulus=st.integers(1, 5), target_label=_plain),
    _rule("labelmap", regex=_regexes, replacement=_replacements),
    _rule("labeldrop", regex=_regexes),
    _rule("labelkeep", regex=_regexes),
    _rule("lowercase", **_joined, target_label=_plain),
    _rule("uppercase", **_joined, target_label=_plain),
).filter(lambda rule: not rule_problem(rule, utf8=True))


@pytest.mark.parametrize("texts_min", [0, 64])
@given(_series, st.lists(_rules, min_size=1, max_size=5), st.booleans())
@settings(deadline=None, max_examples=300)
def test_all_series_together_become_what_each_becomes(
    texts_min: int, series: Sets, rules: list[RelabelConfig], utf8: bool
) -> None:
    relabelling = Relabelling(rules, utf8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relabel_columns, "AUTOMATON_TEXTS_MIN", texts_min)
        assert together(relabelling, series) == one_by_one(relabelling, series)


def test_equal_values_are_one_group() -> None:
    series = [{"a": str(at % 50), "b": "x" * (at % 3)} for at in range(1000)]
    groups = rows_of(series).group([b"a", b"b"])
    pairs = {(labels["a"], labels["b"]): code for labels, code in zip(series, groups.of.tolist(), strict=True)}
    assert [pairs[labels["a"], labels["b"]] for labels in series] == groups.of.tolist()
    assert len(pairs) == len(groups) == 150


def test_values_are_not_mixed_up_where_they_join_to_the_same() -> None:
    groups = rows_of([{"a": "x", "b": "yz"}, {"a": "xy", "b": "z"}, {"a": "xyz"}, {"b": "xyz"}]).group([b"a", b"b"])
    assert len(groups) == 4


def test_series_that_are_dropped_take_no_part() -> None:
    rows = rows_of([{"a": "x"}, {"a": "y"}, {"a": "x"}])
    rows.alive[1] = False
    assert rows.group([b"a"]).of.tolist() == [0, -1, 0]


def test_joined_values_stand_back_to_back() -> None:
    rows = rows_of([{"a": "é", "b": "1"}, {"b": "2"}, {}])
    groups = rows.group([b"a", b"b", b"c"])
    assert rows.texts(rows.join(groups, b"::")) == ["é::1::", "::2::", "::::"]
    nothing = Groups(groups.of, np.zeros((0, 2, 2), np.int64))
    assert rows.texts(rows.join(nothing, b";")) == []


def test_a_label_is_written_where_its_name_is_or_where_there_is_room() -> None:
    rows = rows_of([{"a": "1", "b": "2"}, {"b": "2"}, {"a": "1"}], added=1)
    rows.take_off(np.array([False, True]))
    rows.write_all(b"a", b"3")
    rows.write_all(b"c", b"4")
    assert sets_of(rows) == [{"a": "3", "c": "4"}] * 3


def test_names_are_copied_in_their_order_from_the_values_before() -> None:
    rows = rows_of([{"b": "2", "a": "1", "c": "3"}, {"c": "3"}])
    code = {name: rows.code(name.encode()) for name in ("a", "b", "c", "d")}
    other = np.full(4, NO_NAME, np.int32)
    other[code["a"]], other[code["b"]], other[code["c"]] = code["b"], code["c"], code["d"]
    rows.copy_names(other)
    assert sets_of(rows) == [{"a": "1", "b": "1", "c": "2", "d": "3"}, {"c": "3", "d": "3"}]
    other[:] = code["a"]
    rows.copy_names(other)
    assert sets_of(rows) == [{"a": "3", "b": "1", "c": "2", "d": "3"}, {"a": "3", "c": "3", "d": "3"}]
