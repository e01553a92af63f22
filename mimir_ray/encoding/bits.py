"""Machine instructions that kernels need and numba has no spelling for.

Unaligned 64-bit loads and stores on byte arrays (numba does not merge byte loads, which makes them
several times slower), 64 x 64 -> 128 bit multiplication, counts of zero bits, float64 <-> its bits, and
copies of byte ranges. None checks bounds: the caller has made sure that all eight bytes (or `count`
bytes) are inside the array. All are for kernels and their `@device` parts only.
"""

# numba calls the functions below with fixed arguments, needed or not.
# ruff: noqa: ARG001

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mimir_ray.kernel import array_at, cgutils, device, intrinsic, ir
from mimir_ray.kernel import machine_types as types

_WORD = ir.IntType(64)


def _instruction(function: Callable[..., Any]) -> Any:
    """numba's decorator, typed: what kernels call lacks the first parameter."""
    return intrinsic(function)


def _address(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [at])


def _is_bytes(array: Any) -> bool:
    return isinstance(array, types.Array) and array.dtype == types.uint8 and array.ndim == 1 and array.layout == "C"


def _load(swap: bool) -> Any:
    def typed(typing_context: Any, data: Any, at: Any) -> Any:
        if not _is_bytes(data):
            return None

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            address = _address(context, builder, signature.args[0], args[0], args[1])
            word = builder.load(builder.bitcast(address, _WORD.as_pointer()), align=1)
            return builder.bswap(word) if swap else word

        return types.uint64(data, types.int64), generate

    return typed


def _store(swap: bool) -> Any:
    def typed(typing_context: Any, data: Any, at: Any, word: Any) -> Any:
        if not _is_bytes(data) or not data.mutable:
            return None

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            address = _address(context, builder, signature.args[0], args[0], args[1])
            value = builder.bswap(args[2]) if swap else args[2]
            builder.store(value, builder.bitcast(address, _WORD.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(data, types.int64, types.uint64), generate

    return typed


@_instruction
def load64_le(typing_context: Any, data: Any, at: Any) -> Any:
    """uint64 of data[at:at + 8], little-endian."""
    return _load(swap=False)(typing_context, data, at)


@_instruction
def load64_be(typing_context: Any, data: Any, at: Any) -> Any:
    """uint64 of data[at:at + 8], big-endian."""
    return _load(swap=True)(typing_context, data, at)


@_instruction
def store64_le(typing_context: Any, data: Any, at: Any, word: Any) -> Any:
    """data[at:at + 8] = word, little-endian."""
    return _store(swap=False)(typing_context, data, at, word)


@_instruction
def store64_be(typing_context: Any, data: Any, at: Any, word: Any) -> Any:
    """data[at:at + 8] = word, big-endian."""
    return _store(swap=True)(typing_context, data, at, word)


@_instruction
def load32_le(typing_context: Any, data: Any, at: Any) -> Any:
    """uint64 of data[at:at + 4], little-endian."""
    if not _is_bytes(data):
        return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[0], args[0], args[1])
        half = builder.load(builder.bitcast(address, ir.IntType(32).as_pointer()), align=1)
        return builder.zext(half, _WORD)

    return types.uint64(data, types.int64), generate


@_instruction
def copy_bytes(typing_context: Any, to: Any, to_start: Any, source: Any, source_start: Any, count: Any) -> Any:
    """to[to_start:to_start + count] = source[source_start:source_start + count]; the ranges may overlap."""
    if not _is_bytes(to) or not to.mutable or not _is_bytes(source):
        return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = _address(context, builder, signature.args[0], args[0], args[1])
        origin = _address(context, builder, signature.args[2], args[2], args[3])
        cgutils.raw_memmove(builder, target, origin, args[4], 1)
        return context.get_dummy_value()

    return types.void(to, types.int64, source, types.int64, types.int64), generate


@_instruction
def _pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@device
def bytes_at(address: Any, length: Any) -> Any:
    """The uint8 array of this length at an address, which somebody else keeps alive."""
    return array_at(_pointer(address), (length,), np.uint8)


@device
def equal_bytes(left: Any, left_start: Any, right: Any, right_start: Any, count: Any) -> Any:
    """Whether left[left_start:left_start + count] are the same bytes as those of `right`."""
    at = np.int64(0)
    while count - at >= 8:
        if load64_le(left, left_start + at) != load64_le(right, right_start + at):
            return False
        at += 8
    while at < count:
        if left[left_start + at] != right[right_start + at]:
            return False
        at += 1
    return True


@_instruction
def multiply_128(typing_context: Any, left: Any, right: Any) -> Any:
    """(high, low) halves, both uint64, of the full product of two uint64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        low = builder.trunc(product, _WORD)
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _WORD)
        return context.make_tuple(builder, signature.return_type, (high, low))

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), generate


@_instruction
def leading_zeros(typing_context: Any, word: Any) -> Any:
    """Zero bits above the highest one of a uint64, as int64; 64 for zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@_instruction
def trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Zero bits below the lowest one of a uint64, as int64; 64 for zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@_instruction
def float_to_bits(typing_context: Any, value: Any) -> Any:
    """The IEEE 754 bits of a float64, as uint64; NaN payloads survive."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _WORD)

    return types.uint64(types.float64), generate


@_instruction
def bits_to_float(typing_context: Any, word: Any) -> Any:
    """The float64 of these uint64 bits; NaN payloads survive."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), generate
