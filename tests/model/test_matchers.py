"""Matchers: Prometheus' meaning, the shortcuts for common patterns, Go's quoting."""

from __future__ import annotations

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.model.matchers import InvalidRegex, Matcher, MatchType, quote

PIECES = st.sampled_from(
    ["a", "b", "ab", "|", ".*", ".+", ".", "(a|b)", "[ab]", "a?", "ä", "\n", "\\.", "(?i)a", "^", "$"]
)
VALUES = st.text(st.sampled_from("abAB.ä\n|"), max_size=5)


@given(VALUES, VALUES)
def test_equality_is_equality(pattern: str, value: str) -> None:
    assert Matcher(MatchType.EQUAL, "x", pattern).accepts(value) == (pattern == value)
    assert Matcher(MatchType.NOT_EQUAL, "x", pattern).accepts(value) == (pattern != value)


@given(st.lists(PIECES, max_size=5).map("".join), VALUES)
def test_a_regular_expression_is_anchored_and_its_dot_takes_line_ends(pattern: str, value: str) -> None:
    try:
        wanted = re.compile(f"(?s:{pattern})" if "(?i)" not in pattern else "", re.DOTALL)
        matcher = Matcher(MatchType.REGEX, "x", pattern)
    except (re.error, InvalidRegex):
        return
    if "(?i)" in pattern or "$" in pattern:
        return  # Python wants flags in front, and its $ stands before a last line end, too
    assert matcher.accepts(value) == (wanted.fullmatch(value) is not None)
    assert Matcher(MatchType.NOT_REGEX, "x", pattern).accepts(value) != matcher.accepts(value)


@pytest.mark.parametrize(
    "pattern", ["", "a", "a|b", "|", "a|", ".*", ".+", "a.*", "a.+", "(a|b)", "a(?i)b", "a.*b", "\\."]
)
@pytest.mark.parametrize("value", ["", "a", "b", "ab", "a\n", "\n", ".", "aB", "a|b"])
def test_common_patterns_mean_what_the_engine_would_say(pattern: str, value: str) -> None:
    python = pattern.replace("a(?i)b", "a(?i:b)")
    wanted = re.fullmatch(python, value, re.DOTALL) is not None
    assert Matcher(MatchType.REGEX, "x", pattern).accepts(value) == wanted


@pytest.mark.parametrize(
    ("type_", "value", "empty"),
    [
        (MatchType.EQUAL, "", True),
        (MatchType.EQUAL, "a", False),
        (MatchType.NOT_EQUAL, "a", True),
        (MatchType.NOT_EQUAL, "", False),
        (MatchType.REGEX, ".*", True),
        (MatchType.REGEX, ".+", False),
        (MatchType.REGEX, "a|", True),
        (MatchType.NOT_REGEX, ".+", True),
        (MatchType.NOT_REGEX, ".*", False),
    ],
)
def test_an_absent_label_is_an_empty_value(type_: MatchType, value: str, empty: bool) -> None:
    assert Matcher(type_, "x", value).accepts_empty == empty


@pytest.mark.parametrize("pattern", ["(", "[a", "a**", "*", "\\", "(?<x>a)(", "\\8", "a{1001}"])
def test_a_pattern_that_cannot_be_read_is_refused_when_the_matcher_is_made(pattern: str) -> None:
    with pytest.raises(InvalidRegex, match="error parsing regexp: "):
        Matcher(MatchType.REGEX, "x", pattern)
    with pytest.raises(InvalidRegex):
        Matcher(MatchType.NOT_REGEX, "x", pattern)


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+", "(a|aa)+", "(a|a?)+", "(.*a){12}", "(.*)*b", "((a*)*)*b", "a{0,200}a{200}", "(?:a|b|ab)*c", "(x+x+)+y"],
)
def test_no_pattern_takes_longer_than_its_text_is_long(pattern: str) -> None:
    # One that tries its ways one by one would not come back from any of these.
    for text in ("a" * 20_000 + "!", "x" * 20_000, "ab" * 10_000 + "!"):
        assert not Matcher(MatchType.REGEX, "name", pattern).accepts(text)


def test_a_matcher_travels_and_is_a_key() -> None:
    one = Matcher(MatchType.REGEX, "x", "a[bc]+")
    assert one.accepts("abc")
    copy = pickle.loads(pickle.dumps(one))
    assert copy == one
    assert {one: 1}[copy] == 1
    assert copy.accepts("acb")


@pytest.mark.parametrize(
    ("matcher", "text"),
    [
        (Matcher(MatchType.EQUAL, "job", "a"), 'job="a"'),
        (Matcher(MatchType.NOT_REGEX, "a.b", 'x"y'), '"a.b"!~"x\\"y"'),
    ],
)
def test_a_matcher_is_written_as_promql_reads_it(matcher: Matcher, text: str) -> None:
    assert str(matcher) == text


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("", '""'), ("a", '"a"'), ('"\\', '"\\"\\\\"'),
     ("\a\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'), ("\0\x7f", '"\\x00\\x7f"'),
     ("ä日", '"ä日"'), ("\u200b", '"\\u200b"'), ("\ufeff", '"\\ufeff"'), ("\U000e0001", '"\\U000e0001"')],
)  # fmt: skip
def test_text_is_quoted_as_go_does(text: str, quoted: str) -> None:
    assert quote(text) == quoted
