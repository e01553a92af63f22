"""The template engine by itself: bounds, data that rules do not have, input of any kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ray.gotemplate.errors import FunctionError, TemplateExecutionError, TemplateSyntaxError
from mimir_ray.gotemplate.execution import Limits
from mimir_ray.gotemplate.formatting import sprintf
from mimir_ray.gotemplate.template import Template
from mimir_ray.gotemplate.times import Duration, Time
from mimir_ray.gotemplate.values import ANY, Function, Object, StringMap


def run(text: str, data: object = None, **options: object) -> str:
    return Template.parse("x", text).execute(data, **options)  # type: ignore[arg-type]


class Pairs(StringMap):
    go_type = "template.KV"
    methods = {"Names": Function(sorted), "Get": Function(lambda self, key: self[key], ("string",))}


class Person(Object):
    go_type = "*main.Person"
    fields = ("Name", "Tags")

    def __init__(self) -> None:
        self.Name = "ann"
        self.Tags = Pairs(b="2", a="1")


def test_fields_methods_and_keys_are_reached_through_chains() -> None:
    text = '{{ .Name }} {{ .Tags.a }} {{ .Tags.Names }} {{ .Tags.Get "b" }} {{ (.Tags.Get "a") | printf "%q" }}'
    assert run(text, Person()) == 'ann 1 [a b] 2 "1"'


def test_a_method_gets_the_value_of_the_pipeline_as_its_last_argument() -> None:
    assert run('{{ "a" | .Tags.Get }}', Person()) == "1"


def test_a_missing_key_is_no_value_unless_the_zero_of_its_type_is_asked_for() -> None:
    assert run("{{ .Tags.zz }}", Person()) == "<no value>"
    assert run("{{ .Tags.zz }}|{{ .nope }}", {"Tags": Pairs()}, zero_missing=True) == "|<no value>"


def test_call_invokes_a_function_that_the_data_holds() -> None:
    data = {"double": Function(lambda number: number * 2, ("int",))}
    assert run("{{ call .double 4 }}", data) == "8"
    with pytest.raises(TemplateExecutionError, match=r"wrong number of args: got 0 want 1"):
        run("{{ call .double }}", data)


def test_an_error_names_the_template_that_is_being_carried_out_and_the_byte_of_its_line() -> None:
    text = 'é\n{{ define "inner" }}ü {{ index .list 7 }}{{ end }}{{ template "inner" . }}'
    with pytest.raises(TemplateExecutionError) as caught:
        run(text, {"list": [1]})
    assert str(caught.value) == (
        'template: x:2:26: executing "inner" at <index .list 7>: error calling index: index out of range: 7'
    )


def test_a_template_by_name_is_carried_out_with_the_definitions_of_the_text() -> None:
    template = Template.parse("x", '{{ define "a" }}[{{ template "b" . }}]{{ end }}{{ define "b" }}{{ . }}{{ end }}')
    assert template.execute(5, template="a") == "[5]"
    with pytest.raises(TemplateExecutionError, match='no template "c" associated with template "x"'):
        template.execute(5, template="c")


@pytest.mark.parametrize(
    ("text", "limits", "reason"),
    [
        ("{{ range 1000000000 }}{{ end }}", Limits(steps_max=1_000), "steps"),
        ("{{ range 1000 }}abcdefgh{{ end }}", Limits(output_max=100), "output"),
        ('{{ range 1000 }}{{ printf "%999999d" 1 }}{{ end }}', Limits(), "output"),
        ('{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}', Limits(depth_max=7), r"depth \(7\)"),
    ],
)
def test_what_would_never_end_is_stopped(text: str, limits: Limits, reason: str) -> None:
    with pytest.raises(TemplateExecutionError, match=f"exceeded maximum.*{reason}"):
        run(text, limits=limits)


def test_many_wide_numbers_in_one_format_are_refused() -> None:
    with pytest.raises(FunctionError, match="too large"):
        sprintf("%999999d" * 40, [1] * 40)


@pytest.mark.parametrize("text", ["{{ if 1 }}" * 200, "{{ " + "(" * 200, "{{ if 1 }}" + "{{ else if 1 }}" * 200])
def test_nesting_is_bounded(text: str) -> None:
    with pytest.raises(TemplateSyntaxError, match="exceeded maximum nesting of 100"):
        Template.parse("x", text)


WORDS = (
    "{{ }} {{- -}} if else end range with define template block break continue $x := = | ( ) . .a .b.c $ 1 -2.5 0x"
    " \"s\" `r` 'c' nil true printf index len slice eq lt and or not call html /* */ , é \\ %v text"
)


def test_deep_blocks_in_deep_templates_are_an_error_and_no_crash() -> None:
    text = '{{ define "a" }}' + "{{ if 1 }}" * 95 + '{{ template "a" }}' + "{{ end }}" * 96 + '{{ template "a" }}'
    with pytest.raises(TemplateExecutionError, match="exceeded maximum template depth"):
        run(text)


PIECES = st.sampled_from([*WORDS.split(), "\n"])


@given(st.lists(PIECES, max_size=25).map(" ".join) | st.text(max_size=40).map("{{ ".__add__))
def test_any_text_is_a_template_or_a_syntax_error_and_runs_or_fails_in_order(text: str) -> None:
    try:
        template = Template.parse("x", text)
    except TemplateSyntaxError as error:
        assert str(error).startswith("template: x:")
        return
    data = {"a": 1, "b": {"c": [1, 2]}, "s": "t"}
    try:
        template.execute(data, limits=Limits(steps_max=1_000))
    except TemplateExecutionError as error:
        assert str(error).startswith("template: ")


@given(st.text(alphabet="%#+- 0123456789.*[]vTtdxXoObcqUeEfFgGs!z", max_size=12), st.lists(
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats() | st.text(max_size=3)
    | st.dictionaries(st.text(max_size=2), st.integers()), max_size=3))  # fmt: skip
def test_any_format_with_any_values_gives_a_text(form: str, values: list[object]) -> None:
    assert isinstance(sprintf(form, values), str)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0s"), (1, "1ns"), (1_100, "1.1µs"), (2_200_000, "2.2ms"), (3_300_000_000, "3.3s"), (-90 * 10**9, "-1m30s"),
     (3_600_000_000_000, "1h0m0s"), (3_723_004_000_000, "1h2m3.004s")],
)  # fmt: skip
def test_durations_look_as_in_go(nanoseconds: int, text: str) -> None:
    assert Duration(nanoseconds).go_string() == text


def test_times_are_formatted_by_gos_layouts() -> None:
    time = Time(1_435_065_584_128_000_000)
    assert time.go_string() == "2015-06-23 13:19:44.128 +0000 UTC"
    assert time.format("Mon, 02 Jan 06 03:04:05.000000 PM -0700 MST") == "Tue, 23 Jun 15 01:19:44.128000 PM +0000 UTC"
    assert (
        run('{{ .Month }} {{ .Weekday }} {{ eq .Year 2015 }} {{ printf "%d" .Month }}', time) == "June Tuesday true 6"
    )


def test_functions_that_are_passed_in_check_the_types_of_their_arguments() -> None:
    functions = {"shout": Function(str.upper, ("string",)), "any": Function(lambda *args: len(args), (), ANY)}
    assert Template.parse("x", '{{ shout "a" }} {{ any 1 "b" nil . }}', functions).execute(None) == "A 4"
    with pytest.raises(TemplateExecutionError, match="wrong type for value; expected string; got int"):
        Template.parse("x", "{{ .a | shout }}", functions).execute({"a": 1})
