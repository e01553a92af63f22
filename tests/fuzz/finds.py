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
    # Numbers and nesting that JSON allows and Python's integers and stack do not.
    ("ring", b'{"format":1,"rings":{"a":{"version":1e999,"instances":[]}}}'),
    ("ring", b"[" * 60_000),
    ("elections", b'{"format":1,"elected":{"a":{"c":{"replica":"r","elected_ms":1e999,"changes":0}}}}'),
    ("elections", b'{"a":' * 60_000),
    # A surrogate that stands for no byte, in the text of an error.
    ("ring", b'{"format":"\\ud800"}'),
    # Labels in a record of the write-ahead log whose checksum is right were called a client's mistake.
    ("wal", bytes.fromhex("22000000f8bdd288010100000000000000000000000000000000000000000000000200000000000000ffff")),
    (
        "wal",
        bytes.fromhex(
            "300000006ce876000101000000000000000000000000000000000000000000000010000000000000000a0e0a085f5f6e616d655f5f120275702e000000fb82a8ed090100000000000000000000000000000002000000000000000000000000000000000000000000000000000000ffff"
        ),
    ),
    # An anchor that contains an alias of itself.
    ("overrides", b"overrides:\n  team-a: &a\n    b: *a\n  team-c:\n    <<: *a\n"),
    ("configuration", b"limits: &a\n  drop_labels: [*a]\n"),
)
