"""Decoders of write requests: protobuf, JSON, lines, expositions, and their compression."""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence

import lz4.frame
import numpy as np
import snappy
import zstandard

from mimir_ray.errors import ClientError
from mimir_ray.wire.compression import decompress
from mimir_ray.wire.exemplars import read_exemplars
from mimir_ray.wire.exposition import parse_exposition, parse_series
from mimir_ray.wire.influx import parse_lines
from mimir_ray.wire.otlp.json_body import protobuf_of_json
from mimir_ray.wire.otlp.names import Naming
from mimir_ray.wire.otlp.translate import OtlpSettings, scan_otlp
from mimir_ray.wire.protobuf import parse_labels
from mimir_ray.wire.remote_write import encode_write_request, scan_write_request
from mimir_ray.wire.remote_write_histograms import read_histograms
from mimir_ray.wire.remote_write_v2 import scan_write_request_v2
from mimir_ray.wire.write_scan import WriteScan
from tests.fuzz import messages
from tests.fuzz.mutation import of_bytes, of_json, of_protobuf, of_text
from tests.fuzz.target import Target

KEY = (1, 2, 3, 4)
CONTENT_MAX = 1 << 20
"""Bytes that compressed bodies, and labels that are written out, may be."""
SETTINGS = (
    OtlpSettings(),
    OtlpSettings(Naming(suffixes=True), ("host", "a.b"), True, True, True, True, True),
    OtlpSettings(Naming(suffixes=True, utf8=True), convert_histograms_to_nhcb=True),
)


def _whole(scan: WriteScan) -> None:
    """Reads all that a scan has found, as the distributor would."""
    scan.need_labels(np.arange(len(scan)))
    assert (scan.sample_offsets[1:] >= scan.sample_offsets[:-1]).all() and scan.sample_offsets[-1] == scan.samples
    assert not scan.samples or 0 <= scan.sample_series.min() <= scan.sample_series.max() < len(scan)
    for start, end in zip(scan.label_start.tolist(), scan.label_end.tolist(), strict=True):
        assert 0 <= start <= end <= len(scan.data)
        try:
            parse_labels(scan.data, start, end)
        except ClientError:
            continue  # validation would refuse this series alone
    if scan.families is not None:
        scan.read_families(np.arange(len(scan.families.keys)))
    histograms = scan.own_histograms() or read_histograms(scan)
    assert len(histograms.columns) == scan.histograms == len(histograms.timestamps)
    exemplars = scan.own_exemplars(128) or read_exemplars(scan, 128)
    assert len(exemplars.offsets) == len(exemplars.series) + 1 == scan.exemplars + 1


def _remote_write(data: bytes) -> None:
    _whole(scan_write_request(data, KEY))


def _remote_write_2(data: bytes) -> None:
    _whole(scan_write_request_v2(data, KEY, CONTENT_MAX))


def _otlp(data: bytes) -> None:
    for settings in SETTINGS:
        _whole(scan_otlp(data, KEY, settings))


def _otlp_json(data: bytes) -> None:
    _otlp(protobuf_of_json(data))


_ENCODINGS = ("snappy", "zstd", "gzip", "identity", "lz4")


def _compressed(data: bytes) -> None:
    """The first byte says which encoding."""
    encoding = _ENCODINGS[(data[0] if data else 0) % len(_ENCODINGS)]
    content = decompress(data[1:], encoding, CONTENT_MAX, accepted=_ENCODINGS)
    assert len(content) <= CONTENT_MAX


def _bodies() -> list[bytes]:
    plain = [*messages.write_requests(4), b"", b"a", b"ab" * 3000, bytes(300_000), random.Random(1).randbytes(500)]
    several = zstandard.compress(b"one") + zstandard.compress(b"two")
    unsized = zstandard.ZstdCompressor(write_content_size=False)
    return [
        *(b"\0" + snappy.compress(one) for one in plain),
        *(b"\1" + zstandard.compress(one) for one in plain),
        *(b"\1" + unsized.compress(one) for one in plain),
        *(b"\2" + gzip.compress(one, mtime=0) for one in plain),
        *(b"\4" + lz4.frame.compress(one) for one in plain),
        b"\4" + lz4.frame.compress(b"one") * 2,
        b"\1" + several,
        b"\1\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + several,
        b"\2" + gzip.compress(b"one", mtime=0) * 2,
        b"\3" + plain[0],
        b"\0" + b"\xff\xff\xff\xff\x0f" + b"\0" * 9,
    ]


def _influx(data: bytes) -> None:
    series = parse_lines(data, "ns", messages.NOW_MS)
    _whole(scan_write_request(encode_write_request(series), KEY))


_LINES = (
    b"cpu,host=a,region=eu usage=0.5,count=3i,up=true 1700000000000000000\n",
    b'disk free=1e9,name="sd a\\"1",n=7u\nmem,a\\ b=c\\,d v=1 1700000000000000000\n# comment\n\n',
    b"m v=-1.5\nm v=t\nm v=FALSE\nm v=0x1p3\n",
    b'log text="two\nlines",v=1 1700000000000000000\n',
)
_INFLUX_WORDS = (
    *(",", "=", "\\", '"', " ", "\n", "#", "i", "u", "t", "T", "true", "v=1", "m,a=b", "1e999", "-9", "é"),
)
_EXPOSITIONS = (
    b"# HELP up Whether.\n# TYPE up gauge\nup 1\nup{job=\"a\"} 0 1700000000000\n",
    b'# TYPE h histogram\nh_bucket{le="0.5"} 1\nh_bucket{le="+Inf"} 2 # {trace_id="a"} 0.3 1700000000\n'
    b'h_sum 1.5\nh_count 2\n# EOF\n',
    '{"a.b","c d"="e\\n\\"\\\\"} NaN\nx{a="",} +Inf\n# UNIT x seconds\ny{é="ü"} -0x1p-2\nz 1e400\n'.encode(),
)  # fmt: skip


def _exposition(data: bytes) -> None:
    for kind in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        try:
            found = parse_exposition(data, kind)
        except ClientError:
            continue
        assert len(found.series) == len(found.timestamps) == len(found.values)
        for text in found.series:
            try:
                parse_series(text)
            except ClientError:
                continue


def _seeds(*one: bytes) -> Sequence[bytes]:
    return one


TARGETS = (
    Target("remote-write", _remote_write, messages.write_requests, of_protobuf, share=3),
    # A few bytes may name a long symbol over and over, up to a limit.
    Target("remote-write-2", _remote_write_2, messages.write_requests_2, of_protobuf, bytes_more=8 << 20, share=3),
    Target("otlp", _otlp, messages.otlp_requests, of_protobuf, bytes_per_byte=2000, share=2),
    Target("otlp-json", _otlp_json, messages.otlp_json_requests, of_json, bytes_per_byte=2000, share=2),
    Target("compression", _compressed, _bodies, of_bytes, bytes_more=6 * CONTENT_MAX),
    Target(
        "influx",
        _influx,
        lambda: _seeds(*_LINES),
        of_text(*_INFLUX_WORDS),
        bytes_per_byte=2000,
    ),
    Target(
        "exposition",
        _exposition,
        lambda: _seeds(*_EXPOSITIONS),
        of_text(
            "{",
            "}",
            '"',
            "\\",
            ",",
            "=",
            " ",
            "\n",
            "# TYPE ",
            "# HELP ",
            "# UNIT ",
            "# EOF",
            "NaN",
            "1",
            "1e999",
            "é",
            "_",
            "\0",
            "\r",
            "\t",
        ),
        bytes_per_byte=2000,
    ),
)
