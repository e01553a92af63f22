"""Values as one bytes object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mimir_ray.cluster.transport.packing import pack, unpack
from mimir_ray.errors import Corruption
from mimir_ray.model.tenant import TenantId
from mimir_ray.roles.api import WriteBatch


def batch() -> WriteBatch:
    return WriteBatch(
        TenantId("t"), 3, np.arange(5, dtype=np.int32), np.arange(5, dtype=np.int64), np.linspace(0, 1, 5), b"labels"
    )


def test_a_list_of_batches_comes_back_whole() -> None:
    sent = [batch(), batch()]
    got = unpack(pack(sent))
    for one, other in zip(sent, got, strict=True):
        assert (one.tenant, one.incarnation, one.label_bytes) == (other.tenant, other.incarnation, other.label_bytes)
        assert one.references.tolist() == other.references.tolist()
        assert one.values.tolist() == other.values.tolist()


@given(st.lists(hnp.arrays(st.sampled_from(["u1", "<i4", "<f8"]), st.integers(0, 9)), max_size=5))
def test_arrays_come_back_aligned_equal_and_read_only(arrays: list[np.ndarray]) -> None:
    for sent, got in zip(arrays, unpack(pack(arrays)), strict=True):
        assert got.dtype == sent.dtype
        assert got.tobytes() == sent.tobytes()
        assert not got.flags.writeable
        assert got.flags.aligned


def test_arrays_are_views_of_the_packed_bytes() -> None:
    data = bytearray(pack([np.zeros(1000)]))
    [got] = unpack(data)
    data[-8:] = np.float64(7).tobytes()
    assert got[-1] == 7


@given(st.data())
def test_cut_short_it_is_corruption(data: st.DataObject) -> None:
    whole = pack([batch()])
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(Corruption):
        unpack(whole[:cut])


def test_a_directory_that_lies_is_corruption() -> None:
    for head in (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x01\x00\x00\x00" + b"\xff" * 8):
        with pytest.raises(Corruption):
            unpack(head)
