"""What Ray and the C library read from the environment. No Ray import here: it reads most of it when it is loaded."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

# Freed memory of large requests stays in the process instead of going back and forth to the kernel; glibc ignores
# a threshold above 32 MiB.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(256 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_ARENA_MAX": "2"}

INLINE_BYTES_MAX = 640 << 10
"""Arguments and answers up to this size travel in the call itself, by default up to 100 kB. A call to an ingester with
what waited for it (up to ingester_call_bytes_max) then stays out of the object store, which takes the raylet a tenth of
all CPU that writing does."""


def prepare_environment(token_file: Path) -> None:
    """Sets what Ray reads from the environment, for this process and all that it starts."""
    if not token_file.exists():
        token_file.parent.mkdir(parents=True, exist_ok=True)
        token_file.touch(mode=0o600)
        token_file.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_max_direct_call_object_size", str(INLINE_BYTES_MAX))
    for name, value in MALLOC.items():
        os.environ.setdefault(name, value)
