"""When a replicated write has succeeded and when it has failed."""

from __future__ import annotations

import asyncio
from itertools import permutations, product

import numpy as np
import pytest

from mimir_ray.errors import ClientError, MimirRayError, Unavailable
from mimir_ray.roles.distributor.replication import WriteQuorum

OK, BAD, GONE = None, ClientError("bad"), Unavailable("gone")


def decided_after(answers: list[MimirRayError | None], replicas: int = 3, needed: int = 2) -> tuple[int, object]:
    """(how many answers it took, the outcome) for one item."""

    async def work() -> tuple[int, object]:
        quorum = WriteQuorum(np.array([replicas], np.int8), needed)
        for count, answer in enumerate(answers, 1):
            quorum.record(slice(None), answer)
            if quorum.done.done():
                return count, quorum.done.result()
        return 0, "undecided"

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("answers", "decision"),
    [
        ([OK, OK, GONE], (2, OK)),
        ([OK, GONE, OK], (3, OK)),
        ([GONE, GONE, OK], (2, GONE)),
        ([BAD, OK, BAD], (3, BAD)),
        ([BAD, GONE, BAD], (3, BAD)),
        ([BAD, GONE, GONE], (3, GONE)),
        ([BAD, GONE, OK], (3, GONE)),
        ([GONE, BAD, OK], (3, BAD)),
        ([OK, BAD, GONE], (3, GONE)),
    ],
)
def test_the_family_that_makes_a_quorum_impossible_decides(answers: list, decision: tuple) -> None:
    assert decided_after(answers) == decision


def test_the_first_error_of_the_family_that_decided_is_the_answer() -> None:
    first, second = ClientError("first"), ClientError("second")
    assert decided_after([first, GONE, second]) == (3, first)
    assert decided_after([GONE, first, second]) == (3, first)
    lost, later = Unavailable("lost"), Unavailable("later")
    assert decided_after([lost, OK, later]) == (3, lost)


def test_errors_of_other_series_are_not_the_answer() -> None:
    async def work() -> None:
        quorum = WriteQuorum(np.array([3, 3], np.int8), 2)
        other, ours = Unavailable("other"), Unavailable("ours")
        quorum.record(np.array([0]), other)
        quorum.record(np.array([1]), ours)
        quorum.record(np.array([1]), GONE)
        assert quorum.done.result() is ours

    asyncio.run(work())


def test_every_order_of_answers_comes_to_success_or_failure_alike() -> None:
    for answers in product((OK, BAD, GONE), repeat=3):
        outcomes = {decided_after(list(order))[1] is None for order in permutations(answers)}
        assert outcomes == {answers.count(OK) >= 2}


def test_with_fewer_live_replicas_one_failure_decides() -> None:
    assert decided_after([OK, GONE], replicas=2) == (2, GONE)
    assert decided_after([OK, OK], replicas=2) == (2, OK)


def test_all_items_need_their_quorum() -> None:
    async def work() -> None:
        quorum = WriteQuorum(np.array([3, 3], np.int8), 2)
        quorum.record(slice(None), OK)
        quorum.record(np.array([0]), OK)
        assert not quorum.done.done()
        quorum.record(np.array([1]), OK)
        assert quorum.done.result() is None
        quorum.record(slice(None), GONE)

    asyncio.run(work())


def test_nothing_to_write_is_done_at_once() -> None:
    async def work() -> None:
        assert WriteQuorum(np.zeros(0, np.int8), 2).done.result() is None

    asyncio.run(work())
