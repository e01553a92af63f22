"""`mimir-ray kernels`: fills the kernel cache, with progress."""

from __future__ import annotations

import time

from mimir_ray.kernel import warm_up


def main(arguments: list[str]) -> int:
    """Takes no arguments."""
    if arguments:
        print("usage: mimir-ray kernels")
        return 2
    began = time.monotonic()
    count = warm_up(lambda done, total, name: print(f"{done + 1:>4}/{total} {name}", flush=True))
    print(f"{count} kernels ready after {time.monotonic() - began:.1f} s")
    return 0
