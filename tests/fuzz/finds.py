"""Inputs that broke a decoder once: (target, input)."""

from __future__ import annotations

FINDS: tuple[tuple[str, bytes], ...] = (
    # A zstd frame to skip that claims to be 1.6 GB long, which were allocated.
    ("compression", bytes.fromhex("01502a4d1804005f5f6e616d650000100000000000")),
    # A chunk's header claimed more samples than its bits could hold, and got the memory for them.
    ("block-chunk", bytes.fromhex("01ffff00000000000000000000")),
    ("block-chunk", bytes.fromhex("05ffff00000000000000000000")),
    # Keys of YAML that are lists or maps.
    ("configuration", b"? [a]\n: b\n"),
    ("overrides", b"overrides: {? {a: b} : c}\n"),
    # Times that no block can have, which could not be written again.
    ("bucket-index", b'{"version":2,"updated_at":"18446744073709551616"}'),
    ("bucket-index", b'{"version":2,"updated_at":1e999}'),
)
