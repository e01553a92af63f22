"""Points per second of the kernels of PromQL functions: `python -m benchmarks.promql.bench_kernels [name part]`.

A point is one value of the answer: S series times T steps. CPU time of one thread, best of three; kernels are
compiled before. `usual`: regular scrapes of integers, 20 samples in a window, steps of 10 s. The other cases
say what is different: what is best or worst for a kernel.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from mimir_ray.model.labels import LabelColumns, StringTable
from mimir_ray.model.series import STALE_NAN, SeriesBatch, StepMatrix
from mimir_ray.promql.annotations import Annotations
from mimir_ray.promql.functions import RANGE_FUNCTIONS, VECTOR_FUNCTIONS, FunctionContext
from mimir_ray.promql.kernels.windows import Window
from mimir_ray.promql.syntax import ast

SERIES, SAMPLES, STEPS = 4000, 240, 360
SCRAPE_MS, STEP_MS = 15_000, 10_000
RANGE_MS, LONG_RANGE_MS = 300_000, 3_000_000

SELECTOR = ast.VectorSelector()
ARGUMENTS: tuple[ast.Node, ...] = (ast.MatrixSelector(SELECTOR),) * 3


def best_cpu_seconds(run: Callable[[], object], repeats: int = 3) -> float:
    run()
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        run()
        best = min(best, time.process_time() - began)
    return best


def series(values: np.ndarray, jitter_ms: int = 0, seed: int = 0) -> SeriesBatch:
    """A batch of values [S, N], scraped every 15 s with a phase per series and maybe a jitter per sample."""
    random = np.random.default_rng(seed)
    count, samples = values.shape
    times = np.arange(samples) * SCRAPE_MS + random.integers(0, SCRAPE_MS, (count, 1))
    if jitter_ms:
        times = times + random.integers(0, jitter_ms, values.shape)
    table = StringTable()
    labels = LabelColumns(("__name__",), np.full((count, 1), table.code("x_total"), np.int32), table)
    offsets = np.arange(count + 1, dtype=np.int64) * samples
    return SeriesBatch(
        labels, offsets, times.ravel().astype(np.int64), np.ascontiguousarray(values, np.float64).ravel()
    )


def windows(range_ms: int = RANGE_MS) -> Window:
    times = np.arange(STEPS, dtype=np.int64) * STEP_MS + RANGE_MS
    return Window(times, range_ms, times)


def range_cases() -> dict[str, tuple[str, SeriesBatch, Window]]:
    """name -> (functions, batch, window); functions is a space-separated list or `all`."""
    random = np.random.default_rng(1)
    shape = (SERIES, SAMPLES)
    counters = np.cumsum(random.integers(0, 100, shape), axis=1)
    gauges = random.normal(50, 20, shape)
    stale = gauges.copy()
    stale[random.random(shape) < 0.02] = STALE_NAN
    extremes = "min_over_time max_over_time"
    known, deltas = series(counters), series(counters)
    known.start_timestamps = np.ones(known.samples, np.int64)
    deltas.start_timestamps = np.concatenate(([1], deltas.timestamps[:-1]))
    return {
        "usual": ("all", series(counters), windows()),
        "irregular scrapes": ("rate", series(counters, jitter_ms=5000), windows()),
        "a reset now and then": ("rate", series(counters % 5000), windows()),
        "every second sample a reset (worst)": ("rate", series(np.resize([5, 1], shape)), windows()),
        "start timestamps": ("rate increase irate resets", known, windows()),
        "start timestamps of deltas": ("rate increase irate resets", deltas, windows()),
        "50 m window": (
            "rate sum_over_time max_over_time stddev_over_time deriv quantile_over_time mad_over_time",
            series(counters), windows(LONG_RANGE_MS),
        ),
        "fractions": ("sum_over_time avg_over_time quantile_over_time", series(gauges), windows()),
        "fractions, 50 m window": (
            "sum_over_time avg_over_time quantile_over_time", series(gauges), windows(LONG_RANGE_MS),
        ),
        "one NaN a series, 50 m window (worst)": (
            "sum_over_time", series(np.where(np.arange(SAMPLES) == 100, np.nan, gauges)), windows(LONG_RANGE_MS),
        ),
        "rising values (worst for max)": (extremes, series(counters), windows(LONG_RANGE_MS)),
        "2 % stale markers": ("rate sum_over_time", series(stale), windows()),
    }  # fmt: skip


def report(case: str, name: str, points: int, seconds: float) -> None:
    print(f"{case:40} {name:30} {points / seconds / 1e6:9.1f} M points/s")


def bench_ranges(wanted: str) -> None:
    half = np.full(STEPS, 0.5)
    params = {
        "predict_linear": (half * 3600,),
        "double_exponential_smoothing": (half, half),
        "quantile_over_time": (half,),
    }
    for case, (names, batch, window) in range_cases().items():
        for name in RANGE_FUNCTIONS if names == "all" else names.split():
            if wanted not in f"{case} {name}":
                continue
            context = FunctionContext(ast.Call(name, ARGUMENTS), window.times, batch.labels.table, Annotations())
            function = RANGE_FUNCTIONS[name]
            scalars = params.get(name, ())
            seconds = best_cpu_seconds(lambda f=function, b=batch, w=window, p=scalars, c=context: f(b, w, p, c))
            report(case, name, SERIES * STEPS, seconds)


def histograms(count: int, steps: int) -> StepMatrix:
    """`count` histograms of 12 buckets."""
    random = np.random.default_rng(2)
    bounds = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"]
    table = StringTable()
    le = np.tile([table.code(bound) for bound in bounds], count)
    pod = np.repeat([table.code(f"pod-{i}") for i in range(count)], len(bounds))
    values = np.cumsum(random.random((count, len(bounds), steps)), axis=1).reshape(-1, steps)
    codes = np.ascontiguousarray(np.stack([le, pod], axis=1).astype(np.int32))
    return StepMatrix(
        LabelColumns(("le", "pod"), codes, table), np.ascontiguousarray(values), np.ones(values.shape, np.bool_)
    )


def bench_vectors(wanted: str) -> None:
    random = np.random.default_rng(3)
    table = StringTable()
    codes = np.array([[table.code(f"host-{i % 500}:9090")] for i in range(SERIES)], np.int32)
    plain = StepMatrix(
        LabelColumns(("instance",), codes, table),
        random.random((SERIES, STEPS)) * 1e9,
        np.ones((SERIES, STEPS), np.bool_),
    )
    half = np.full(STEPS, 0.9)
    cases: list[tuple[str, str, StepMatrix, tuple[np.ndarray | str, ...]]] = [
        ("12 buckets (points of the input)", "histogram_quantile", histograms(400, STEPS), (half,)),
        ("12 buckets, one step", "histogram_quantile", histograms(2000, 1), (half[:1],)),
        ("12 buckets (points of the input)", "histogram_fraction", histograms(400, STEPS), (half * 0, half)),
        *(("usual", name, plain, ()) for name in ("abs", "round", "exp", "ln", "log10", "sin", "hour", "day_of_month")),
        ("usual", "clamp", plain, (half * 0, half)),
        ("500 values, series for points", "label_replace", plain, ("host", "$1", "instance", "(.*):.*")),
        ("series for points", "label_join", plain, ("joined", "-", "instance", "instance")),
    ]
    for case, name, matrix, params in cases:
        if wanted not in f"{case} {name}":
            continue
        times = np.arange(matrix.values.shape[1], dtype=np.int64) * STEP_MS
        context = FunctionContext(ast.Call(name, ARGUMENTS), times, matrix.labels.table, Annotations())
        function = VECTOR_FUNCTIONS[name]
        seconds = best_cpu_seconds(lambda f=function, m=matrix, p=params, c=context: f(m, p, c))
        report(case, name, len(matrix) if name.startswith("label") else matrix.values.size, seconds)


if __name__ == "__main__":
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    bench_ranges(part)
    bench_vectors(part)
