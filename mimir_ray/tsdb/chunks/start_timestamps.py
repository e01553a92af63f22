"""Start timestamps inside chunks: a header byte says which samples have one, each follows its sample.

They are written as differences to the time of the sample before (of the first one: to its own), as deltas of deltas
once they change. Upstream: tsdb/chunkenc/st.go.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mimir_ray.kernel import device

from .bitstream import put_varbit_int, put_varint_bits, read_varbit_int, read_varint_bits

KNOWN = 0x80
"""The first sample has a start timestamp."""
CHANGE_MAX = 0x7F
"""Mask: the sample from which on all have one (0: none). Later changes than this cannot be written."""


@device
def read_start_timestamp(
    data: Any, bit: Any, n: Any, flags: Any, time: Any, previous: Any, difference: Any, start_timestamp: Any
) -> Any:
    """Of sample n: (start timestamp, difference, bit position or -1).

    `flags`: the header byte; `previous`: the time of the sample before; `difference`, `start_timestamp`: what the
    last call gave, 0 at first.
    """
    if n == 0:
        if flags & KNOWN:
            difference, bit = read_varint_bits(data, bit)
            start_timestamp = time - difference
    else:
        changes = flags & CHANGE_MAX
        if changes > 0 and n >= changes:
            change, bit = read_varbit_int(data, bit)
            difference = change if n == changes else difference + change
            start_timestamp = previous - difference
    return start_timestamp, difference, bit


@device
def put_start_timestamp(
    out: Any,
    bit: Any,
    header: Any,
    n: Any,
    time: Any,
    previous: Any,
    start_timestamp: Any,
    before: Any,
    difference: Any,
) -> Any:
    """Writes that of sample n, where it is needed: (bit position, difference for the next call, 0 at first).

    `header`: where the byte of flags is, 0 at first; `previous`, `before`: time and start timestamp of the sample
    before.
    """
    flags = np.int64(out[header])
    if n == 0:
        if start_timestamp != 0:
            out[header] = np.uint8(KNOWN)
            bit = put_varint_bits(out, bit, time - start_timestamp)
        return bit, difference
    if flags & CHANGE_MAX:
        now = previous - start_timestamp
        return put_varbit_int(out, bit, now - difference), now
    if start_timestamp != before or n == CHANGE_MAX:
        out[header] = np.uint8(flags | n)
        now = previous - start_timestamp
        return put_varbit_int(out, bit, now), now
    return bit, difference
