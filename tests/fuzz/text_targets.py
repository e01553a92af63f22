"""Decoders of languages: PromQL, matchers, durations, times, rule files, configuration, relabelling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimir_ray.config.loader import load, parse_yaml
from mimir_ray.config.overrides import RuntimeDefaults, parse
from mimir_ray.deploy.settings import Settings
from mimir_ray.errors import ClientError
from mimir_ray.gateway.parameters import BadParameter, parse_duration_ms, parse_time_ms
from mimir_ray.model.durations import parse_duration
from mimir_ray.model.matchers import Matcher, MatchType, compile_regex
from mimir_ray.model.regex_automaton import automaton_of
from mimir_ray.model.rules import parse_rule_file
from mimir_ray.promql.engine import Engine
from mimir_ray.promql.limits import EvaluationError
from mimir_ray.promql.syntax.parser import parse as parse_promql
from mimir_ray.promql.syntax.parser import parse_metric, parse_selector
from mimir_ray.promql.syntax.printer import format_expr, pretty
from mimir_ray.roles.ruler.sample import Sample
from mimir_ray.roles.ruler.templates import AlertData, alert_functions, check_template, expand
from mimir_ray.testing.sources import ListSource
from tests.fuzz.mutation import of_text
from tests.fuzz.target import Target

_EXPRESSIONS = (
    'sum by (job, "a.b") (rate(m_total{job=~"a|b.*",code!="500"}[5m] offset 1h)) / on (job) group_left (x) up',
    "histogram_quantile(0.9, sum without (instance) (increase(h_bucket[1h:1m] @ end())))",
    'label_replace(up, "dst", "$1-${2}", "src", "(.*)-(.+)") unless on () vector(1) > bool 0x1F',
    'topk(5, {"utf8.name", le="+Inf"}) or -avg_over_time(up[1h30m]) ^ 2 % 3e4 atan2 NaN',
    'quantile_over_time(scalar(up), m[5m]) and ignoring (a) count_values("v", up @ 1700000000.5) == Inf',
    "limitk(2, up) + fill(1) info(up) * min_of(step(), 5m) >= 1_000 # a comment\n",
    "sum(rate(x[2m] anchored)) - (((up))) offset -(5m + 1s)",
)
_PROMQL_WORDS = (
    *("sum", "by", "without", "(", ")", "[", "]", "{", "}", ",", "5m", "1h", "[5m]", "[1h:1s]"),
    *("[1h:]", "@ end()", "@ start()"),
    *("offset", "-", "+", "*", "/", "^", "%", "==", "!=", "=~", "!~", "=", ">", "bool", "and", "or"),
    *("unless", "atan2", "on()"),
    *("ignoring(a)", "group_left", "group_right(x)", "up", "rate", "histogram_quantile", "label_join"),
    *("absent", "scalar"),
    *("vector", "time()", "NaN", "Inf", "0x", "1e999", "1_0", ".5", "1.", "08", '"a"', "'b\\'", "`c`"),
    *('"\\xff"', '"\\u00"', "#"),
    *("anchored", "smoothed", "fill(0)", "fill_left(1)", "topk", "quantile", "count_values"),
    *("limit_ratio", "sort_by_label"),
    *("\n", "\t", " ", "é", "\ud7ff", "😀", "9999999999999999999", "1y", "5ms3s", "{", "}", "$__range"),
    *("step()", "max_of("),
)  # fmt: skip


def _tell(error: ClientError) -> None:
    """Its text is made when it is answered."""
    str(error).encode()


def _promql(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for read in (parse_selector, parse_metric):
        try:
            read(text)
        except ClientError as error:
            _tell(error)
    try:
        node = parse_promql(text)
    except ClientError as error:
        _tell(error)
        raise
    again = format_expr(node)
    assert format_expr(parse_promql(again)) == again
    pretty(node)


def _source() -> ListSource:
    source = ListSource()
    for job in ("a", "b"):
        source.add((("__name__", "up"), ("job", job)), [(at * 15_000, float(at)) for at in range(40)])
        for le in ("0.1", "1", "+Inf"):
            labels = (("__name__", "h_bucket"), ("job", job), ("le", le))
            source.add(labels, [(at * 15_000, float(at)) for at in range(40)])
    return source


_SOURCE = _source()
_ENGINE = Engine()


def _query(data: bytes) -> None:
    """Parsed, planned and run, as an instant and as a range."""
    text = data.decode("utf-8", "replace")
    try:
        _ENGINE.instant(text, _SOURCE, 300_000)
        _ENGINE.range(text, _SOURCE, 0, 600_000, 150_000)
    except ClientError as error:
        _tell(error)
        raise


def _matchers(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for kind in MatchType:
        try:
            matcher = Matcher(kind, "a", text)
        except ClientError as error:
            _tell_surrogates(error)
            continue
        for value in ("", "a", "b" * 50, text):
            taken = matcher.accepts(value)
            if matcher.alternatives is not None and not matcher.is_negative:
                assert taken == (value in matcher.alternatives), (kind, text, value)
            if matcher.prefix is not None and taken and not matcher.is_negative:
                assert value.startswith(matcher.prefix[0])
        str(matcher)


_VALUES = ("", "a", "ab", "abc", "A", "é", "\n", "a\nb", "b" * 50, "0", "zz zz", "\u4e2d\U0001f600", "a|b", ".*")
_VALUE_BYTES = [value.encode() for value in _VALUES]
_CUTS = np.concatenate(([0], np.cumsum([len(value) for value in _VALUE_BYTES]))).astype(np.int64)


def _regex_tables(data: bytes) -> None:
    """A pattern as tables says what RE2 says."""
    pattern = data.decode("utf-8", "replace")
    regex = compile_regex(pattern)
    automaton = automaton_of(pattern)
    if automaton is None:
        return
    values = np.frombuffer(b"".join(_VALUE_BYTES), np.uint8)
    fits = automaton.accepts(values, _CUTS[:-1].copy(), _CUTS[1:].copy()).tolist()
    assert fits == [regex(value) is not None for value in _VALUES], (pattern, fits)


def _tell_surrogates(error: ClientError) -> None:
    str(error).encode("utf-8", "surrogateescape")


def _durations(data: bytes) -> None:
    try:
        assert isinstance(parse_duration(data.decode("utf-8", "replace")), int)
    except ValueError as error:  # what calls it says which parameter it was
        raise BadParameter("step", str(error)) from error


_TIMES = ("1700000000.123", "2023-11-14T22:13:20.5Z", "2023-11-14T22:13:20+01:00", "1h30m", "5", "-292273086-05-16")
_TIME_WORDS = (
    "-",
    "T",
    "Z",
    ":",
    ".",
    "+99:99",
    "1e999",
    "0x",
    "e9",
    "_",
    "9999-12-31T23:59:60Z",
    "\u0663",
    "1y",
    "ms",
)


def _times(data: bytes) -> None:
    """As HTTP parameters."""
    text = data.decode("utf-8", "replace")
    found = None
    for read in (parse_time_ms, parse_duration_ms):
        try:
            found = read(text)
        except ValueError as error:
            problem = error
        else:
            assert isinstance(found, int)
    if found is None:
        raise BadParameter("time", str(problem))


_TEMPLATES = (
    '{{ $labels.job }} {{ humanize $value }} {{ .ExternalURL }} {{ printf "%5.2f %q %v" 1.5 "a" .Labels }}',
    '{{ range query "up" }}{{ .Labels.job }}={{ .Value | humanizePercentage }};{{ else }}none{{ end }}',
    '{{ define "a" }}{{ . }}{{ end }}{{ template "a" .Value }}{{ if and (gt .Value 1.0) (not false) }}x{{ end -}} y',
    '{{ with $x := first (query "up") }}{{ $x.Value }}{{ end }}{{ reReplaceAll "(.*)" "$1$1" "ab" | toUpper | title }}',
    '{{ len .Labels }} {{ index .Labels "job" }} {{ slice "abc" 1 2 }} {{ html "<a>" }} {{ humanizeDuration 3600 }}',
)
_TEMPLATE_WORDS = (
    *("{{", "}}", "{{-", "-}}", "{{/*", "*/}}", "range", "end", "else", "if", "with", "define", "template", "block"),
    *("$", "$x :=", "$labels", "$value", ".", ".Labels", ".Value", "|", "(", ")", '"', "`", "'a'", "0x1F", "1e999"),
    *("printf", '"%999999999d"', '"%*d"', '"%[3]*.[2]*[1]f"', "%v", "len", "index", "slice", "call", "and", "or"),
    *("query", "first", "value", "strvalue", "sortByLabel", "reReplaceAll", "humanize1024", "toTime", "parseDuration"),
    *("args", "tmpl", "safeHtml", "match", "title", "stripPort", "break", "continue", "nil", "true", "é", "\n"),
)  # fmt: skip


def _template(data: bytes) -> None:
    """Of a rule's annotation: checked when rules are uploaded, carried out when the alert fires."""
    text = data.decode("utf-8", "replace")
    labels = (("__name__", "up"), ("job", "a"))
    functions = alert_functions(lambda expression, time_ms: [Sample(labels, time_ms, 1.5)], 1000, "http://a/b")
    made = expand("Down", text, AlertData(labels, {"cluster": "c"}, "http://x", 2.5), functions)
    made.encode()
    check_template("Down", text)


_RULES = (
    b"groups:\n- name: a\n  interval: 1m\n  limit: 5\n  query_offset: 1m\n  labels: {team: x}\n  rules:\n"
    b"  - record: job:up:sum\n    expr: sum by (job) (up)\n    labels: {a: b}\n"
    b"  - alert: Down\n    expr: up == 0\n    for: 5m\n    keep_firing_for: 1m\n"
    b"    annotations: {summary: '{{ $labels.job }} {{ humanize $value }}'}\n",
)


def _rules(data: bytes) -> None:
    parse_rule_file(data.decode("utf-8", "replace"))


_CONFIGURATIONS = (
    b"target: all\nserver:\n  http_listen_port: 9009\n  http_server_read_timeout: 1m\nlimits:\n"
    b"  ingestion_rate: 1e4\n  ha_replica_label: r\n"
    b"  metric_relabel_configs:\n  - source_labels: [a, b]\n    regex: '(.*);x'\n"
    b"    target_label: c\n    replacement: $1\n    action: replace\n"
    b"  - {action: hashmod, modulus: 4, target_label: s}\n"
    b"  blocked_queries:\n  - pattern: up\n    regex: true\n",
    b"common:\n  storage:\n    backend: s3\n    s3: {bucket_name: b, endpoint: h}\nblocks_storage: &x\n"
    b"  tsdb: {dir: d}\n"
    b"ingester: {}\ndistributor:\n  max_recv_msg_size: 100\n",
)
_OVERRIDES = (
    b"overrides:\n  team-a: &a\n    ingestion_rate: 10\n    max_label_names_per_series: 30\n"
    b"    metric_relabel_configs:\n    - {action: labeldrop, regex: 'x.*'}\n    promote_otel_resource_attributes: a,b\n"
    b"  team-b: *a\n  team-c:\n    <<: *a\n    out_of_order_time_window: 1h\ningester_limits: {max_series: 5}\n",
)
_YAML_WORDS = (
    *(": ", "\n", "\n  ", "- ", "{", "}", "[", "]", "&a ", "*a", "<<: *a"),
    *("!!python/object:os.system ", "!!binary ", "!!set "),
    *("null", "true", "-1", "1e999", ".inf", ".nan", "0x7f", "1h", "100y", "''", '"\\x"', "|", ">"),
    *("? ", "%YAML 9", "---", "..."),
    *("2001-99-99", "2001-01-01", "\t", "é", "\0", "#", "limits", "overrides", "regex: '('", "${A:-}"),
    *("[[[[[[[[", "1_000", "0o9"),
    *("~", "0b", "99999999999999999999", "modulus: 0", "action: x", "1:2:3", "=", "- - - - -", "'"),
)  # fmt: skip


def _configuration(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    load(Settings(), ["-config.file=a.yaml", "-config.expand-env=true"], {"A": "b"}, lambda path: text)


def _overrides(data: bytes) -> None:
    parse([parse_yaml(data.decode("utf-8", "replace"))], RuntimeDefaults())


def _seeds(*texts: str) -> Sequence[bytes]:
    return [text.encode() for text in texts]


_REGEX_WORDS = (
    *("(", ")", "(?:", "(?i)", "(?P<a>", "|", "*", "+", "?", "{1,2}", "{1000}", "{", "}", "[a-z]"),
    *("[^", "]", "[[:alpha:]]"),
    *("\\d", "\\pL", "\\p{Greek}", "\\Q", "\\E", "\\x{10FFFF}", "\\xff", "\\b", "\\C", "^", "$", "."),
    *(".*", ".+", "a", "é", "\n", "\\"),
    *("\\1", "(?=a)", "(a*)*", "(?s:.)", "\\z", "\\A", "\0"),
)  # fmt: skip

TARGETS = (
    Target("promql", _promql, lambda: _seeds(*_EXPRESSIONS), of_text(*_PROMQL_WORDS), bytes_per_byte=4000, share=2),
    Target(
        "query",
        _query,
        lambda: _seeds(*_EXPRESSIONS),
        of_text(*_PROMQL_WORDS),
        (ClientError, EvaluationError),
        bytes_per_byte=20_000,
        bytes_more=16 << 20,
        share=0.5,
    ),
    Target(
        "matchers",
        _matchers,
        lambda: _seeds("a|b|c.*", "a.+", "(?i)ab?[c-e]{1,3}"),
        of_text(*_REGEX_WORDS),
        bytes_per_byte=4000,
    ),
    Target(
        "durations",
        _durations,
        lambda: _seeds("1h30m", "5ms", "1y2w3d", "0", "1.5"),
        of_text("1h", "m", "s", "ms", "y", "w", "d", "0", "-1", "9999999999", ".", "e", "é"),
        share=0.25,
    ),
    Target("times", _times, lambda: _seeds(*_TIMES), of_text(*_TIME_WORDS), share=0.25),
    Target(
        "regex-tables",
        _regex_tables,
        lambda: _seeds("a|b|c.*", "a.+", "(?i)ab?[c-e]{1,3}", "(a|b)*a(a|b){3}", "\\d+|[^a-c]{2}|(?s:.)", "z*\\z|^$"),
        of_text(*_REGEX_WORDS),
        bytes_per_byte=4000,
        bytes_more=16 << 20,
    ),
    Target(
        "templates",
        _template,
        lambda: _seeds(*_TEMPLATES),
        of_text(*_TEMPLATE_WORDS),
        bytes_per_byte=20_000,
        bytes_more=32 << 20,
        share=0.5,
    ),
    Target(
        "rules", _rules, lambda: _RULES, of_text(*_YAML_WORDS, *_PROMQL_WORDS[:30]), bytes_per_byte=20_000, share=0.3
    ),
    Target(
        "configuration",
        _configuration,
        lambda: _CONFIGURATIONS,
        of_text(*_YAML_WORDS),
        bytes_per_byte=20_000,
        bytes_more=8 << 20,
        share=0.3,
    ),
    Target(
        "overrides",
        _overrides,
        lambda: _OVERRIDES,
        of_text(*_YAML_WORDS),
        bytes_per_byte=20_000,
        bytes_more=8 << 20,
        share=0.3,
    ),
)
