"""What the ring page says about copies of samples."""

from __future__ import annotations

import pytest

from mimir_ray.cluster.ring.lookup import RingOptions, RingView
from mimir_ray.cluster.ring.model import INGESTER, InstanceId, Loss, Period, Replication, RingDesc
from mimir_ray.gateway.blueprints.rings import copies, describe

NOW = 1_700_000_000_000
NAMED = "2023-11-14T22:13:20Z"


def view(replication: Replication | None, number: int = 0, zones: bool = False) -> RingView:
    return RingView(RingDesc(INGESTER, 1, NOW, {}, replication=replication), RingOptions(number, zones))


def test_a_number_is_said_as_it_is() -> None:
    assert copies(view(None, 3)) == "Replication factor 3."
    assert describe(view(None, 3), NOW).keys() == {"shards", "now"}, "as in Mimir"


@pytest.mark.parametrize(
    ("replication", "zones", "said"),
    [
        (Replication(3, NOW), True, f"Replication factor 3, automatic, since {NAMED}. Queries may leave out one zone."),
        (
            Replication(3, NOW, (Period(1, 0, NOW),)),
            False,
            f"Replication factor 3, automatic, since {NAMED}. Within the look-back it was 1 until {NAMED}. "
            "Queries may leave out no machine.",
        ),
        (
            Replication(2, NOW, announced=1, announced_ms=NOW, lost=(Loss(InstanceId("ingester-1"), NOW, True),)),
            False,
            f"Replication factor 2, automatic, since {NAMED}. It will be 1 from {NAMED} on. "
            f"Copies of recent samples were lost with ingester-1 at {NAMED}. Queries may leave out no machine.",
        ),
    ],
)
def test_an_automatic_one_says_what_it_was_and_what_queries_go_by(
    replication: Replication, zones: bool, said: str
) -> None:
    assert copies(view(replication, zones=zones)) == said
    assert describe(view(replication), NOW)["replication_factor"] == replication.factor
