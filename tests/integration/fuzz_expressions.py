"""Random data and random well-typed expressions over it, from a seed: what Prometheus 3.5 and we both know.

Left out is what no two implementations need agree on: which of several equal series `topk` keeps, and the order in
which `limitk` meets series; and `info`, which 3.5 has wrong (it mixes up the info series of several instances).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from mimir_ray.model.labels import Labels, labels_of
from mimir_ray.model.series import STALE_NAN

START_MS = 1_700_000_000_000 // 60_000 * 60_000
SCRAPE_MS = 15_000
SAMPLES = 160
BUCKETS = ("0.1", "0.5", "1", "5", "+Inf")
Points = list[tuple[int, float]]


def random_series(seed: int) -> list[tuple[Labels, Points]]:
    """Counters with resets, gauges with odd values, classic histograms; gaps, late starts and stale markers."""
    chance = random.Random(seed)
    found: list[tuple[Labels, Points]] = []
    for instance in ("a", "b", "c"):
        for job in ("api", "web"):
            base = {"instance": instance, "job": job}
            for code in ("200", "404", "500"):
                labels = labels_of({"__name__": "requests_total", "code": code, **base})
                found.append((labels, _counter(chance)))
            found.append((labels_of({"__name__": "load", **base}), _gauge(chance)))
            found.append((labels_of({"__name__": "limit", "zone": instance * 2, **base}), _gauge(chance, odd=False)))
            found += _histogram(chance, base)
    for instance in ("a", "b"):
        labels = labels_of({"__name__": "target_info", "instance": instance, "job": "api", "version": instance + "1"})
        found.append((labels, [(at, 1.0) for at in _times(chance)]))
    found.append((labels_of({"__name__": "alone"}), _gauge(chance)))
    return found


def _times(chance: random.Random) -> list[int]:
    """Mostly regular; some series begin late, have gaps or jitter."""
    first = chance.choice([0, 0, 0, 40])
    last = chance.choice([SAMPLES, SAMPLES, SAMPLES, SAMPLES - 50])
    missing = chance.choice([0.0, 0.0, 0.1, 0.5])
    jitter = chance.choice([0, 0, 0, 400])
    hole = chance.randrange(SAMPLES) if chance.random() < 0.3 else None
    kept = []
    for i in range(first, last):
        if chance.random() < missing or (hole is not None and hole <= i < hole + 30):
            continue
        kept.append(START_MS + i * SCRAPE_MS + (chance.randrange(jitter) if jitter else 0))
    return kept


def _counter(chance: random.Random) -> Points:
    value, points = chance.uniform(0, 100), []
    for at in _times(chance):
        value = 0.0 if chance.random() < 0.02 else value + chance.choice([0.0, 1.0, chance.uniform(0, 50)])
        points.append((at, value))
    return points


def _gauge(chance: random.Random, odd: bool = True) -> Points:
    points = []
    for at in _times(chance):
        value = chance.uniform(-100, 100)
        if odd and chance.random() < 0.03:
            value = chance.choice([math.nan, math.inf, -math.inf, 0.0, -0.0, STALE_NAN])
        points.append((at, value))
    return points


def _histogram(chance: random.Random, base: dict[str, str]) -> list[tuple[Labels, Points]]:
    times = _times(chance)
    counts = [0.0] * len(BUCKETS)
    columns: list[Points] = [[] for _ in BUCKETS]
    for at in times:
        for _ in range(chance.randrange(6)):
            counts[chance.randrange(len(BUCKETS))] += 1
        total = 0.0
        for bucket, count in enumerate(counts):
            total += count
            columns[bucket].append((at, total))
    series = [
        (labels_of({"__name__": "latency_bucket", "le": le, **base}), points)
        for le, points in zip(BUCKETS, columns, strict=True)
    ]
    return [*series, (labels_of({"__name__": "latency_count", **base}), columns[-1])]


def _is_chaotic(text: str) -> bool:
    """Whether the last bit of a sum or power decides the answer: Go's pow is not C's, and sums have no order."""
    folds = ("%", "sin(", "cos(", "tan(", "==", "!=", "minute(", "hour(", "month(", "day_of_")
    rough = ("^", "exp(", "std", "sum", "avg", "rate(", "increase(", "quantile", "deriv(", "predict_linear(", "ln(")
    return any(fold in text for fold in folds) and any(each in text for each in rough)


class Expressions:
    """Texts of random expressions."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def expression(self) -> str:
        """An instant vector, or now and then a scalar."""
        while True:
            text = self._scalar(2) if self._chance.random() < 0.08 else self._vector(3)
            if not _is_chaotic(text):
                return text

    def _pick(self, *choices: str) -> str:
        return self._chance.choice(choices)

    def _selector(self, name: str = "") -> str:
        matchers = self._pick(
            "", "", "", '{job="api"}', '{job!="api"}', '{instance=~"a|b"}', '{instance!~"a.*"}', '{code=~"4..|5.+"}',
            '{zone=""}', '{job=~".+",instance="c"}',
        )  # fmt: skip
        if name == "" and self._chance.random() < 0.04:
            return '{__name__=~"load|limit"}'
        names = "requests_total", "load", "limit", "latency_bucket", "latency_count", "alone", "none"
        return (name or self._pick(*names)) + matchers

    def _modifiers(self) -> str:
        at = START_MS // 1000 + self._chance.randrange(0, 2400)
        offset = self._pick("", "", "", " offset 1m", " offset 7m30s", " offset -2m")
        return self._pick("", "", "", "", f" @ {at}", " @ start()", " @ end()") + offset

    def _range(self) -> str:
        return self._pick("15s", "1m", "2m", "5m", "7m30s", "20m")

    def _ranged(self, depth: int, name: str = "") -> str:
        if depth > 0 and self._chance.random() < 0.25:
            step = self._pick("", "15s", "1m", "37s")
            inner = self._vector(depth - 1)
            # 3.5 reads the wrong time where both the subquery and a selector in it have `@` and `offset`.
            outer = "" if "@" in inner else self._modifiers()
            return f"({inner})[{self._pick('2m', '5m', '10m')}:{step}]{outer}"
        return f"{self._selector(name)}[{self._range()}]{self._modifiers()}"

    def _vector(self, depth: int) -> str:
        if depth == 0:
            return self._selector() + self._modifiers()
        kinds: list[Callable[[int], str]] = [
            self._range_call, self._range_call, self._call, self._aggregation, self._aggregation, self._binary,
            self._binary, self._set_operation, self._histogram_call, self._relabel, self._special,
        ]  # fmt: skip
        return self._chance.choice(kinds)(depth)

    def _range_call(self, depth: int) -> str:
        kind = self._chance.random()
        if kind < 0.4:
            name = self._pick("requests_total", "latency_count", "latency_bucket", "load")
            return f"{self._pick('rate', 'increase', 'irate', 'resets', 'changes')}({self._ranged(depth - 1, name)})"
        inner = self._ranged(depth - 1)
        if kind < 0.85:
            name = self._pick(
                "avg_over_time", "sum_over_time", "min_over_time", "max_over_time", "count_over_time", "last_over_time",
                "stddev_over_time", "stdvar_over_time", "present_over_time", "delta", "idelta", "deriv",
                "mad_over_time", "absent_over_time",
            )  # fmt: skip
            if name == "last_over_time":  # 3.5 keeps names that an inner function was to drop
                inner = f"{self._selector()}[{self._range()}]{self._modifiers()}"
            if name == "mad_over_time":  # newer versions give NaN where a sample is one
                inner = f"{self._selector('limit')}[{self._range()}]"
            return f"{name}({inner})"
        if kind < 0.9:
            return f"quantile_over_time({self._pick('0.5', '0.99', '0', '1', '1.5', '-1')}, {inner})"
        if kind < 0.95:
            return f"predict_linear({inner}, {self._pick('60', '-600', '3600')})"
        return f"double_exponential_smoothing({inner}, 0.5, 0.3)"

    def _call(self, depth: int) -> str:
        inner = self._vector(depth - 1)
        kind = self._chance.random()
        if kind < 0.6:
            name = self._pick(
                "abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sgn", "deg", "rad", "sin", "cos",
                "atan", "tanh", "asinh", "day_of_week", "hour", "minute", "month", "timestamp", "absent", "round",
            )  # fmt: skip
            if name == "timestamp":  # 3.5 forgets an offset beside `@`
                inner = self._selector()
            return f"{name}({inner})"
        if kind < 0.7:
            return f"round({inner}, {self._pick('0.1', '5', '0')})"
        if kind < 0.8:
            return f"clamp({inner}, {self._pick('-10', '0')}, {self._pick('50', '-20')})"
        if kind < 0.9:
            return f"{self._pick('clamp_min', 'clamp_max')}({inner}, {self._scalar(depth - 1)})"
        return f"{self._pick('sort', 'sort_desc')}({inner})"

    def _grouping(self) -> str:
        return self._pick(
            "", "", " by (job)", " by (instance, job)", " without (instance)", " without (le, code)", " by (code)",
            " by (__name__, job)", " without ()", " by (none)",
        )  # fmt: skip

    def _aggregation(self, depth: int) -> str:
        kind = self._chance.random()
        grouping = self._grouping()
        if kind < 0.7:
            op = self._pick("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar")
            return f"{op}{grouping} ({self._vector(depth - 1)})"
        if kind < 0.8:
            return f"quantile{grouping} ({self._pick('0.5', '0.9', '2')}, {self._vector(depth - 1)})"
        if kind < 0.9:
            return f"{self._pick('topk', 'bottomk')}{grouping} ({self._pick('1', '2', '5')}, limit{self._modifiers()})"
        if kind < 0.95:
            return f'count_values{grouping} ("value", floor({self._selector("latency_count")} / 10))'
        return f"limit_ratio{grouping} ({self._pick('0.5', '-0.3')}, {self._vector(depth - 1)})"

    def _binary(self, depth: int) -> str:
        op = self._pick("+", "-", "*", "/", "%", "^", "atan2", ">", "<", ">=", "<=", "!=", "==", "> bool", "<= bool")
        kind = self._chance.random()
        if kind < 0.3:
            return f"({self._vector(depth - 1)}) {op} {self._scalar(depth - 1)}"
        if kind < 0.45:
            return f"{self._scalar(depth - 1)} {op} ({self._vector(depth - 1)})"
        if kind < 0.55:
            return f"-({self._vector(depth - 1)})"
        if kind < 0.75:
            return f"load {op} on (instance, job) limit{self._modifiers()}"
        if kind < 0.85:
            return f"requests_total {op} on (instance, job) group_left {self._pick('', '(zone)')} limit"
        if kind < 0.9:
            return f"limit {op} on (job, instance) group_right () requests_total"
        matching = self._pick("", " on (job)", " ignoring (code)", " on (instance, job)", " ignoring (le) group_left")
        return f"({self._vector(depth - 1)}) {op}{matching} ({self._vector(depth - 1)})"

    def _set_operation(self, depth: int) -> str:
        matching = self._pick("", "", " on (job)", " ignoring (code, le)", " on ()")
        op = self._pick("and", "or", "unless")
        return f"({self._vector(depth - 1)}) {op}{matching} ({self._vector(depth - 1)})"

    def _histogram_call(self, depth: int) -> str:
        inner = self._pick(
            f"latency_bucket{self._modifiers()}", f"rate(latency_bucket[{self._pick('1m', '5m')}])",
            "sum by (le) (rate(latency_bucket[5m]))", "sum by (le, job) (latency_bucket)",
        )  # fmt: skip
        return f"histogram_quantile({self._pick('0.5', '0.9', '0.99', '0', '1', '1.1', '-0.5')}, {inner})"

    def _relabel(self, depth: int) -> str:
        inner = self._vector(depth - 1)
        return self._pick(
            f'label_replace({inner}, "new", "$1-x", "instance", "(a|b)")',
            f'label_replace({inner}, "job", "", "job", "api")',
            f'label_join({inner}, "both", "/", "job", "instance")',
            f'label_replace({inner}, "__name__", "renamed", "", "")',
            f'sort_by_label({inner}, "job", "instance")',
        )

    def _special(self, depth: int) -> str:
        return self._pick(
            f"vector({self._scalar(depth - 1)})",
            f"absent({self._selector()})",
            f"sum({self._vector(depth - 1)}) or vector(0)",
            "time() - timestamp(load)",
            "day_of_month() + hour()",
        )

    def _scalar(self, depth: int) -> str:
        if depth <= 0 or self._chance.random() < 0.6:
            return self._pick("0", "1", "2.5", "-3", "1e3", "0x1F", "NaN", "(Inf)", "time()", "pi()", "100")
        if self._chance.random() < 0.5:
            return f"scalar({self._vector(depth - 1)})"
        op = self._pick("+", "-", "*", "/", "%", "^", "== bool", "< bool")
        return f"({self._scalar(depth - 1)} {op} {self._scalar(depth - 1)})"
