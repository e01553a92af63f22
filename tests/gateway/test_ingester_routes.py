"""`/ingester/flush`: one request for all ingesters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mimir_ray.cluster.ring.model import INGESTER, InstanceDesc, InstanceId, InstanceState
from mimir_ray.cluster.transport.base import Address
from mimir_ray.roles.ingester.ingester import IngesterNotReady

from .serving import Gateway, serving


class FakeIngester:
    def __init__(self) -> None:
        self.flushes: list[tuple[tuple[str, ...], bool]] = []
        self.failure: Exception | None = None

    def flush(self, tenants: tuple[str, ...] = (), wait: bool = False) -> None:
        self.flushes.append((tenants, wait))
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with serving() as one:
        yield one


@pytest.fixture
def ingesters(gateway: Gateway) -> list[FakeIngester]:
    """Two, in the ring."""
    found = []
    for number in range(2):
        fake = FakeIngester()
        address = Address("ingester", str(number))
        gateway.services.transport.serve(address, lambda fake=fake: fake)  # type: ignore[attr-defined]
        desc = InstanceDesc(
            InstanceId(f"ingester-{number}"), address.actor_name, state=InstanceState.ACTIVE, incarnation=1
        )
        gateway.ring.register(INGESTER, desc)
        found.append(fake)
    return found


def test_every_ingester_is_told_which_tenants_and_whether_to_wait(
    gateway: Gateway, ingesters: list[FakeIngester]
) -> None:
    assert gateway.ask("/ingester/flush").status == 204
    assert gateway.ask("/ingester/flush", {"tenant": ["a", "b"], "wait": "true"}, method="POST").status == 204
    assert gateway.form("/ingester/flush", {"tenant": "c", "wait": "yes"}).status == 204
    for one in ingesters:
        assert one.flushes == [((), False), (("a", "b"), True), (("c",), False)]


def test_one_that_is_not_running_makes_it_a_503_after_all_were_asked(
    gateway: Gateway, ingesters: list[FakeIngester]
) -> None:
    ingesters[0].failure = IngesterNotReady("starting")
    answer = gateway.ask("/ingester/flush")
    assert (answer.status, answer.body) == (503, b"the ingester is not available: starting\n")
    assert ingesters[1].flushes == [((), False)]


def test_a_form_that_is_none_is_a_400(gateway: Gateway, ingesters: list[FakeIngester]) -> None:
    answer = gateway.ask(
        "/ingester/flush", method="POST", body=b"\xff", content_type="application/x-www-form-urlencoded"
    )
    assert answer.status == 400
    assert gateway.ask("/ingester/flush", {"tenant": "a/b"}).status == 400
    assert ingesters[0].flushes == []
