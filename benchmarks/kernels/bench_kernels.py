"""Nanoseconds an element of every kernel: `python benchmarks/kernels/bench_kernels.py [name part]`.

Kernels are listened to while the package does its work (workloads.py); the largest call of each is then made again and
again with the same arguments. An element is one of the largest array that the kernel was given; beside it, the share of
a copy's speed: bytes of all arrays by the time, as a part of what `numpy.copyto` does with them. What is far
below its siblings is worth a look: some kernels touch few of the elements, some do a lot for each.
`table.py` says by which workload each kernel is reached, and a test that none is missing there.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from record import Call, every_kernel, listening  # noqa: E402
from table import KERNELS  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

OF_ADDRESSES = ("tsdb.head.reading.read_series",)
"""Kernels that read memory which nobody keeps after their call: they are timed in it."""


def copy_bytes_per_second() -> float:
    """Of a copy that does not fit into a core's caches, read and written bytes together."""
    source = np.ones(4 << 20)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(5):
        began = time.thread_time()
        np.copyto(target, source)
        best = min(best, time.thread_time() - began)
    return 2 * source.nbytes / best


def main(part: str = "") -> None:
    kernels = tuple((name, kernel) for name, kernel in every_kernel() if part in name)
    heard: dict[str, Call] = {}
    for workload in sorted({KERNELS.get(name, "") for name, _ in kernels}):
        if workload in WORKLOADS:
            with listening(kernels, heard), contextlib.redirect_stdout(io.StringIO()):
                WORKLOADS[workload]()
    copied = copy_bytes_per_second()
    print(f"{'':52} {'calls':>7} {'elements':>10} {'ns each':>9} {'of a copy':>9}")
    for name, _ in kernels:
        if name not in heard:
            print(f"{name:52} not reached by {KERNELS.get(name, 'any workload')}")
            continue
        call = heard[name]
        seconds = call.took_s if name in OF_ADDRESSES else call.seconds()
        share = call.bytes / seconds / copied
        print(f"{name:52} {call.calls:>7} {call.elements:>10} {seconds / call.elements * 1e9:>9.2f} {share:>9.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
