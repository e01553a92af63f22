"""The hash of a label set that Prometheus' `limit_ratio` samples by.

xxHash64 (seed 0) over name and value of each label, each with its length before it: one byte, or 255 and
three bytes (little-endian) from 255 on. Upstream: model/labels/labels_stringlabels.go Hash, encodeSize.
Format: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mimir_ray.kernel import I64, U8, OutU64, device, kernel
from mimir_ray.model.labels import LabelColumns

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_NOT_P1 = np.uint64((-0x9E3779B185EBCA87) % 2**64)
_P1_P2 = np.uint64((0x9E3779B185EBCA87 + 0xC2B2AE3D27D4EB4F) % 2**64)


@device
def _rotate(value, bits):  # type: ignore[no-untyped-def]
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@device
def _read(data, at, width):  # type: ignore[no-untyped-def]
    word = np.uint64(0)
    for i in range(width):
        word |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return word


@device
def _round(lane, word):  # type: ignore[no-untyped-def]
    return _rotate(lane + word * _P2, 31) * _P1


@device
def _merge(mixed, lane):  # type: ignore[no-untyped-def]
    return (mixed ^ _round(np.uint64(0), lane)) * _P1 + _P4


@kernel
def xxhash64(data: U8, offsets: I64, out: OutU64) -> None:
    """out[i] = xxHash64 of data[offsets[i]:offsets[i + 1]], for i in 0..len(out)-1."""
    for i in range(len(out)):
        at = offsets[i]
        end = offsets[i + 1]
        length = end - at
        if length >= 32:
            a, b, c, d = _P1_P2, _P2, np.uint64(0), _NOT_P1
            while at + 32 <= end:
                a = _round(a, _read(data, at, 8))
                b = _round(b, _read(data, at + 8, 8))
                c = _round(c, _read(data, at + 16, 8))
                d = _round(d, _read(data, at + 24, 8))
                at += 32
            mixed = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
            mixed = _merge(_merge(_merge(_merge(mixed, a), b), c), d)
        else:
            mixed = _P5
        mixed += np.uint64(length)
        while at + 8 <= end:
            mixed = _rotate(mixed ^ _round(np.uint64(0), _read(data, at, 8)), 27) * _P1 + _P4
            at += 8
        if at + 4 <= end:
            mixed = _rotate(mixed ^ (_read(data, at, 4) * _P1), 23) * _P2 + _P3
            at += 4
        while at < end:
            mixed = _rotate(mixed ^ (np.uint64(data[at]) * _P5), 11) * _P1
            at += 1
        mixed = (mixed ^ (mixed >> np.uint64(33))) * _P2
        mixed = (mixed ^ (mixed >> np.uint64(29))) * _P3
        out[i] = mixed ^ (mixed >> np.uint64(32))


def label_hashes(labels: LabelColumns) -> NDArray[np.uint64]:
    """uint64[S]: the hash of each label set. Works on text: O(S * K) Python."""
    parts = [b"".join(map(_sized, (text for pair in one for text in pair))) for one in labels.to_labels()]
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    out = np.empty(len(parts), np.uint64)
    xxhash64(np.frombuffer(b"".join(parts) or b"\0", np.uint8), offsets, out)
    return out


def _sized(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    size = len(encoded)
    return (bytes((size,)) if size < 255 else b"\xff" + size.to_bytes(3, "little")) + encoded
