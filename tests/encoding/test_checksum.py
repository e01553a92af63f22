"""CRC-32C of every kind of buffer."""

from __future__ import annotations

import numpy as np
import pytest

from mimir_ray.encoding.checksum import crc32c, crc32c_of_pieces

CHECK = b"123456789"


def test_the_check_value_is_the_published_one() -> None:
    assert crc32c(CHECK) == 0xE3069283


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_every_kind_of_buffer_gives_the_same(kind: type) -> None:
    assert crc32c(kind(CHECK)) == 0xE3069283


def test_arrays_of_other_types_count_as_their_bytes() -> None:
    values = np.array([[1.5, -2.0], [0.0, np.nan]])
    assert crc32c(values) == crc32c(values.tobytes())


def test_read_only_and_empty_arrays_are_taken() -> None:
    array = np.arange(10)
    array.flags.writeable = False
    assert crc32c(array) == crc32c(array.tobytes())
    assert crc32c(np.zeros((0, 3))) == crc32c(b"") == 0


def test_pieces_give_the_checksum_of_the_whole() -> None:
    assert crc32c_of_pieces([b"123", memoryview(b"456"), np.frombuffer(b"789", np.uint8)]) == crc32c(CHECK)
