"""Which node an actor goes to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mimir_ray.deploy.placement import NODE_LABEL, ZONE_LABEL, NoNodeInZone, RayNode, labelled_nodes, located, place
from mimir_ray.deploy.settings import Settings
from mimir_ray.deploy.topology import ActorSpec, topology

ZONES = ("a", "b", "c")


def specs(ingesters: int, gateways: int = 1) -> tuple[ActorSpec, ...]:
    default = Settings()
    deploy = replace(default.deploy, ingesters=ingesters, zones=ZONES, gateways=gateways)
    return topology(replace(default, deploy=deploy))


def nodes(*names: str) -> list[RayNode]:
    """`a1` is in zone a, with an address of its own."""
    return [RayNode(name, name[0], f"10.0.0.{at}") for at, name in enumerate(names)]


def where(ingesters: int, names: tuple[str, ...], before: dict[str, str] | None = None) -> dict[str, str]:
    return {name: one.node.name for name, one in place(specs(ingesters), nodes(*names), before or {}).items()}


def test_without_labelled_nodes_nothing_is_bound() -> None:
    assert place(specs(3), [], {}) == {}


def test_ingesters_go_to_the_node_of_their_zone_that_has_fewest() -> None:
    found = where(6, ("a1", "a2", "b1", "c1"))
    assert [found[f"ingester/{at}"] for at in range(6)] == ["a1", "b1", "c1", "a2", "b1", "c1"]


def test_only_what_has_data_or_an_address_is_bound() -> None:
    assert {name.partition("/")[0] for name in where(3, ("a1", "b1", "c1"))} == {"ingester", "gateway"}


def test_ingesters_stay_where_their_data_is_when_nodes_are_added() -> None:
    before = where(3, ("a2", "b1", "c1"))
    after = where(4, ("a1", "a2", "b1", "c1"), before)
    assert {name: after[name] for name in before} == before
    assert after["ingester/3"] == "a1"


def test_a_zone_without_a_node_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(NoNodeInZone, match=f"{ZONE_LABEL}=c"):
        where(3, ("a1", "b1"))


def test_gateways_on_one_machine_have_ports_of_their_own() -> None:
    same = [RayNode(name, name[0], "127.0.0.1") for name in ("a1", "b1", "c1")]
    apart = place(specs(3, gateways=3), nodes("a1", "b1", "c1"), {})
    together = place(specs(3, gateways=3), same, {})
    names = [f"gateway/{at}" for at in range(3)]
    assert [apart[name].port_offset for name in names] == [0, 0, 0]
    assert [together[name].port_offset for name in names] == [0, 1, 2]


def test_labels_are_read_off_rays_nodes() -> None:
    def node(alive: bool, **labels: str) -> dict[str, Any]:
        named = {{"zone": ZONE_LABEL, "node": NODE_LABEL}[name]: value for name, value in labels.items()}
        return {"Alive": alive, "Labels": named, "NodeManagerAddress": "10.0.0.1"}

    found = labelled_nodes([node(True, zone="b", node="b1"), node(False, zone="a"), node(True), node(True, zone="a")])
    assert found == [RayNode("a/10.0.0.1", "a", "10.0.0.1", named=False), RayNode("b1", "b", "10.0.0.1")]
    options = place(specs(2), found, {})["ingester/1"].options()
    assert options == {"label_selector": {ZONE_LABEL: "b", NODE_LABEL: "b1"}}
    assert place(specs(2), found, {})["ingester/0"].options() == {"label_selector": {ZONE_LABEL: "a"}}


@pytest.mark.parametrize(
    ("ingesters", "names", "zone_aware", "copies"),
    [
        (3, ("a1", "b1", "c1"), True, 3),
        (3, ("a1", "b1", "c1"), False, 3),
        (2, ("a1", "b1", "c1"), False, 2),
        (6, ("a1", "a2", "b1", "c1"), False, 4),
        (6, ("a1", "a2", "b1", "c1"), True, 3),
        (3, (), False, 1),
    ],
)
def test_copies_can_be_kept_apart_on_as_many_machines_as_have_ingesters(
    ingesters: int, names: tuple[str, ...], zone_aware: bool, copies: int
) -> None:
    of = specs(ingesters)
    found = located(of, place(of, nodes(*names), {}), zone_aware)
    assert found[0].copies == copies
    assert [one.address for one in found] == [one.address for one in of]


def test_ingesters_that_may_come_back_on_any_machine_of_a_zone_count_as_on_one() -> None:
    unnamed = [RayNode(name, name[0], f"10.0.0.{at}", named=False) for at, name in enumerate(("a1", "a2", "b1", "c1"))]
    of = specs(6)
    found = located(of, place(of, unnamed, {}), zone_aware=False)
    assert {one.machine for one in found if one.address.role == "ingester"} == {"a", "b", "c"}
