"""The example for `ray up` is one that Ray takes, and says of every machine what placement asks for."""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace
from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from mimir_ray.config.loader import load
from mimir_ray.deploy.ingesters import automatic, with_ingesters
from mimir_ray.deploy.placement import NODE_LABEL, ZONE_LABEL, labelled_nodes, located, place
from mimir_ray.deploy.settings import Settings
from mimir_ray.deploy.topology import topology

ROOT = Path(__file__).parents[2]
CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_takes_it() -> None:
    validate_config(prepare_config(CLUSTER))


def test_every_machine_of_a_zone_says_where_it_is() -> None:
    machines = {name: kind for name, kind in CLUSTER["available_node_types"].items() if "labels" in kind}
    assert {kind["labels"][ZONE_LABEL] for kind in machines.values()} == set(machines)
    start = CLUSTER["worker_start_ray_commands"][-1]
    for zone, kind in machines.items():
        assert f"echo {zone} > ~/zone" in kind["worker_setup_commands"]
        assert kind["labels"][NODE_LABEL] == f"machine-{zone}"
    assert f'--labels="{ZONE_LABEL}=$(cat ~/zone),{NODE_LABEL}=machine-$(cat ~/zone)"' in start
    nodes = [{"Alive": True, "Labels": kind["labels"], "NodeManagerAddress": "10.0.0.1"} for kind in machines.values()]
    assert len(labelled_nodes(nodes)) == 3
    default = Settings()
    zoned = replace(default, deploy=replace(default.deploy, zones=tuple(machines)))
    count = automatic(zoned, labelled_nodes(nodes), cores=24)
    assert count == 3
    assert place(topology(with_ingesters(zoned, count)), labelled_nodes(nodes), {})


def test_with_the_documented_configuration_there_are_three_copies() -> None:
    written = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    assert written is not None
    text = textwrap.dedent(written[1])
    settings = load(Settings(), ["-config.file=mimir-ray.yaml"], read=lambda _: text).settings
    assert settings.ingester.ring.replication_factor == 0
    labels = [kind["labels"] for kind in CLUSTER["available_node_types"].values() if "labels" in kind]
    nodes = labelled_nodes([{"Alive": True, "Labels": one, "NodeManagerAddress": "10.0.0.1"} for one in labels])
    specs = topology(with_ingesters(settings, automatic(settings, nodes, cores=24)))
    assert located(specs, place(specs, nodes, {}), settings.ingester.ring.zone_awareness_enabled)[0].copies == 3


def test_nothing_of_it_listens_outside() -> None:
    assert CLUSTER["provider"]["use_internal_ips"] is True
    head = CLUSTER["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head
    for start in (head, CLUSTER["worker_start_ray_commands"][-1]):
        assert "RAY_AUTH_MODE=token" in start
