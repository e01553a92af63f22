"""Label sections in canonical form: sorted by name, no empty values, shortest lengths.

What ingesters get is always canonical. Well-behaved senders send nothing else; for others a kernel sorts, as
long as the section is plain: at most 64 labels, each a name and then a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I64, U8, OutI64, OutU8, device, kernel
from mimir_ray.wire.protobuf import RawLabel, parse_labels, read_length
from mimir_ray.wire.write_scan import write_label

LABELS_MAX = 64


def sort_sections(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], removed: Sequence[bytes] = ()
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """(bytes, int64[M] starts, int64[M] ends) of the canonical sections; end -1 where a section is not plain.

    Labels with a `removed` name are left out. Nothing is judged: names may repeat, or be empty.
    """
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(ends - starts, out=offsets[1:])
    out = np.empty(int(offsets[-1]), np.uint8)
    out_ends = np.empty(len(starts), np.int64)
    names = np.frombuffer(b"".join(removed), np.uint8)
    name_offsets = np.cumsum([0, *map(len, removed)], dtype=np.int64)
    scratch = np.empty(4 * LABELS_MAX, np.int64)
    _sort_sections(data, starts, ends, names, name_offsets, offsets, scratch, out, out_ends)
    return out, offsets[:-1], out_ends


def split_sections(data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> list[list[RawLabel]]:
    """The labels of each section as they stand there. Raises `MalformedProtobuf`."""
    counts = np.empty(len(starts), np.int64)
    # No plain label is shorter than its tags and lengths.
    spans = np.empty(4 * (int((ends - starts).sum()) // 6 + 1), np.int64)
    _split_sections(np.frombuffer(data, np.uint8), starts, ends, counts, spans)
    cuts = spans[: 4 * int(counts[counts > 0].sum())].tolist()
    found: list[list[RawLabel]] = []
    at = 0
    for row, count in enumerate(counts.tolist()):
        if count < 0:
            found.append(parse_labels(data, int(starts[row]), int(ends[row])))
            continue
        stop = at + 4 * count
        found.append([(data[cuts[i] : cuts[i + 1]], data[cuts[i + 2] : cuts[i + 3]]) for i in range(at, stop, 4)])
        at = stop
    return found


@device
def _greater(data: Any, one: Any, one_end: Any, other: Any, other_end: Any) -> Any:
    """Whether data[one:one_end] sorts after data[other:other_end], bytewise."""
    while one < one_end and other < other_end:
        if data[one] != data[other]:
            return data[one] > data[other]
        one += 1
        other += 1
    return one < one_end


@device
def read_label(data: Any, at: Any, end: Any) -> Any:
    """(name, its end, value, its end) of a label that begins at data[at] and is plain; value end -1 otherwise."""
    bad = np.int64(-1)
    if data[at] != 0x0A:
        return at, at, at, bad
    length, inner = read_length(data, at + 1, end)
    stop = inner + length
    if length < 2 or data[inner] != 0x0A:
        return at, at, at, bad
    size, name = read_length(data, inner + 1, stop)
    name_end = name + size
    if size < 0 or name_end >= stop or data[name_end] != 0x12:
        return at, at, at, bad
    size, value = read_length(data, name_end + 1, stop)
    if size < 0 or value + size != stop:
        return at, at, at, bad
    return name, name_end, value, stop


@device
def _is_removed(data: Any, name: Any, name_end: Any, removed: Any, removed_offsets: Any) -> Any:
    """Whether data[name:name_end] is one of the names removed[removed_offsets[i]:removed_offsets[i + 1]]."""
    for one in range(len(removed_offsets) - 1):
        start = removed_offsets[one]
        if removed_offsets[one + 1] - start != name_end - name:
            continue
        same = True
        for place in range(name_end - name):
            if data[name + place] != removed[start + place]:
                same = False
                break
        if same:
            return True
    return False


@kernel
def _split_sections(data: U8, starts: I64, ends: I64, counts: OutI64, spans: OutI64) -> None:
    """Finds the labels of sections.

    Args:
        counts: int64[M], written: how many labels a section has, -1 if one of them is not plain.
        spans: for every label of the sections that are plain: where its name begins and ends, and its value.
    """
    filled = np.int64(0)
    for row in range(len(starts)):
        at, end = starts[row], ends[row]
        first = filled
        counts[row] = 0
        while at < end:
            name, name_end, value, stop = read_label(data, at, end)
            if stop < 0:
                counts[row] = -1
                filled = first
                break
            spans[filled] = name
            spans[filled + 1] = name_end
            spans[filled + 2] = value
            spans[filled + 3] = stop
            filled += 4
            counts[row] += 1
            at = stop


@kernel
def _sort_sections(
    data: U8,
    starts: I64,
    ends: I64,
    removed: U8,
    removed_offsets: I64,
    offsets: I64,
    scratch: OutI64,
    out: OutU8,
    out_ends: OutI64,
) -> None:
    """Writes section i in canonical form to out[offsets[i]:out_ends[i]]; it is never longer than it was.

    Args:
        removed, removed_offsets: names of labels to leave out, back to back; int64, one more than there are names.
        scratch: int64[4 * LABELS_MAX].
        out_ends: -1 where the section is not plain.
    """
    for row in range(len(starts)):
        at, end = starts[row], ends[row]
        count = np.int64(0)
        plain = True
        while at < end:
            name, name_end, value, stop = read_label(data, at, end)
            if stop < 0 or count == LABELS_MAX:
                plain = False
                break
            at = stop
            if value == stop or _is_removed(data, name, name_end, removed, removed_offsets):
                continue
            place = count
            while place > 0 and _greater(data, scratch[4 * place - 4], scratch[4 * place - 3], name, name_end):
                for part in range(4):
                    scratch[4 * place + part] = scratch[4 * place - 4 + part]
                place -= 1
            scratch[4 * place] = name
            scratch[4 * place + 1] = name_end
            scratch[4 * place + 2] = value
            scratch[4 * place + 3] = stop
            count += 1
        if not plain:
            out_ends[row] = -1
            continue
        to = offsets[row]
        for place in range(count):
            at = 4 * place
            to = write_label(data, scratch[at], scratch[at + 1], scratch[at + 2], scratch[at + 3], out, to)
        out_ends[row] = to
