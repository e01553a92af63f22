"""Automata of patterns: what RE2 says of each value alone, at a bounded price."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mimir_ray.model.matchers import InvalidRegex, Matcher, MatchType, compile_regex
from mimir_ray.model.regex_automaton import CELLS_MAX, Automaton, automaton_of, run_automaton, utf8_sequences
from mimir_ray.model.regex_syntax import POINT_MAX

ATOMS = st.sampled_from(
    [*"abkKsS019-_ ä日😀^$.", "\\.", "\\d", "\\D", "\\s", "\\S", "\\w", "\\W", "\\A", "\\z", "\\n", "\\x41", "\\x{e4}",
     "[ab]", "[^ab]", "[a-k]", "[^a-k\\d]", "[]a]", "[^]a]", "[a-]", "[-a]", "[\\d-z]", "[[:alpha:]]", "[[:^lower:]]",
     "[\\w.]", "[ä-日]", "[^ä]", "{", "{,3}", "}", "]", "(?i)", "(?i:k)", "(?-s).", "(?s).", "()", "\\b", "\\B", "\\pL",
     "\\Qa.b\\E", "(?m)", "(?U)", "a{02}", "\\-", "\\/", "\\a", "\\101", "\\0", "[\\n\\t]", "[a\\]b]", "(?i)[^k]", "ſ"]
)  # fmt: skip
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + "|".join(parts) + ")"),
        st.tuples(st.sampled_from(["(", "(?:", "(?P<n>", "(?i:", "(?i-s:"]), inner).map(lambda two: "".join(two) + ")"),
        st.tuples(
            inner, st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{0}", "{1,3}", "{2,}", "{0,2}?"])
        ).map("".join),
    ),
    max_leaves=8,
)
VALUES = st.lists(
    st.text(st.sampled_from("abkKsSzZ019-_. \n\t\0äÄſK日😀{}],3A|\x7f"), max_size=6).map(str.encode)
    | st.binary(max_size=4),
    max_size=12,
)


def judged(automaton: Automaton, values: list[bytes]) -> list[bool]:
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in values]))).astype(np.int64)
    data = np.frombuffer(b"".join(values) + b"\0", np.uint8)
    return automaton.accepts(data, cuts[:-1].copy(), cuts[1:].copy()).tolist()


def by_re2(pattern: str, value: bytes) -> bool:
    try:
        return compile_regex(pattern)(value.decode()) is not None
    except UnicodeDecodeError:
        return False


@settings(deadline=None)
@given(PATTERNS, VALUES)
@example("(^a|$)*", [b"", b"a", b"aa"])
@example("(?:a$)?b|^", [b"", b"b", b"ab"])
@example("$^", [b""])
@example("a(?m){0}", [b"a", b"a{0}"])
@example("a(?i)b|c", [b"aB", b"C", b"AB"])
@example("(?i)s\\w", ["ſſ".encode(), b"sK", b"Ss"])
@example("[^\\x00-\\x{10FFFF}]*", [b"", b"a"])
def test_an_automaton_says_what_re2_says_of_each_value(pattern: str, values: list[bytes]) -> None:
    try:
        compile_regex(pattern)
    except InvalidRegex:
        return
    values = [*values, b""]
    automaton = automaton_of(pattern)
    if automaton is not None:
        assert judged(automaton, values) == [by_re2(pattern, value) for value in values]


@pytest.mark.parametrize(
    "pattern",
    ["host-.*[02468]:9100", ".*(foo|bar|baz).*", "[a-z]+-[0-9]{1,5}", "(?i)error.*", "(a+)+b", "\\w+\\.\\d+",
     ".*[^0-9].*", "(?:a|b|ab)*c", "(.*a){3}", "a{0,20}a{20}", "(?s)a.b", "pod-[a-z0-9]{8}-[a-z0-9]{5}", "[äö]+"]
)  # fmt: skip
def test_patterns_that_people_write_have_one(pattern: str) -> None:
    assert automaton_of(pattern) is not None


@settings(deadline=None)
@given(st.integers(0, POINT_MAX), st.integers(0, POINT_MAX), st.integers(0, POINT_MAX))
@example(0, POINT_MAX, 0xD800)
@example(0xD7FF, 0xE000, 0xDFFF)
def test_the_encodings_of_a_range_are_those_of_its_characters(one: int, other: int, point: int) -> None:
    low, high = sorted((one, other))
    for each in {point, low, high, max(low - 1, 0), min(high + 1, POINT_MAX)}:
        raw = chr(each).encode("utf-8", "surrogatepass")
        among = [
            all(first <= byte <= last for byte, (first, last) in zip(raw, sequence, strict=True))
            for sequence in utf8_sequences(low, high)
            if len(sequence) == len(raw)
        ]
        assert sum(among) == (low <= each <= high and not 0xD800 <= each <= 0xDFFF)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.lists(st.binary(max_size=5), min_size=1, max_size=8), st.data())
def test_a_table_is_followed_byte_by_byte(states: int, classes: int, values: list[bytes], data: st.DataObject) -> None:
    cells = st.integers(0, states)
    table = [[0] * classes] + [[data.draw(cells) for _ in range(classes)] for _ in range(states)]
    accepting = [False] + [data.draw(st.booleans()) for _ in range(states)]
    class_of = [byte % classes for byte in range(256)]
    wanted = []
    for value in values:
        state = 1
        for byte in value:
            state = table[state][class_of[byte]]
        wanted.append(accepting[state])
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in values]))).astype(np.int64)
    fits = np.empty(len(values), np.bool_)
    run_automaton(
        np.frombuffer(b"".join(values), np.uint8), cuts[:-1].copy(), cuts[1:].copy(), np.array(class_of, np.uint8),
        np.array(table, np.int32).ravel() * np.int32(classes), np.array(accepting), classes, fits,
    )  # fmt: skip
    assert fits.tolist() == wanted


def test_a_table_has_a_bound() -> None:
    for pattern in ("[a-z]{1,900}x.*", "a{0,200}a{200}", "(?i).*(error|warn|fatal)[^a-z]*"):
        automaton = automaton_of(pattern)
        assert automaton is None or len(automaton.moves) <= CELLS_MAX + 256


@pytest.mark.parametrize(
    "pattern", ["(a|b)*a(a|b){20}", "((a|b)*a(a|b){12}){8}", "(.*)(.*)(.*){300}x", "\\bfoo", "\\pL+"]
)
def test_what_has_no_small_one_is_left_to_re2(pattern: str) -> None:
    values = [b"a" * 40, b"foo", b"x", "ä".encode()] * 20
    if automaton_of(pattern) is not None:
        assert judged(automaton_of(pattern), values) == [by_re2(pattern, value) for value in values]
    data = np.frombuffer(b"".join(values), np.uint8)
    cuts = np.concatenate(([0], np.cumsum([len(one) for one in values]))).astype(np.int64)
    found = Matcher(MatchType.REGEX, "x", pattern).accepted_values(data, cuts[:-1].copy(), cuts[1:].copy())
    assert found.tolist() == [by_re2(pattern, value) for value in values]
