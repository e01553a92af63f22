"""Samples per CPU-second of XOR chunks: encoding in flushes, decoding, by kind of data.

    python benchmarks/tsdb/bench_chunks.py

A ratio to a plain copy of the same 16 bytes a sample, taken in the same run, says what the machine was worth.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from mimir_ray.tsdb.chunks import xor
from mimir_ray.tsdb.chunks.open_chunks import OpenChunks

SERIES, SAMPLES, FLUSH = 8_000, 120, 12


def kinds() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name to (times, values), both [SERIES, SAMPLES]; the best case first, the worst last."""
    rng = np.random.default_rng(1)
    shape = (SERIES, SAMPLES)
    regular = np.broadcast_to(1_700_000_000_000 + np.arange(SAMPLES) * 15_000, shape)
    jitter = regular + rng.integers(-5, 6, shape)
    counter = np.cumsum(rng.integers(0, 100, shape), 1).astype(float)
    return {
        "constant, regular times": (regular, np.ones(shape)),
        "counter, regular times": (regular, counter),
        "counter, times +- 5 ms": (jitter, counter),
        "two decimals, times +- 5 ms": (jitter, np.round(rng.normal(50, 10, shape), 2)),
        "random bits, random times": (
            np.cumsum(rng.integers(1, 1 << 30, shape), 1),
            rng.integers(-(1 << 63), 1 << 63, shape).view(np.float64),
        ),
    }


def best_of(runs: int, work: Callable[[], object]) -> float:
    """CPU-seconds of the fastest run."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measure(name: str, times: np.ndarray, values: np.ndarray) -> None:
    total = SERIES * SAMPLES
    series = np.arange(SERIES, dtype=np.int32)
    starts = np.arange(SERIES, dtype=np.int64) * FLUSH
    parts = [
        (np.ascontiguousarray(times[:, at : at + FLUSH]).ravel(), values[:, at : at + FLUSH].ravel())
        for at in range(0, SAMPLES, FLUSH)
    ]

    def encode() -> OpenChunks:
        chunks = OpenChunks(1 << 62)
        chunks.reserve(SERIES)
        for new_times, new_values in parts:
            chunks.append(series, starts, starts + FLUSH, new_times, new_values)
        return chunks

    closed = encode().close(series)
    encoding = best_of(3, encode)
    ends = closed.starts + closed.lengths
    out_starts = np.arange(SERIES, dtype=np.int64) * SAMPLES
    out_times, out_values = np.empty(total, np.int64), np.empty(total)

    def decode() -> None:
        assert xor.decode_chunks(closed.data, closed.starts, ends, out_starts, out_times, out_values) == total

    decode()
    decoding = best_of(5, decode)
    plain_times, plain_values = out_times.copy(), out_values.copy()

    def copy() -> None:
        np.copyto(plain_times, out_times)
        np.copyto(plain_values, out_values)

    copying = best_of(5, copy)
    print(
        f"{name:30} {len(closed.data) / total:5.2f} B/sample  "
        f"append {total / encoding / 1e6:6.0f} M/s (runs of {FLUSH})  "
        f"decode {total / decoding / 1e6:6.0f} M/s  = {decoding / copying:5.1f} x a copy"
    )


def main() -> None:
    for name, (times, values) in kinds().items():
        measure(name, times, values)


if __name__ == "__main__":
    main()
