"""Hypothesis strategies for texts of well-typed PromQL expressions."""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "up", "job:x:rate5m", "sum", "offset", "step", "fill", "by", "and", "start"])
LABELS = st.sampled_from(["a", "b", "job", "on", "bool", '"my.label"'])
STRINGS = st.sampled_from(['"x"', "'y'", "`z\\`", '"\\n\\"\\u00e9\\xc3\\xa9"', '""', '"日本"'])
DURATIONS = st.sampled_from(["5m", "1h30m", "90", "1.5", "500ms", "1w2d", "0x10"])
DURATION_EXPRS = st.recursive(
    DURATIONS | st.sampled_from(["step()", "range()"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/%^"), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("-{}".format),
        st.tuples(st.sampled_from(["max_of", "min_of"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
    ),
    max_leaves=4,
)
RANGES = DURATIONS | DURATION_EXPRS.map("1 + ({})".format)
# Upstream prints Inf as +Inf, and a sign in front of a power is not part of the number: hence the parentheses.
NUMBERS = st.sampled_from(["1", "0.5", "1e3", "0x1F", "(Inf)", "1_000", "017", "5m", "1e-7", "3e22"])


@st.composite
def matchers(draw: st.DrawFn) -> str:
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        label, op = draw(LABELS), draw(st.sampled_from(["=", "!=", "=~", "!~"]))
        value = draw(st.sampled_from(['"x"', "'a|b'", '""', '"a.+"']))
        parts.append(f"{label}{op}{value}")
    return f"{{{', '.join(parts)}}}"


@st.composite
def modifiers(draw: st.DrawFn) -> str:
    found = []
    if draw(st.booleans()):
        found.append(f"offset {draw(DURATIONS | st.sampled_from(['-5m', '-step()', '(1m * 2)', 'range()']))}")
    if draw(st.booleans()):
        found.append(f"@ {draw(st.sampled_from(['1.5', '-3', 'start()', 'end()', '1700000000']))}")
    return " ".join(draw(st.permutations(found)))


@st.composite
def selectors(draw: st.DrawFn) -> str:
    braces = draw(matchers() | st.just(""))
    if draw(st.booleans()):
        return draw(NAMES) + braces
    return '{"a.b"' + f"{', ' + braces[1:-1] if len(braces) > 2 else ''}}}"


@st.composite
def vectors_of_selectors(draw: st.DrawFn) -> str:
    return f"{draw(selectors())} {draw(modifiers())}"


@st.composite
def grouped(draw: st.DrawFn, vectors: st.SearchStrategy[str], scalars: st.SearchStrategy[str]) -> str:
    op = draw(st.sampled_from(["sum", "avg", "group", "topk", "quantile", "count_values", "limit_ratio"]))
    param = {"topk": "3, ", "quantile": "0.9, ", "count_values": '"v", ', "limit_ratio": "-0.5, "}.get(op, "")
    labels = f"{draw(st.sampled_from(['by', 'without']))} ({', '.join(draw(st.lists(LABELS, max_size=3)))})"
    body = f"({param}{draw(vectors)})"
    return draw(st.sampled_from([f"{op}{body}", f"{op} {labels} {body}", f"{op}{body} {labels}"]))


@st.composite
def joined(draw: st.DrawFn, vectors: st.SearchStrategy[str], scalars: st.SearchStrategy[str]) -> str:
    left, right = draw(vectors), draw(vectors)
    kind = draw(st.sampled_from(["arithmetic", "comparison", "set", "scalar"]))
    labels = f"{draw(st.sampled_from(['on', 'ignoring']))} ({draw(LABELS)})"
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
def ranged(draw: st.DrawFn, vectors: st.SearchStrategy[str], scalars: st.SearchStrategy[str]) -> str:
    extended = draw(st.sampled_from(["", " anchored", " smoothed"]))
    if draw(st.booleans()):
        inner = f"{draw(selectors())}[{draw(RANGES)}]{extended} {draw(modifiers())}"
    else:
        step = draw(RANGES | st.just(""))
        inner = f"({draw(vectors)})[{draw(RANGES)}:{step}] {draw(modifiers())}"
    return f"{draw(st.sampled_from(['rate', 'max_over_time', 'deriv']))}({inner})"


def _vectors(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    scalars = NUMBERS | inner.map("scalar({})".format)
    return st.one_of(
        grouped(inner, scalars),
        joined(inner, scalars),
        ranged(inner, scalars),
        inner.map("({})".format),
        inner.map("-{}".format),
        inner.map("+{}".format),
        inner.map('label_replace({}, "a", "$1", "b", "(.*)")'.format),
        st.tuples(inner, scalars).map(lambda pair: f"clamp_max({pair[0]}, {pair[1]})"),
        scalars.map("vector({})".format),
    )


def vectors() -> st.SearchStrategy[str]:
    """Texts of expressions that are instant vectors."""
    return st.recursive(vectors_of_selectors(), _vectors, max_leaves=6)


def expressions() -> st.SearchStrategy[str]:
    """Texts of expressions of every type."""
    scalars = st.tuples(NUMBERS, st.sampled_from(["+", "^", "%", "> bool"]), NUMBERS).map(" ".join)
    return st.one_of(vectors(), NUMBERS, scalars, STRINGS, st.just("time()"), selectors().map("{}[5m]".format))
