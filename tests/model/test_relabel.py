"""Relabelling as Prometheus does it. Cases: upstream's documentation and model/relabel/relabel_test.go's ideas."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.config.tenant_rules import RelabelConfig
from mimir_ray.model.matchers import InvalidRegex, compile_regex
from mimir_ray.model.relabel import Relabelling, relabelling, rule_problem

LABELS = {"a": "foo", "b": "bar", "c": "baz"}


def applied(labels: dict[str, str], *rules: dict[str, Any], utf8: bool = False) -> dict[str, str] | None:
    changed = dict(labels)
    kept = Relabelling([RelabelConfig(**rule) for rule in rules], utf8).apply(changed)
    return changed if kept else None


def test_replace_writes_groups_of_what_matched() -> None:
    rule = {
        "source_labels": ("a", "b"),
        "regex": "f(.*);(?P<rest>.*)r",
        "target_label": "d",
        "replacement": "${1}-$rest",
    }
    assert applied(LABELS, rule) == LABELS | {"d": "oo-ba"}


def test_replace_does_nothing_where_the_whole_value_does_not_match() -> None:
    rule = {"source_labels": ("a",), "regex": "o", "target_label": "d", "replacement": "x"}
    assert applied(LABELS, rule) == LABELS


def test_replace_with_nothing_takes_the_label_away() -> None:
    assert applied(LABELS, {"source_labels": ("a",), "target_label": "b", "regex": "x(.*)|foo"}) == {
        "a": "foo",
        "c": "baz",
    }


def test_replace_can_make_the_name_of_its_target() -> None:
    rule = {"source_labels": ("a", "b"), "regex": "(.*);(.*)", "target_label": "t_$1", "replacement": "$2$$"}
    assert applied(LABELS, rule) == LABELS | {"t_foo": "bar$"}
    assert applied({"a": "x-y", "b": "1"}, rule) == {"a": "x-y", "b": "1"}
    assert applied({"a": "x-y", "b": "1"}, rule, utf8=True) == {"a": "x-y", "b": "1", "t_x-y": "1$"}


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"action": "keep", "source_labels": ("a",), "regex": "f.*"}, True),
        ({"action": "keep", "source_labels": ("a",), "regex": "o+"}, False),
        ({"action": "keep", "source_labels": ("missing",), "regex": ".+"}, False),
        ({"action": "drop", "source_labels": ("a", "c"), "regex": "foo;baz"}, False),
        ({"action": "drop", "source_labels": ("a", "c"), "separator": "|", "regex": "foo;baz"}, True),
        ({"action": "dropequal", "source_labels": ("a",), "target_label": "b"}, True),
        ({"action": "dropequal", "source_labels": ("x",), "target_label": "y"}, False),
        ({"action": "keepequal", "source_labels": ("a",), "target_label": "b"}, False),
    ],
)
def test_series_are_kept_or_dropped(rule: dict[str, Any], kept: bool) -> None:
    assert applied(LABELS, rule) == (LABELS if kept else None)


def test_labels_are_mapped_dropped_and_kept_by_their_names() -> None:
    assert applied(LABELS, {"action": "labelmap", "regex": "([ab])", "replacement": "n_$1"}) == LABELS | {
        "n_a": "foo", "n_b": "bar",
    }  # fmt: skip
    assert applied(LABELS, {"action": "labeldrop", "regex": "a|b"}) == {"c": "baz"}
    assert applied(LABELS, {"action": "labelkeep", "regex": "a|b"}) == {"a": "foo", "b": "bar"}


def test_hashmod_has_the_values_of_prometheus() -> None:
    # Upstream's own example: md5 of the value, its last eight bytes, modulo 1000.
    rule = {"action": "hashmod", "source_labels": ("c",), "target_label": "d", "modulus": 1000}
    assert applied({"a": "foo", "b": "bar", "c": "baz"}, rule) == LABELS | {"d": "976"}


def test_case_is_changed() -> None:
    upper = {"action": "uppercase", "source_labels": ("a",), "target_label": "u"}
    lower = {"action": "lowercase", "source_labels": ("u",), "target_label": "a"}
    assert applied({"a": "FoO"}, upper, lower) == {"a": "foo", "u": "FOO"}


@pytest.mark.parametrize(
    ("text", "lower", "upper"),
    [("İß", "iß", "İß"), ("ΑΣ", "ασ", "ΑΣ"), ("ᾳǆŉ", "ᾳǆŉ", "ᾼǄŉ"), ("aé\n", "aé\n", "AÉ\n")],
)
def test_case_changes_character_by_character(text: str, lower: str, upper: str) -> None:
    """As Go's unicode.ToLower and ToUpper: one character stays one."""
    for action, wanted in (("lowercase", lower), ("uppercase", upper)):
        rule = {"action": action, "source_labels": ("a",), "target_label": "a"}
        assert applied({"a": text}, rule) == {"a": wanted}


@pytest.mark.parametrize(
    ("replacement", "value"), [("$01", ""), ("$1é", ""), ("${1}é", "fé"), ("${1", "${1"), ("$-$1", "$-f"), ("$999", "")]
)
def test_names_in_replacements_are_those_of_go(replacement: str, value: str) -> None:
    rule = {"source_labels": ("a",), "regex": "(.)oo", "target_label": "b", "replacement": replacement}
    assert (applied(LABELS, rule) or {}).get("b", "") == value


@given(st.text("ab\n", max_size=2), st.sampled_from(["(.*)", "(.+)"]), st.text("abé", max_size=2), st.text("abé\n"))
def test_a_pattern_between_literals_is_matched_as_by_the_regex_engine(
    before: str, wild: str, after: str, text: str
) -> None:
    regex = before + wild + after
    rule = {"source_labels": ("a",), "regex": regex, "target_label": "b", "replacement": "<$0|$1>"}
    match = compile_regex(regex)(text)
    assert (applied({"a": text}, rule) or {}).get("b") == (f"<{match.group(0)}|{match.group(1)}>" if match else None)


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"action": "hashmod", "target_label": "a"}, "requires non-zero modulus"),
        ({"action": "uppercase"}, "relabel configuration for uppercase action requires 'target_label' value"),
        ({"target_label": "${3"}, "is invalid 'target_label' for replace action"),
        ({"action": "lowercase", "target_label": "${3}"}, "is invalid 'target_label' for lowercase action"),
        ({"action": "lowercase", "target_label": "a", "replacement": "x"}, "'replacement' can not be set"),
        ({"action": "labelmap", "replacement": "a-b"}, "is invalid 'replacement' for labelmap action"),
        ({"action": "dropequal", "target_label": "a", "regex": "x"}, "and no other fields"),
        ({"action": "labelkeep", "source_labels": ("a",)}, "requires only 'regex', and no other fields"),
        ({"target_label": "a", "regex": "x"}, ""),
    ],
)
def test_rules_that_make_no_sense_are_named(rule: dict[str, Any], problem: str) -> None:
    found = rule_problem(RelabelConfig(**rule))
    assert problem in found
    assert bool(found) == bool(problem)


def test_a_regex_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(InvalidRegex):
        rule_problem(RelabelConfig(target_label="a", regex="("))


def test_equal_rules_are_compiled_once() -> None:
    assert relabelling((RelabelConfig(target_label="a"),)) is relabelling((RelabelConfig(target_label="a"),))


@given(
    st.dictionaries(st.sampled_from("abcd"), st.text(max_size=3), max_size=4),
    st.text(alphabet="$1{}ab$", max_size=6),
    st.text(alphabet="$1{}ab$", max_size=6),
)
def test_any_template_gives_labels(labels: dict[str, str], target: str, replacement: str) -> None:
    rule = RelabelConfig(source_labels=("a", "b"), target_label=target, replacement=replacement)
    changed = dict(labels)
    assert Relabelling([rule]).apply(changed)
    assert set(changed) - set(labels) <= {name for name in changed if name.isidentifier()}
