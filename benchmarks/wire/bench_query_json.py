"""How fast answers are written as JSON: `python benchmarks/wire/bench_query_json.py`.

Best case: few distinct steps, small integers. Worst cases: 17 digits a value, times that no two series share,
more labels than points. CPU nanoseconds a point of the whole body, medians; beside it orjson for the values alone.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import orjson
from numpy.typing import NDArray

from mimir_ray.model.labels import LabelColumns, labels_of
from mimir_ray.model.result import Matrix, QueryResult
from mimir_ray.wire.query_json import query_response

FIRST_MS = 1_700_000_000_123
SHAPES = {"many series, many steps": (400, 301), "few series": (4, 11_000), "few steps": (10_000, 5)}


def columns(count: int) -> dict[str, NDArray[np.float64]]:
    """Values as queries give them."""
    random = np.random.default_rng(1)
    return {
        "integers": random.integers(0, 100_000, count) * 1.0,
        "hundredths": np.round(random.random(count) * 1000, 2),
        "rates": random.random(count) * 100,
        "thirds": random.integers(0, 4000, count) / 300,
        "NaN": np.full(count, np.nan),
    }


def nanoseconds(work: Callable[[], object], points: int, rounds: int = 25) -> float:
    """Median CPU time a point."""
    work()
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found) / points * 1e9


def main() -> None:
    for shape, (series, steps) in SHAPES.items():
        count = series * steps
        labels = LabelColumns.from_labels([labels_of({"pod": f"deploy-{at:06d}-abcde"}) for at in range(series)])
        offsets = np.arange(series + 1) * steps
        shared = np.tile(FIRST_MS + np.arange(steps) * 15_000, series)
        own = shared + np.random.default_rng(2).integers(0, 15_000, count)
        for name, values in columns(count).items():
            peer = nanoseconds(lambda: orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY), count)  # noqa: B023
            for grid, times in (("", shared), (", own times", own)):
                if grid and name != "integers":
                    continue
                result = QueryResult(Matrix(labels, offsets, times, values))
                spent = nanoseconds(lambda: query_response(result), count)  # noqa: B023
                print(f"{shape:24} {series:6} x {steps:<6} {name + grid:22} {spent:6.1f} ns, orjson {peer:5.1f} ns")


if __name__ == "__main__":
    main()
