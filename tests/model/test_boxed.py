"""Numbers in NaNs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.model.boxed import box, count_boxed, is_boxed, unbox, without_boxes
from mimir_ray.model.series import NORMAL_NAN_BITS, STALE_NAN_BITS


@given(st.lists(st.integers(0, (1 << 48) - 1)))
def test_numbers_come_out_as_they_went_in(numbers: list[int]) -> None:
    values = box(np.array(numbers, np.int64))
    assert is_boxed(values).all()
    assert np.isnan(values).all()
    assert unbox(values).tolist() == numbers


@given(st.lists(st.integers(0, (1 << 64) - 1)))
@settings(deadline=None)  # the first example compiles
def test_floats_are_told_from_numbers_by_their_first_16_bits(patterns: list[int]) -> None:
    bits = np.array(patterns, np.uint64)
    expected = [pattern >> 48 == 0x7FF9 for pattern in patterns]
    values = bits.view(np.float64)
    assert is_boxed(values).tolist() == expected
    assert count_boxed(bits) == sum(expected)
    cleaned = without_boxes(values).view(np.uint64).tolist()
    assert cleaned == [NORMAL_NAN_BITS if boxed else bit for bit, boxed in zip(patterns, expected, strict=True)]


def test_nans_with_a_meaning_are_no_numbers() -> None:
    known = np.array([NORMAL_NAN_BITS, STALE_NAN_BITS, 0x7FF8000000000000, 0xFFF8000000000000], np.uint64)
    assert not is_boxed(known.view(np.float64)).any()
