"""GB/s of the hashes, by length of the input.

python benchmarks/encoding/bench_hashing.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from mimir_ray.encoding.hashing import FNV32_OFFSET, fnv1_32, hash64, hash128, hash_seeds, xxhash64
from mimir_ray.kernel import U8, U64, OutU64, kernel

BYTES = 1 << 20


@kernel
def _hash128(data: U8, length: int, seeds: U64, out: OutU64) -> int:
    for at in range(0, len(data) - length + 1, length):
        high, low = hash128(data, at, at + length, seeds[0], seeds[1], seeds[2], seeds[3])
        out[0] ^= high + low
    return 0


@kernel
def _hash64(data: U8, length: int, seeds: U64, out: OutU64) -> int:
    for at in range(0, len(data) - length + 1, length):
        out[0] ^= hash64(data, at, at + length, seeds[0], seeds[1])
    return 0


@kernel
def _xxhash64(data: U8, length: int, seeds: U64, out: OutU64) -> int:
    for at in range(0, len(data) - length + 1, length):
        out[0] ^= xxhash64(data, at, at + length) ^ seeds[0]
    return 0


@kernel
def _fnv1_32(data: U8, length: int, seeds: U64, out: OutU64) -> int:
    for at in range(0, len(data) - length + 1, length):
        out[0] ^= np.uint64(fnv1_32(data, at, at + length, np.uint32(FNV32_OFFSET))) ^ seeds[0]
    return 0


def main() -> None:
    data = np.random.default_rng(1).integers(0, 256, BYTES).astype(np.uint8)
    seeds, out = hash_seeds(), np.zeros(1, np.uint64)
    hashes: dict[str, Callable[..., int]] = {
        "hash128": _hash128,
        "hash64": _hash64,
        "xxhash64": _xxhash64,
        "fnv1_32": _fnv1_32,
    }
    for name, work in hashes.items():
        speeds = []
        for length in (10, 50, 250, 1000):
            work(data, length, seeds, out)
            times = []
            for _ in range(5):
                start = time.perf_counter()
                work(data, length, seeds, out)
                times.append(time.perf_counter() - start)
            speeds.append(f"{BYTES / min(times) / 1e9:6.2f} GB/s at {length} B")
        print(f"{name:9}", "  ".join(speeds))


if __name__ == "__main__":
    main()
