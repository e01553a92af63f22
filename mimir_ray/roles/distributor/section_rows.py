"""Label sections ↔ `LabelRows`, in which rules rewrite many series at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mimir_ray.encoding.bits import copy_bytes, equal_bytes
from mimir_ray.encoding.hashing import hash64, hash_seeds
from mimir_ray.encoding.utf8 import is_ascii, is_utf8
from mimir_ray.kernel import I32, I64, U8, Bool, OutBool, OutI32, OutI64, OutU8, kernel, u64
from mimir_ray.model.label_rows import LabelRows, Text
from mimir_ray.roles.distributor.canonical import read_label
from mimir_ray.wire.write_scan import write_label

LABELS_MAX = 256
"""Of one series; one with more is none for columns."""
NAMES_MAX = 2048
"""Different ones among all series; so are series with further ones."""
_FRAME_MAX = 18
"""Bytes of a label that are not its name or value: three tags, three lengths."""
_LABEL_MIN = 6

_SEEDS = hash_seeds().tolist()


def read_rows(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], added: int, merged: bool
) -> tuple[LabelRows, NDArray[np.bool_]]:
    """The labels of M sections, and bool[M]: for which there are no columns (they are odd: nothing is alive there).

    Args:
        added: how many labels a series may get.
        merged: of labels with the same name the last one that is not empty counts; otherwise such a series is odd.

    Odd are series with labels that are not plain (canonical.py), not UTF-8, or too many.
    """
    count = len(starts)
    size = int((ends - starts).sum())
    text = np.empty(size + size // 4 + 4096, np.uint8)
    places = size // _LABEL_MIN + count * added
    offsets = np.zeros(count + 1, np.int64)
    codes, spans = np.empty(places, np.int32), np.empty((2, places), np.int64)
    slots = np.full(2 * NAMES_MAX, -1, np.int32)
    names = np.empty((2, NAMES_MAX), np.int64)
    odd = np.empty(count, np.bool_)
    known = _read_rows(
        data, starts, ends, added, merged, _SEEDS[0], _SEEDS[1], slots, names[0], names[1], text, offsets, codes,
        spans[0], spans[1], odd,
    )  # fmt: skip
    used = int(offsets[-1])
    found = [text[start:end].tobytes() for start, end in names[:, :known].T.tolist()]
    rows = LabelRows(Text(text, size), found, offsets, codes[:used], spans[0, :used], spans[1, :used], ~odd)
    return rows, odd


def write_sections(rows: LabelRows, removed: Iterable[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(sections back to back, int64[M + 1] offsets), in canonical form; that of a series that is not alive is empty.

    Labels with a `removed` name are left out.
    """
    rows.take_off_named(removed)
    name_offsets = rows.text.append(rows.names)
    lengths = rows.ends - rows.starts
    name_lengths = np.append(np.diff(name_offsets), 0)
    room = int(lengths.sum()) + int((name_lengths[rows.codes] + _FRAME_MAX)[lengths > 0].sum())
    out = np.empty(room, np.uint8)
    offsets = np.zeros(len(rows) + 1, np.int64)
    order = np.empty(int(np.diff(rows.offsets).max(initial=0)), np.int64)
    _write_rows(
        rows.text.data, name_offsets, rows.ranks(), rows.offsets, rows.codes, rows.starts, rows.ends, rows.alive,
        order, out, offsets,
    )  # fmt: skip
    return out[: int(offsets[-1])], offsets


@kernel
def _read_rows(
    data: U8,
    starts: I64,
    ends: I64,
    added: int,
    merged: bool,
    seed: u64,
    other_seed: u64,
    slots: OutI32,
    name_starts: OutI64,
    name_ends: OutI64,
    text: OutU8,
    offsets: OutI64,
    codes: OutI32,
    value_starts: OutI64,
    value_ends: OutI64,
    odd: OutBool,
) -> int:
    """Copies sections to `text`, back to back, and finds their labels there; returns how many names there are.

    Args:
        slots: int32, a power of two long and at least twice as many as names have room, -1 everywhere.
        name_starts, name_ends: written, where in `text` each name stands.
        offsets: int64[M + 1], zeros; which of the next three are of a section. None where it is odd.
        codes, value_starts, value_ends: written, of labels with a value, and `added` free places behind them.
    """
    mask = np.uint64(len(slots) - 1)
    known = np.int64(0)
    base = np.int64(0)
    filled = np.int64(0)
    before, before_end = np.int64(0), np.int64(0)
    for row in range(len(starts)):
        size = ends[row] - starts[row]
        copy_bytes(text, base, data, starts[row], size)
        at, end = base, base + size
        base = end
        plain = is_ascii(text, at, end)
        first = filled
        seen = np.int64(0)
        is_odd, follows = False, True
        while at < end and not is_odd:
            name, name_end, value, stop = read_label(text, at, end)
            if stop < 0 or seen == LABELS_MAX:
                is_odd = True
                break
            if not (plain or (is_utf8(text, name, name_end) and is_utf8(text, value, stop))):
                is_odd = True
                break
            at = stop
            seen += 1
            if value == stop:
                continue
            length = name_end - name
            if follows:
                # Series have mostly the names of the one before.
                follows = filled - first < before_end - before
                if follows:
                    code = codes[before + filled - first]
                    other = name_starts[code]
                    follows = name_ends[code] - other == length and equal_bytes(text, name, text, other, length)
                if follows:
                    codes[filled], value_starts[filled], value_ends[filled] = code, value, stop
                    filled += 1
                    continue
            slot = hash64(text, name, name_end, seed, other_seed) & mask
            while slots[slot] >= 0:
                other = name_starts[slots[slot]]
                if name_ends[slots[slot]] - other == length and equal_bytes(text, name, text, other, length):
                    break
                slot = (slot + np.uint64(1)) & mask
            if slots[slot] < 0:
                if known == len(name_starts):
                    is_odd = True
                    break
                name_starts[known], name_ends[known] = name, name_end
                slots[slot] = np.int32(known)
                known += 1
            code = slots[slot]
            place = first
            while place < filled and codes[place] != code:
                place += 1
            if place == filled:
                filled += 1
            elif not merged:
                is_odd = True
            codes[place], value_starts[place], value_ends[place] = code, value, stop
        odd[row] = is_odd
        if is_odd:
            filled = first
        else:
            before, before_end = first, filled
            for place in range(filled, filled + added):
                codes[place], value_starts[place], value_ends[place] = -1, 0, 0
            filled += added
        offsets[row + 1] = filled
    return known


@kernel
def _write_rows(
    text: U8,
    name_offsets: I64,
    ranks: I32,
    offsets: I64,
    codes: I32,
    starts: I64,
    ends: I64,
    alive: Bool,
    order: OutI64,
    out: OutU8,
    out_offsets: OutI64,
) -> None:
    """Writes the labels of series m in the order of their names to out[out_offsets[m]:out_offsets[m + 1]].

    Args:
        name_offsets, ranks: where in `text` each name stands, and how many sort before it.
        order: int64, scratch, as many as a series has places.
    """
    to = np.int64(0)
    for row in range(len(alive)):
        if alive[row]:
            count = np.int64(0)
            for place in range(offsets[row], offsets[row + 1]):
                if starts[place] == ends[place]:
                    continue
                rank = ranks[codes[place]]
                at = count
                while at > 0 and ranks[codes[order[at - 1]]] > rank:
                    order[at] = order[at - 1]
                    at -= 1
                order[at] = place
                count += 1
            for at in range(count):
                place = order[at]
                code = codes[place]
                to = write_label(text, name_offsets[code], name_offsets[code + 1], starts[place], ends[place], out, to)
        out_offsets[row + 1] = to
