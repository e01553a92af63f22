"""Slow twins of the range kernels: one window at a time, as a plain list of (ms, value), in plain Python.

Each follows the definition of its function in Prometheus' documentation and the order of its float operations
upstream. `None` means: no result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

Point = tuple[int, float]
Points = Sequence[Point]
FLOAT_MAX = 1.7976931348623157e308


def divide(a: float, b: float) -> float:
    """IEEE division, which Python's is not."""
    if b == 0:
        if a == 0 or math.isnan(a):
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


def window(points: Points, end: int, range_ms: int) -> list[Point]:
    return [point for point in points if end - range_ms < point[0] <= end]


def extrapolated(points: Points, end: int, range_ms: int, is_counter: bool, is_rate: bool) -> float | None:
    if len(points) < 2:
        return None
    result = points[-1][1] - points[0][1]
    if is_counter:
        for (_, before), (_, now) in pairwise(points):
            if now < before:
                result += before
    to_start = (points[0][0] - (end - range_ms)) / 1000
    to_end = (end - points[-1][0]) / 1000
    sampled = (points[-1][0] - points[0][0]) / 1000
    average = sampled / (len(points) - 1)
    if to_start >= average * 1.1:
        to_start = average / 2
    if is_counter and result > 0 and points[0][1] >= 0:
        to_start = min(to_start, sampled * divide(points[0][1], result), key=lambda x: (math.isnan(x), x))
    if to_end >= average * 1.1:
        to_end = average / 2
    factor = (sampled + to_start + to_end) / sampled
    if is_rate:
        factor /= range_ms // 1000 + range_ms % 1000 * 1_000_000 / 1e9
    return result * factor


def instant(points: Points, is_rate: bool) -> float | None:
    if len(points) < 2:
        return None
    (before_ms, before), (now_ms, now) = points[-2:]
    result = now if is_rate and now < before else now - before
    return result / ((now_ms - before_ms) / 1000) if is_rate else result


def resets(points: Points) -> float | None:
    values = [value for _, value in points]
    return float(sum(b < a for a, b in pairwise(values))) if values else None


def changes(points: Points) -> float | None:
    values = [value for _, value in points]
    pairs = pairwise(values)
    return float(sum(a != b and not (a != a and b != b) for a, b in pairs)) if values else None


def add(value: float, total: float, rest: float) -> tuple[float, float]:
    new = total + value
    if new > FLOAT_MAX or new < -FLOAT_MAX:
        return new, 0.0
    if abs(total) >= abs(value):
        return new, rest + ((total - new) + value)
    return new, rest + ((value - new) + total)


def total(points: Points) -> float | None:
    if not points:
        return None
    result = rest = 0.0
    for _, value in points:
        result, rest = add(value, result, rest)
    return result if math.isinf(result) else result + rest


def average(points: Points) -> float | None:
    if not points:
        return None
    result, rest = points[0][1], 0.0
    mean = 0.0
    count = 1.0
    incremental = False
    for i, (_, value) in enumerate(points[1:]):
        count = i + 2.0
        if not incremental:
            new, new_rest = add(value, result, rest)
            if not math.isinf(new):
                result, rest = new, new_rest
                continue
            incremental = True
            mean = result / (count - 1)
            rest /= count - 1
        share = (count - 1) / count
        mean, rest = add(value / count, share * mean, share * rest)
    return mean + rest if incremental else result / count + rest / count


def extreme(points: Points, better: Callable[[float, float], bool], wants_time: bool) -> float | None:
    if not points:
        return None
    time, best = points[0]
    for at, value in points:
        if better(value, best) or math.isnan(best):
            time, best = at, value
    return time / 1000 if wants_time else best


def variance(points: Points, root: bool) -> float | None:
    if not points:
        return None
    mean = mean_rest = spread = spread_rest = 0.0
    for count, (_, value) in enumerate(points, 1):
        distance = value - (mean + mean_rest)
        mean, mean_rest = add(distance / count, mean, mean_rest)
        spread, spread_rest = add(distance * (value - (mean + mean_rest)), spread, spread_rest)
    result = (spread + spread_rest) / len(points)
    return result if not root else math.nan if result < 0 else math.sqrt(result)


def quantile(q: float, values: Sequence[float]) -> float:
    if not values or math.isnan(q):
        return math.nan
    if q < 0:
        return -math.inf
    if q > 1:
        return math.inf
    ordered = sorted(values, key=lambda value: (not math.isnan(value), value))
    rank = q * (len(ordered) - 1.0)
    lower = max(0.0, math.floor(rank))
    upper = min(len(ordered) - 1.0, lower + 1)
    weight = rank - math.floor(rank)
    return ordered[int(lower)] * (1 - weight) + ordered[int(upper)] * weight


def quantile_of(points: Points, q: float) -> float | None:
    return quantile(q, [value for _, value in points]) if points else None


def mad(points: Points) -> float | None:
    values = [value for _, value in points]
    if not values:
        return None
    if any(math.isnan(value) for value in values):
        return math.nan
    median = quantile(0.5, values)
    return quantile(0.5, [abs(value - median) for value in values])


def regression(points: Points, origin: int) -> tuple[float, float]:
    values = [value for _, value in points]
    if all(value == values[0] for value in values[1:]):
        return (math.nan, math.nan) if math.isinf(values[0]) else (0.0, values[0])
    sums = [(0.0, 0.0)] * 4
    for time, y in points:
        x = (time - origin) / 1e3
        sums = [add(term, *each) for term, each in zip((x, y, x * y, x * x), sums, strict=True)]
    x, y, xy, xx = (result + rest for result, rest in sums)
    n = float(len(points))
    slope = divide(xy - x * y / n, xx - x * x / n)
    return slope, y / n - slope * x / n


def derivative(points: Points) -> float | None:
    return regression(points, points[0][0])[0] if len(points) >= 2 else None


def prediction(points: Points, time: int, ahead_s: float) -> float | None:
    if len(points) < 2:
        return None
    slope, intercept = regression(points, time)
    return slope * ahead_s + intercept


def smoothed(points: Points, factor: float, trend_factor: float) -> float | None:
    if len(points) < 2:
        return None
    values = [value for _, value in points]
    level, before, trend = values[0], 0.0, values[1] - values[0]
    for i, value in enumerate(values[1:]):
        if i:
            trend = trend_factor * (level - before) + (1 - trend_factor) * trend
        before, level = level, factor * value + (1 - factor) * (level + trend)
    return level
