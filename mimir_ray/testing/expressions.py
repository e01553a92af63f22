"""Hypothesis strategies for texts of well-typed PromQL expressions."""

from __future__ import annotations

from hypothesis import strategies as st

_NAMES = st.sampled_from(["a", "up", "job:x:rate5m", "sum", "offset", "step", "fill", "by", "and", "start"])
_LABELS = st.sampled_from(["a", "b", "job", "on", "bool", '"my.label"'])
_STRINGS = st.sampled_from(['"x"', "'y'", "`z\\`", '"\\n\\"\\u00e9\\xc3\\xa9"', '""', '"日本"'])
_DURATIONS = st.sampled_from(["5m", "1h30m", "90", "1.5", "500ms", "1w2d", "0x10"])
_DURATION_EXPRS = st.recursive(
    _DURATIONS | st.sampled_from(["step()", "range()"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/%^"), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("-{}".format),
        st.tuples(st.sampled_from(["max_of", "min_of"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
    ),
    max_leaves=4,
)
_RANGES = _DURATIONS | _DURATION_EXPRS.map("1 + ({})".format)
# Upstream prints Inf as +Inf, and a sign in front of a power is not part of the number: hence the parentheses.
_NUMBERS = st.sampled_from(["1", "0.5", "1e3", "0x1F", "(Inf)", "1_000", "017", "5m", "1e-7", "3e22"])


@st.composite
def _matchers(draw: st.DrawFn) -> str:
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        label, op = draw(_LABELS), draw(st.sampled_from(["=", "!=", "=~", "!~"]))
        value = draw(st.sampled_from(['"x"', "'a|b'", '""', '"a.+"']))
        parts.append(f"{label}{op}{value}")
    return f"{{{', '.join(parts)}}}"


@st.composite
def _modifiers(draw: st.DrawFn) -> str:
    found = []
    if draw(st.booleans()):
        found.append(f"offset {draw(_DURATIONS | st.sampled_from(['-5m', '-step()', '(1m * 2)', 'range()']))}")
    if draw(st.booleans()):
        found.append(f"@ {draw(st.sampled_from(['1.5', '-3', 'start()', 'end()', '1700000000']))}")
    return " ".join(draw(st.permutations(found)))


@st.composite
def _selectors(draw: st.DrawFn) -> str:
    braces = draw(_matchers() | st.just(""))
    if draw(st.booleans()):
        return draw(_NAMES) + braces
    return '{"a.b"' + f"{', ' + braces[1:-1] if len(braces) > 2 else ''}}}"


@st.composite
def _instant(draw: st.DrawFn) -> str:
    return f"{draw(_selectors())} {draw(_modifiers())}"


@st.composite
def _grouped(draw: st.DrawFn, vectors: st.SearchStrategy[str]) -> str:
    op = draw(st.sampled_from(["sum", "avg", "group", "topk", "quantile", "count_values", "limit_ratio"]))
    param = {"topk": "3, ", "quantile": "0.9, ", "count_values": '"v", ', "limit_ratio": "-0.5, "}.get(op, "")
    labels = f"{draw(st.sampled_from(['by', 'without']))} ({', '.join(draw(st.lists(_LABELS, max_size=3)))})"
    body = f"({param}{draw(vectors)})"
    return draw(st.sampled_from([f"{op}{body}", f"{op} {labels} {body}", f"{op}{body} {labels}"]))


@st.composite
def _joined(draw: st.DrawFn, vectors: st.SearchStrategy[str], scalars: st.SearchStrategy[str]) -> str:
    left, right = draw(vectors), draw(vectors)
    kind = draw(st.sampled_from(["arithmetic", "comparison", "set", "scalar"]))
    labels = f"{draw(st.sampled_from(['on', 'ignoring']))} ({draw(_LABELS)})"
    group = f"{labels} {draw(st.sampled_from(['group_left', 'group_right (c)', 'group_left ()']))}"
    matching = draw(st.sampled_from(["", labels, group]))
    fill = draw(st.sampled_from(["", "fill (0)", "fill_left (1)", "fill_right (-2) fill_left (1e9)"]))
    if kind == "set":
        return f"{left} {draw(st.sampled_from(['and', 'or', 'unless']))} {draw(st.sampled_from(['', labels]))} {right}"
    if kind == "scalar":
        op = draw(st.sampled_from(["+", "^", ">", "== bool", "atan2", ">/", "</"]))
        return draw(st.sampled_from([f"{left} {op} {draw(scalars)}", f"{draw(scalars)} {op} {right}"]))
    if kind == "comparison":
        op = draw(st.sampled_from(["==", "!=", "<", ">=", "> bool"]))
    else:
        op = draw(st.sampled_from(["+", "-", "*", "/", "%", "^", "atan2", "</", ">/"]))
    return f"{left} {op} {matching} {fill} {right}"


@st.composite
def _ranged(draw: st.DrawFn, vectors: st.SearchStrategy[str]) -> str:
    extended = draw(st.sampled_from(["", " anchored", " smoothed"]))
    if draw(st.booleans()):
        inner = f"{draw(_selectors())}[{draw(_RANGES)}]{extended} {draw(_modifiers())}"
    else:
        step = draw(_RANGES | st.just(""))
        inner = f"({draw(vectors)})[{draw(_RANGES)}:{step}] {draw(_modifiers())}"
    return f"{draw(st.sampled_from(['rate', 'max_over_time', 'deriv']))}({inner})"


def _vectors(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    scalars = _NUMBERS | inner.map("scalar({})".format)
    return st.one_of(
        _grouped(inner),
        _joined(inner, scalars),
        _ranged(inner),
        inner.map("({})".format),
        inner.map("-{}".format),
        inner.map("+{}".format),
        inner.map('label_replace({}, "a", "$1", "b", "(.*)")'.format),
        st.tuples(inner, scalars).map(lambda pair: f"clamp_max({pair[0]}, {pair[1]})"),
        scalars.map("vector({})".format),
    )


def vectors() -> st.SearchStrategy[str]:
    """Texts of expressions that are instant vectors."""
    return st.recursive(_instant(), _vectors, max_leaves=6)


def expressions() -> st.SearchStrategy[str]:
    """Texts of expressions of every type."""
    scalars = st.tuples(_NUMBERS, st.sampled_from(["+", "^", "%", "> bool"]), _NUMBERS).map(" ".join)
    return st.one_of(vectors(), _NUMBERS, scalars, _STRINGS, st.just("time()"), _selectors().map("{}[5m]".format))
