"""Rule files: what is read, and what is refused in which words."""

from __future__ import annotations

import pytest

from mimir_ray.errors import InvalidArgument
from mimir_ray.model.go_yaml import ListOf, MapOf, Shape, YamlError, decode
from mimir_ray.model.rules import Rule, RuleFileError, RuleGroup, parse_rule_file, parse_rule_group


def test_a_file_is_read_with_its_times_in_ms() -> None:
    text = """
groups:
- name: g
  interval: 1m30s
  query_offset: 0s
  limit: 5
  labels: {team: a}
  source_tenants: [x, y]
  align_evaluation_time_on_interval: yes
  rules:
  - alert: A
    expr: up == 0
    for: 1d
    keep_firing_for: 5ms
    labels: {team: b, number: 1}
    annotations: {text: "{{ $value }}"}
"""
    rule = Rule(
        alert="A",
        expr="up == 0",
        for_ms=86_400_000,
        keep_firing_for_ms=5,
        labels={"team": "b", "number": "1"},
        annotations={"text": "{{ $value }}"},
    )
    (group,) = parse_rule_file(text)
    assert group == RuleGroup("g", (rule,), 90_000, 0, 5, {"team": "a"}, ("x", "y"), True)
    assert group.labels_of(rule) == {"team": "b", "number": "1"}
    assert group.rules[0].position("expr") == (12, 11)
    assert group.rules[0].position("record") == (0, 0)


def test_a_query_offset_that_is_not_given_is_the_default_of_who_evaluates() -> None:
    assert parse_rule_group("{name: g, rules: []}").query_offset_ms is None
    assert parse_rule_group("{name: g, evaluation_delay: 1s}").query_offset_ms == 1_000
    with pytest.raises(InvalidArgument, match="query_offset and evaluation_delay"):
        parse_rule_group("{name: g, evaluation_delay: 1s, query_offset: 2s}")


def test_unknown_keys_are_told_with_their_line_and_type_unless_they_are_to_be_ignored() -> None:
    text = "groups:\n- name: g\n  foo: 1\n  rules:\n  - record: a\n    expr: b\n    bar: 2\n"
    with pytest.raises(RuleFileError) as caught:
        parse_rule_file(text)
    assert caught.value.problems == (
        "yaml: unmarshal errors:\n  line 3: field foo not found in type rulefmt.RuleGroup\n"
        "  line 7: field bar not found in type rulefmt.Rule",
    )
    assert parse_rule_file(text, strict=False)[0].name == "g"


SHAPE = Shape("T", {"list": ListOf("int"), "map": MapOf("string"), "number": "float64"})


def test_merged_keys_give_way_to_those_that_are_written() -> None:
    text = "map: {<<: [{a: 1, b: 2}, {b: 3, c: 4}], a: 9}"
    assert decode(text, SHAPE, strict=True).values["map"] == {"a": "9", "b": "2", "c": "4"}


def test_aliases_cannot_make_a_small_document_large() -> None:
    lines = ["list: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    nested: ListOf = ListOf("int")
    fields: dict[str, object] = {"list": nested}
    for level in range(1, 8):
        nested = ListOf(nested)
        fields[f"l{level}"] = nested
        lines.append(f"l{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    with pytest.raises(YamlError, match="excessive aliasing"):
        decode("\n".join(lines), Shape("T", fields), strict=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("1e3", 1000.0),
        ("0x1F", 31.0),
        ("010", 8.0),
        ("1_000", 1000.0),
        ("-.inf", float("-inf")),
        (".5", 0.5),
    ],
)
def test_numbers_are_gos(text: str, value: float) -> None:
    assert decode(f"number: {text}", SHAPE, strict=True).values["number"] == value


@pytest.mark.parametrize("text", ["'1'", "abc", "true", "1:30", "nan", "inf", "0xg"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(YamlError, match=r"cannot unmarshal .* into float64"):
        decode(f"number: {text}", SHAPE, strict=True)


def test_nulls_in_lists_leave_no_gap() -> None:
    assert decode("list: [1, null, 2]", SHAPE, strict=True).values["list"] == [1, 2]


@pytest.mark.parametrize(
    ("char", "reason"), [("\udcff", "invalid leading UTF-8 octet"), ("\x01", "control characters")]
)
def test_characters_that_no_document_may_have(char: str, reason: str) -> None:
    with pytest.raises(YamlError, match=f"yaml: {reason}"):
        decode(f"map: {{a: {char}}}", SHAPE, strict=True)
