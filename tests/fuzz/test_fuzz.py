"""A share of the fuzzing in every test run, what it has found before, and the fuzzer itself.

`make fuzz` runs the same for hours. A new find belongs into `finds.py`.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ray.errors import ClientError, Corruption
from tests.fuzz.finds import FINDS
from tests.fuzz.mutation import of_bytes, read_fields, write_fields
from tests.fuzz.target import Find, Target, at_edges, attempt, fuzz, inputs
from tests.fuzz.targets import BY_NAME, TARGETS

INPUTS = 10_000
SEED = 1


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_nothing_from_outside_breaks_a_decoder(target: Target) -> None:
    count = -(-int(INPUTS * target.share) // int(sum(one.share for one in TARGETS)))
    tally = fuzz(target, count, SEED)
    assert not tally.finds, "\n".join(map(str, tally.finds))
    assert tally.inputs == count
    assert tally.taken, "not one input was sound, so nothing behind the first check was tried"


@pytest.mark.parametrize(("name", "data"), FINDS)
def test_what_was_found_once_stays_mended(name: str, data: bytes) -> None:
    with at_edges():
        attempt(BY_NAME[name], data, watch_memory=True)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@given(data=st.binary(max_size=200))
@settings(max_examples=20, deadline=None)
def test_bytes_of_no_language_at_all_are_refused_or_read(target: Target, data: bytes) -> None:
    with at_edges():
        attempt(target, data)


# The fuzzer itself.


def _target(decode: object) -> Target:
    return Target("made-up", decode, lambda: [b"seed"], of_bytes)  # type: ignore[arg-type]


def _raising(error: Exception) -> object:
    def decode(data: bytes) -> None:
        raise error

    return decode


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), RecursionError(), Corruption("x"), AssertionError()])
def test_what_no_caller_expects_is_a_find(error: Exception) -> None:
    with pytest.raises(Find, match=type(error).__name__):
        attempt(_target(_raising(error)), b"\x01")


def test_a_refusal_is_none() -> None:
    assert attempt(_target(_raising(ClientError("no"))), b"") is False
    assert attempt(_target(lambda data: None), b"") is True


def test_memory_that_the_input_does_not_explain_is_a_find() -> None:
    with pytest.raises(Find, match="needed"):
        attempt(_target(lambda data: bytes(8 << 20)), b"", watch_memory=True)


def test_the_same_seed_gives_the_same_inputs() -> None:
    target = BY_NAME["remote-write"]

    def first(seed: int) -> list[bytes]:
        return [data for data, _ in zip(inputs(target, seed), range(50), strict=False)]

    assert first(1) == first(1) != first(2)


@pytest.mark.parametrize("name", ["remote-write", "remote-write-2", "otlp"])
def test_messages_survive_being_taken_apart(name: str) -> None:
    for message in BY_NAME[name].seeds():
        fields = read_fields(message)
        assert fields is not None and write_fields(fields) == message
