"""What is not PromQL is refused with Prometheus' words, at Prometheus' position."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.errors import InvalidArgument
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.syntax.errors import ParseError
from mimir_ray.promql.syntax.parser import MAX_LEVELS, MAX_NESTING, ParserOptions, parse, parse_metric, parse_selector
from mimir_ray.testing.sources import ListSource

CASES = r"""
1:3: 1+ :: unexpected end of input
1:1: . :: unexpected character: '.'
1:1: 2.5. :: bad number or duration syntax: "2.5."
1:1: 0deadbeef :: bad number or duration syntax: "0de"
1:1: *1 :: unexpected <op:*>
1:5: (1)) :: unexpected right parenthesis ')'
1:5: ((1) :: unclosed left parenthesis
1:5: sum( :: unclosed left parenthesis
1:1: 1 and 1 :: set operator "and" not allowed in binary scalar expression
1:3: 1 == 1 :: comparisons between scalars must use BOOL modifier
1:3: 1 !~ 1 :: unexpected character after '!': '~'
1:3: 1 =~ 1 :: unexpected character after '=': '~'
1:1: -test[5m] :: unary expression only allowed on expressions of type scalar or instant vector, got "range vector"
1:2: -= :: unexpected "="
1:3: a>b() :: unknown function with name "b"
1:3: a 5 :: unexpected number "5"
1:3: a "a longer text" :: unexpected string "\"a longer "...
1:3: a start :: unexpected "start"
1:3: a by :: unexpected <by>
1:3: a sum :: unexpected <aggr:sum>
1:3: a x:y :: unexpected metric identifier "x:y"
1:11: a - on(b) ignoring(c) d :: unexpected <ignoring>
1:1: 1 or on(bar) foo :: vector matching only allowed between instant vectors
1:1: 1 + fill (0) foo :: filling in missing series only allowed between instant vectors
1:1: a and fill (0) b :: filling in missing series not allowed for set operators
1:22: a + on(b) group_left =c :: unexpected "=" in grouping opts, expected "("
1:21: a + on(b) group_left :: unexpected end of input in grouping opts, expected "("
1:5: a + group_left(b) c :: unexpected <group_left>
1:1: a and on(b) group_left(c) d :: no grouping allowed for "and" operation
1:3: a + on(b) group_left(b) c :: label "b" must not occur in ON and GROUP clause at once
1:5: foo + bool bar :: bool modifier can only be used on comparison operators
1:1: "a" + 1 :: binary expression must contain only scalar and instant vector types
1:5: 1 + a[5m] :: binary expression must contain only scalar and instant vector types
1:2: { :: unexpected end of input inside braces
1:5: some} :: unexpected character: '}'
1:15: some_metric{a=b} :: unexpected identifier "b" in label matching, expected string
1:14: some_metric{a:b="b"} :: unexpected character inside braces: ':'
1:14: foo{gibberish} :: unexpected "}" in label matching, expected label matching operator
1:5: foo{,} :: unexpected "," in label matching, expected identifier or "}"
1:11: foo{a="b",,} :: unexpected "," in label matching, expected identifier or "}"
1:20: foo{__name__="bar" lol} :: unexpected identifier "lol" in label matching, expected "," or "}"
1:1: {} :: vector selector must contain at least one non-empty matcher
1:1: {x!~".+"} :: vector selector must contain at least one non-empty matcher
1:1: foo{__name__="bar"} :: metric name must not be set twice: "foo" or "bar"
1:6: foo{a!b} :: unexpected character after '!' inside braces: 'b'
1:5: foo{{ :: unexpected left brace '{'
1:5: foo[5y1hs] :: unknown unit "hs" in duration "5y1hs"
1:5: foo[5m1h] :: not a valid duration string: "5m1h"
1:5: foo[0m] :: duration must be greater than 0
1:5: foo[-1] :: duration must be greater than 0
1:5: foo["5m"] :: unexpected character in duration expression: '"'
1:5: foo[] :: unexpected "]" in subquery or range selector, expected number, duration, step(), or range()
1:5: foo[ :: unexpected end of input in duration expression
1:7: foo[5m :: unclosed left bracket
1:8: foo[5m) :: unexpected right parenthesis ')'
1:9: (foo[5m:)] :: unexpected ")" in subquery selector, expected number, duration, step(), range(), or "]"
1:8: foo[5m s] :: unexpected character: 's', expected ':'
1:6: foo[:1m] :: unexpected colon before duration in duration expression
1:22: some_metric OFFSET 1m[5m] :: no offset modifiers allowed before range
1:20: some_metric @ 1234 [5m] :: no @ modifiers allowed before range
1:12: (foo + bar)[5m] :: ranges only allowed for vector selectors
1:11: foo offset :: unexpected end of input in offset, expected number, duration, step(), or range()
1:16: foo offset (5m bar) :: unexpected identifier "bar" in offset, expected number, duration, step(), or range()
1:6: foo @ :: unexpected end of input in @, expected timestamp
1:1: foo offset 1s offset 2s :: offset may not be set multiple times
1:1: foo @ 1 @ 2 :: @ <timestamp> may not be set multiple times
1:1: foo @ Inf :: timestamp out of bounds for @ modifier: +Inf
1:12: foo offset 9.5e10 :: duration out of range
1:7: foo[5s/0d] :: division by zero
1:7: foo[5s%0d] :: modulo by zero
1:9: sum by ("foo)(a) :: unterminated quoted string
1:13: sum without(==)(a) :: unexpected <op:==> in grouping opts, expected label
1:17: sum without(foo,,)(a) :: unexpected "," in grouping opts, expected label
1:8: sum by foo (a) :: unexpected identifier "foo" in grouping opts, expected "("
1:13: sum by (foo bar) (a) :: unexpected identifier "bar" in grouping opts, expected "," or ")"
1:9: sum by (without) (a) :: unexpected <without> in grouping opts, expected label
1:9: sum by ("") (a) :: invalid label name for grouping: ""
1:12: sum by (a) + :: unexpected <op:+> in aggregation
1:11: sum by (a) :: unexpected end of input in aggregation
1:7: sum(a b) :: unexpected identifier "b" in aggregation
1:1: sum() by (a) :: no arguments for aggregate expression provided
1:1: topk(a) :: wrong number of arguments for aggregate expression provided, expected 2, got 1
1:7: topk(a,) :: trailing commas not allowed in function call args
1:7: topk(a, =) :: trailing commas not allowed in function call args
1:8: topk(a, :: unclosed left parenthesis
1:7: sum() ~ :: unexpected character: '~'
1:6: topk(a, b) :: expected type scalar in aggregation parameter, got instant vector
1:5: sum(1) :: expected type instant vector in aggregation expression, got scalar
1:1: floor() :: expected 1 argument(s) in call to "floor", got 0
1:1: hour(a, b) :: expected at most 1 argument(s) in call to "hour", got 2
1:1: label_join(a, "b") :: expected at least 3 argument(s) in call to "label_join", got 2
1:6: rate(a) :: expected type range vector in call to function "rate", got instant vector
1:9: info(a, b) :: expected label selectors only, got vector selector instead
1:9: info(a, {b="c"} + 1) :: expected label selectors only
1:1: a[5m:][5m:] :: subquery is only allowed on instant vector, got matrix instead
1:1: a[5m:] anchored :: anchored modifier is not supported for subqueries
1:1: 1 smoothed :: smoothed modifier not implemented
1:1: a anchored smoothed :: anchored and smoothed modifiers cannot be used together
1:1: "\c" :: unknown escape sequence U+0063 'c'
1:1: "\x." :: illegal character U+002E '.' in escape sequence
1:1: "\ud800" :: escape sequence is an invalid Unicode code point
1:1: "\ :: escape sequence not terminated
1:1: `a :: unterminated raw string
1:1: 'a :: unterminated quoted string
1:1: 0x1p2 :: bad number or duration syntax: "0x1"
1:1: 1__0 :: bad number or duration syntax: "1__"
1:1: 1e999 :: error parsing number: strconv.ParseFloat: parsing "1e999": value out of range
"""


@pytest.mark.parametrize("case", CASES.strip().splitlines())
def test_the_error_is_prometheus(case: str) -> None:
    place, _, rest = case.partition(": ")
    text, _, reason = rest.rpartition(" :: ")
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert str(caught.value) == f"{place}: parse error: {reason}"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "unknown position: parse error: no expression found in input"),
        (" # nothing\n", "1:1: parse error: no expression found in input"),
        ("a +\n  b c", '2:5: parse error: unexpected identifier "c"'),
        ("'é' 5", '1:6: parse error: unexpected number "5"'),
        ("sum(\n'\n')", "2:1: parse error: unterminated quoted string"),
        ("'a\ufffd'", "1:1: parse error: invalid UTF-8 rune"),
        ("'a\udcff'", "1:1: parse error: invalid UTF-8 rune"),
        ("a\x00", "1:2: parse error: unexpected character: '\\x00'"),
        ('a{b=~"x**"}', "1:3: parse error: error parsing regexp: invalid nested repetition operator: `**`"),
        ('a{b=~"x)|(y"}', "1:3: parse error: error parsing regexp: unexpected ): `x)|(y`"),
        ('a{b=~"("}', "1:3: parse error: error parsing regexp: missing closing ): `(`"),
        (r"a{b=~`x\`}", "1:3: parse error: error parsing regexp: trailing backslash at end of expression: ``"),
        # What is no token is found before what stands in front of it is judged.
        ("a[0m", "1:5: parse error: unclosed left bracket"),
        ("a[5s / 0s", "1:10: parse error: unclosed left bracket"),
    ],
)
def test_positions_are_lines_and_columns_in_bytes(text: str, error: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert str(caught.value) == error


NOTHING = ParserOptions(False, False, False, False)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("info(a)", '1:1: parse error: function "info" is not enabled'),
        (
            "limitk(1, a)",
            "1:1: parse error: limitk() is experimental and must be enabled with "
            "--enable-feature=promql-experimental-functions",
        ),
        ("a[5m + 1m]", "1:3: parse error: experimental duration expression is not enabled"),
        ("a[step()]", "1:3: parse error: experimental duration expression is not enabled"),
        ("a offset -step()", "1:10: parse error: experimental duration expression is not enabled"),
        ("a offset +min_of(1s, 2s)", "1:10: parse error: experimental duration expression is not enabled"),
        ("a offset min_of(1s, 2s)", "1:17: parse error: experimental duration expression is not enabled"),
        ("a[min_of(1s, 2s)]", "1:10: parse error: experimental duration expression is not enabled"),
        ("a offset (5)", "1:11: parse error: experimental duration expression is not enabled"),
        ("a offset -(5 + 1)", "1:12: parse error: experimental duration expression is not enabled"),
        ("a[5m] anchored", "1:1: parse error: anchored modifier is experimental and not enabled"),
        ("a smoothed", "1:1: parse error: smoothed modifier is experimental and not enabled"),
        ("a + fill (0) b", "1:1: parse error: binop fill modifiers are experimental and not enabled"),
    ],
)
def test_experimental_syntax_can_be_off(text: str, error: str) -> None:
    parse(text)
    with pytest.raises(ParseError) as caught:
        parse(text, NOTHING)
    assert str(caught.value) == error


def test_upstream_takes_a_signed_offset_in_parentheses_from_everybody() -> None:
    assert parse("a offset -(5)", NOTHING) == parse("a offset -(5)")


@pytest.mark.parametrize(
    "text", ["a offset nan", "a offset -nan", "a @ 1e17", "a @ -1e17", "a @ 5e15", "a[5m] offset NaN"]
)
def test_times_out_of_all_bounds_find_nothing(text: str) -> None:
    source = ListSource([({"__name__": "a"}, [(0, 1.0)])])
    query = text if "[" not in text else f"sum_over_time({text})"
    assert not len(Engine().range(query, source, 0, 120_000, 60_000).value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("left", "middle", "right"),
    [
        ("(", "a", ")"),
        ("-", "a", ""),
        ("abs(", "a", ")"),
        ("sum by (b) (", "a", ")"),
        ("", "a", " + a"),
        ("", "a", " ^ a"),
        ("max_over_time(", "a", "[5m:])"),
        ("a[(", "5m", ")]"),
        ("((((", "", ""),
    ],
)
@pytest.mark.parametrize("count", [10, MAX_NESTING - 20, MAX_NESTING + 1, MAX_LEVELS + 1, 1_000, 20_000])
def test_deep_expressions_are_parsed_or_refused(left: str, middle: str, right: str, count: int) -> None:
    text = left * count + middle + right * count
    try:
        parse(text)
    except ParseError as error:
        assert count > 10 or not middle or "a[(" in text, error
        return
    assert count <= MAX_LEVELS


def test_an_error_crosses_processes_whole() -> None:
    with pytest.raises(ParseError) as caught:
        parse("a +")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a + b", "1:3: parse error: unexpected <op:+>"),
        ("", "unknown position: parse error: unexpected end of input"),
        ("1", '1:1: parse error: unexpected number "1"'),
        ("a[5m]", '1:2: parse error: unexpected "["'),
    ],
)
def test_a_selector_is_nothing_more(text: str, error: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_selector(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('a{b!="c"}', '1:4: parse error: unexpected <op:!=> in label set, expected "="'),
        ("a{b=c}", '1:5: parse error: unexpected identifier "c" in label set, expected string'),
        ('a{b="c" d="e"}', '1:9: parse error: unexpected identifier "d" in label set, expected "," or "}"'),
        ("a{,}", '1:3: parse error: unexpected "," in label set, expected identifier or "}"'),
    ],
)
def test_a_metric_has_labels_not_matchers(text: str, error: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_metric(text)
    assert str(caught.value) == error


WORDS = st.sampled_from([*'(){}[],:+-*^@"`\\#\n.!=é', "==", "=~", "!=", "5m", "1", "0x", "1e", "'x'", "x:y", "Inf"]) | (
    st.sampled_from(["a", "sum", "by", "offset", "and", "on", "bool", "group_left", "fill", "step", "rate", "start"])
)


@settings(deadline=None, max_examples=400)
@given(st.lists(WORDS, max_size=25), st.sampled_from(["", " "]))
def test_any_text_is_parsed_or_refused(words: list[str], between: str) -> None:
    text = between.join(words)
    try:
        node = parse(text)
    except ParseError as error:
        assert 0 <= error.span.start <= len(text.encode())
        assert "parse error: " in str(error)
    else:
        assert 0 <= node.span.start < node.span.end <= len(text.encode())


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_characters_are_parsed_or_refused(text: str) -> None:
    for read in (parse, parse_selector, parse_metric):
        try:
            read(text)
        except InvalidArgument as error:
            assert isinstance(error, ParseError)
