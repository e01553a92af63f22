"""Bodies of write requests as they travel: one snappy block, zstd, gzip, lz4, or as they are.

No more memory is taken than the limit allows: a size that the body declares is checked before anything is
decompressed, and what declares none is read in pieces until it is too much.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

import lz4.frame
import snappy
import zstandard

from mimir_ray.errors import ClientError, LimitExceeded

_PIECE = 1 << 20
_WINDOW_MAX = 1 << 27
"""What zstd's own tools refuse to go beyond unless told to."""

REMOTE_WRITE = ("snappy", "zstd", "gzip", "x-gzip", "", "identity")
OTLP = ("gzip", "lz4", "zstd", "", "identity")

TooLarge = Callable[[int, int], LimitExceeded]
"""From the size that was seen and the limit to the error that says so."""


@dataclass(eq=False)
class WriteMessageTooLarge(LimitExceeded):
    """A push request, compressed or not, over `-distributor.max-recv-msg-size`.

    Upstream: pkg/distributor/push.go distributorMaxWriteMessageSizeErr.
    """

    id: ClassVar[str] = "distributor-max-write-message-size"
    flags: ClassVar[tuple[str, ...]] = ("distributor.max-recv-msg-size",)
    per_instance: ClassVar[bool] = True
    actual: int
    allowed: int

    def describe(self) -> str:
        return (
            f"the incoming push request has been rejected because its message size of {self.actual} bytes "
            f"is larger than the allowed limit of {self.allowed} bytes"
        )


@dataclass(eq=False)
class CorruptSnappy(ClientError):
    """A body that is not one snappy block. The text is that of Go's snappy package."""

    def describe(self) -> str:
        return "snappy: corrupt input"


@dataclass(eq=False)
class CorruptBody(ClientError):
    """A body that is not compressed as it says."""

    encoding: str

    def describe(self) -> str:
        return f"{self.encoding}: corrupt input"


@dataclass(eq=False)
class UnsupportedEncoding(ClientError):
    """A Content-Encoding that nobody here reads."""

    encoding: str

    def describe(self) -> str:
        return f'unsupported compression: "{self.encoding}". Supported compression types are snappy, zstd, gzip or none'


def decompress(
    body: bytes,
    encoding: str,
    bytes_max: int,
    too_large: TooLarge = WriteMessageTooLarge,
    accepted: Collection[str] = REMOTE_WRITE,
) -> bytes:
    """The content of a body with this Content-Encoding (lower case; empty: it is not compressed).

    Raises `too_large` for a body or content over `bytes_max`, `UnsupportedEncoding`, `CorruptSnappy`, `CorruptBody`.
    """
    if encoding not in accepted:
        raise UnsupportedEncoding(encoding)
    if len(body) > bytes_max:
        raise too_large(len(body), bytes_max)
    match encoding:
        case "snappy":
            return decompress_snappy(body, bytes_max, too_large)
        case "zstd":
            return _decompress_zstd(body, bytes_max, too_large)
        case "gzip" | "x-gzip":
            return _decompress_gzip(body, bytes_max, too_large)
        case "lz4":
            return _decompress_lz4(body, bytes_max, too_large)
    return body


def decompress_snappy(body: bytes, bytes_max: int, too_large: TooLarge = WriteMessageTooLarge) -> bytes:
    """The content of a snappy block (no framing), which is how remote write bodies travel.

    The length that the block declares is checked before anything is decompressed. Raises `too_large` for a body or
    content over `bytes_max`, `CorruptSnappy` otherwise.
    """
    if len(body) > bytes_max:
        raise too_large(len(body), bytes_max)
    declared = 0
    for place, byte in enumerate(body[:5]):
        declared |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    else:
        raise CorruptSnappy
    if declared > 0xFFFFFFFF:
        raise CorruptSnappy
    if declared > bytes_max:
        raise too_large(declared, bytes_max)
    try:
        content: bytes = snappy.uncompress(body)
    except Exception as error:  # the library's own type is not exported
        raise CorruptSnappy from error
    if len(content) != declared:
        raise CorruptSnappy
    return content


def _decompress_zstd(body: bytes, bytes_max: int, too_large: TooLarge) -> bytes:
    try:
        declared = zstandard.frame_content_size(body)  # -1: not said
        if declared > bytes_max:
            raise too_large(declared, bytes_max)
        # 0 is said of frames to skip too, for which the library would take as much memory as they claim to be long.
        if declared > 0:
            content = zstandard.ZstdDecompressor().decompress(body, declared, allow_extra_data=False)
            if len(content) != declared:
                raise CorruptBody("zstd")
            return content
        reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX).stream_reader(body, read_across_frames=True)
        pieces, size = [], 0
        while piece := reader.read(_PIECE):
            size += len(piece)
            if size > bytes_max:
                raise too_large(size, bytes_max)
            pieces.append(piece)
    except zstandard.ZstdError as error:
        raise CorruptBody("zstd") from error
    return b"".join(pieces)


def _decompress_gzip(body: bytes, bytes_max: int, too_large: TooLarge) -> bytes:
    pieces: list[bytes] = []
    size = 0
    rest = body
    try:
        while rest or not pieces:
            stream = zlib.decompressobj(zlib.MAX_WBITS | 16)  # one member; several may stand in a row
            while not stream.eof:
                piece = stream.decompress(rest, _PIECE)
                rest = stream.unconsumed_tail or stream.unused_data
                size += len(piece)
                if size > bytes_max:
                    raise too_large(size, bytes_max)
                pieces.append(piece)
                if not piece and not rest and not stream.eof:
                    raise CorruptBody("gzip")
    except zlib.error as error:
        raise CorruptBody("gzip") from error
    return b"".join(pieces)


def _decompress_lz4(body: bytes, bytes_max: int, too_large: TooLarge) -> bytes:
    """Frames, one after the other, as of the `lz4` tool."""
    pieces: list[bytes] = []
    size = 0
    rest = body
    try:
        while rest or not pieces:
            stream = lz4.frame.LZ4FrameDecompressor()
            while not stream.eof:
                if stream.needs_input and not rest:
                    raise CorruptBody("lz4")
                piece = stream.decompress(rest, _PIECE)
                rest = b""  # the stream keeps what it has not read
                size += len(piece)
                if size > bytes_max:
                    raise too_large(size, bytes_max)
                pieces.append(piece)
            rest = stream.unused_data or b""
    except RuntimeError as error:
        raise CorruptBody("lz4") from error
    return b"".join(pieces)
