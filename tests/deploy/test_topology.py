"""Which actors a deployment has, and which settings make none."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mimir_ray.cluster.transport.base import RING, Address
from mimir_ray.config import loader
from mimir_ray.config.tree import ConfigError
from mimir_ray.deploy.ingesters import automatic, how_many, with_ingesters
from mimir_ray.deploy.settings import Settings, round_robin
from mimir_ray.deploy.topology import topology


def settings(**deploy: Any) -> Settings:
    return replace(Settings(), deploy=replace(Settings().deploy, **{"ingesters": 2, **deploy}))


def loaded(*arguments: str) -> Settings:
    return loader.load(Settings(), list(arguments)).settings


def test_the_ring_comes_first_and_the_gateway_last() -> None:
    names = [spec.address for spec in topology(settings(ingesters=3))]
    ingesters = [Address("ingester", str(at)) for at in range(3)]
    assert names == [RING, *ingesters, Address("backend", "0"), Address("gateway", "0")]


def test_ingesters_are_spread_over_zones_round_robin() -> None:
    specs = topology(settings(ingesters=5, compactors=0, store_gateways=0, zones=("a", "b")))
    assert [spec.zone for spec in specs] == ["", "a", "b", "a", "b", "a", ""]
    assert [round_robin(["x"], at) for at in range(3)] == ["x", "x", "x"]


def test_actors_come_back_for_ever_and_nobody_tries_again_behind_the_callers_back() -> None:
    for spec in topology(settings()):
        options = spec.options()
        assert options["name"] == spec.address.actor_name
        assert (options["lifetime"], options["max_restarts"], options["max_task_retries"]) == ("detached", -1, 0)
        assert options["num_cpus"] == 0


def test_writes_and_reads_of_an_ingester_have_threads_of_their_own() -> None:
    (_, ingester, *_) = topology(settings(ingesters=1))
    groups = ingester.options()["concurrency_groups"]
    assert set(groups) == {"write", "read"}
    assert all(groups.values())


def test_every_group_of_an_actor_class_is_in_its_specification() -> None:
    from mimir_ray.cluster.ring.actor import RingActor
    from mimir_ray.roles.ingester.actor import IngesterActor
    from mimir_ray.roles.store_gateway.actor import StoreGatewayActor

    specs = {spec.address.role: spec for spec in topology(settings(ingesters=1, share_processes=False))}
    kinds = (("ring", RingActor), ("ingester", IngesterActor), ("store-gateway", StoreGatewayActor))
    for role, kind in kinds:
        assert set(kind.concurrency_groups.values()) <= set(specs[role].options()["concurrency_groups"])
        assert all(hasattr(kind, method) for method in kind.concurrency_groups)


def test_store_gateways_and_compactors_share_processes_as_far_as_they_pair() -> None:
    specs = topology(settings(ingesters=1, store_gateways=2, compactors=1))[2:-1]
    assert [spec.address for spec in specs] == [Address("backend", "0"), Address("store-gateway", "1")]
    backend, alone = specs
    assert backend.roles == (Address("store-gateway", "0"), Address("compactor", "0"))
    assert {one.home for one in backend.hosts} == {backend.address}
    assert backend.options()["concurrency_groups"] == alone.options()["concurrency_groups"]
    assert alone.roles == (alone.address,)
    assert alone.home is None


def test_store_gateways_and_compactors_have_their_own_processes_where_that_is_wanted() -> None:
    specs = topology(settings(ingesters=1, store_gateways=2, compactors=1, share_processes=False))[2:-1]
    assert [spec.address.actor_name for spec in specs] == ["store-gateway/0", "store-gateway/1", "compactor/0"]
    assert not topology(settings(ingesters=1, store_gateways=0, compactors=0))[2:-1]


def test_the_classes_of_an_actor_fit_its_specification() -> None:
    from mimir_ray.deploy.actors import _kind

    (backend,) = topology(settings(ingesters=1))[2:-1]
    kind, arguments = _kind(backend, settings())
    assert set(kind.concurrency_groups.values()) <= set(backend.options()["concurrency_groups"])
    assert all(hasattr(kind, method) for method in kind.concurrency_groups)
    assert len(arguments) == len(backend.roles)
    assert pickle.loads(pickle.dumps(arguments[0][0])).home == backend.address
    assert pickle.loads(pickle.dumps(arguments[1][0])).address == backend.address.actor_name


def test_a_topology_is_the_same_every_time_and_travels() -> None:
    one = settings(ingesters=2)
    assert topology(one) == topology(one)
    assert topology(pickle.loads(pickle.dumps(one))) == topology(one)


# Settings.


def test_the_defaults_can_be_used() -> None:
    assert loaded() == Settings()
    assert Settings().ingester.ring.replication_factor == 0
    assert not Settings().tenancy.multitenancy_enabled


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-target=ingester"], "target"),
        (["-deploy.ingesters=1", "-ingester.ring.replication-factor=3"], "deploy.ingesters"),
        (["-deploy.ingesters=-1"], "deploy.ingesters"),
        (["-ingester.ring.replication-factor=3", "-ingester.ring.zone-awareness-enabled"], "deploy.zones"),
        (["-deploy.zones="], "zones"),
        (["-deploy.ingesters=3", "-ingester.ring.replication-factor=3", "-ingester.ring.zone-awareness-enabled"],
         "deploy.zones"),
        (["-deploy.ingesters=1", "-deploy.zones=a,b,c", "-ingester.ring.replication-factor=2",
          "-ingester.ring.zone-awareness-enabled"], "deploy.ingesters"),
        (["-server.http-listen-port=70000"], "http_listen_port"),
        (["-server.path-prefix=mimir/"], "http_path_prefix"),
        (["-auth.no-auth-tenant=a/b"], "no_auth_tenant"),
        (["-no.such-flag=1"], "no.such-flag"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_named(arguments: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem.replace(".", r"\.")):
        loaded(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-deploy.ingesters=2", "-ingester.ring.replication-factor=3"],
        ["-ingester.ring.replication-factor=3"],
        ["-deploy.zones=a,b", "-ingester.ring.replication-factor=3", "-ingester.ring.zone-awareness-enabled"],
        ["-deploy.ingesters=3", "-ingester.ring.replication-factor=3"],
        ["-deploy.ingesters=4", "-deploy.zones=a,b", "-ingester.ring.replication-factor=3",
         "-ingester.ring.zone-awareness-enabled"],
    ],
)  # fmt: skip
def test_settings_that_can_form_a_quorum_are_fine(arguments: list[str]) -> None:
    one = loaded(*arguments)
    assert topology(with_ingesters(one, how_many(one.deploy.ingesters, automatic(one, [], 1), ())))


def test_folders_stand_below_the_data_directory_unless_named(tmp_path: Path) -> None:
    one = loaded(f"-data-dir={tmp_path}")
    assert (one.root, one.tsdb_dir) == (tmp_path, tmp_path / "tsdb")
    assert loaded(f"-data-dir={tmp_path}", "-blocks-storage.tsdb.dir=/elsewhere").tsdb_dir == Path("/elsewhere")
    assert Settings().root.is_absolute()
