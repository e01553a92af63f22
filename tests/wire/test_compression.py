"""Bodies are decompressed within bounds, or refused."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Callable

import lz4.frame
import pytest
import snappy
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.errors import ClientError
from mimir_ray.wire.compression import (
    OTLP,
    REMOTE_WRITE,
    CorruptBody,
    UnsupportedEncoding,
    WriteMessageTooLarge,
    decompress,
)


def zstd_stream(body: bytes) -> bytes:
    """Without the size in the header, as streaming writers do."""
    out = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(out, closefd=False) as writer:
        writer.write(body)
    assert not body or zstandard.frame_content_size(out.getvalue()) == -1
    return out.getvalue()


def two_of(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda body: compress(body[:5]) + compress(body[5:]) if body else compress(body)


ALL = {*REMOTE_WRITE, *OTLP}
WAYS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("snappy", snappy.compress),
    ("zstd", zstandard.compress),
    ("zstd", zstd_stream),
    ("zstd", two_of(zstd_stream)),
    ("gzip", gzip.compress),
    ("x-gzip", two_of(gzip.compress)),
    ("lz4", lz4.frame.compress),
    ("lz4", two_of(lz4.frame.compress)),
    ("identity", bytes),
    ("", bytes),
]


@pytest.mark.parametrize(("encoding", "compress"), WAYS)
@pytest.mark.parametrize("body", [b"", b"abc" * 100, b"x" * 3_000_000])
def test_what_was_compressed_comes_back(encoding: str, compress: Callable[[bytes], bytes], body: bytes) -> None:
    assert decompress(compress(body), encoding, 4_000_000, accepted=ALL) == body


@pytest.mark.parametrize(("encoding", "compress"), WAYS)
def test_what_would_be_too_large_is_refused(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(b"\0" * 20_000_000)
    with pytest.raises(WriteMessageTooLarge) as caught:
        decompress(bomb, encoding, 1_000_000, accepted=ALL)
    # Streams are read a piece beyond the limit, no more.
    assert caught.value.actual <= 2 << 20 or caught.value.actual == 20_000_000


@pytest.mark.parametrize("encoding", ["zstd", "gzip", "snappy", "lz4"])
@pytest.mark.parametrize(
    "body",
    [b"", b"\xff" * 30, b"\x28\xb5\x2f\xfd", gzip.compress(b"abc", mtime=0)[:-3], lz4.frame.compress(b"abc")[:-3]],
)
def test_what_is_corrupt_is_refused(encoding: str, body: bytes) -> None:
    with pytest.raises(ClientError, match="corrupt input"):
        decompress(body, encoding, 1000, accepted=ALL)


def test_a_zstd_frame_is_followed_by_nothing() -> None:
    with pytest.raises(CorruptBody):
        decompress(zstandard.compress(b"abc") + b"more", "zstd", 1000)


def test_encodings_that_nobody_reads_are_named() -> None:
    with pytest.raises(UnsupportedEncoding, match="lz4"):
        decompress(b"", "lz4", 1000)


@given(st.sampled_from([way for way in WAYS if way[1] is not bytes]), st.binary(max_size=300), st.data())
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(
    way: tuple[str, Callable[[bytes], bytes]], body: bytes, data: st.DataObject
) -> None:
    encoding, compress = way
    damaged = bytearray(compress(body))
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    with contextlib.suppress(ClientError):
        assert len(decompress(bytes(damaged), encoding, 1000)) <= 1000
