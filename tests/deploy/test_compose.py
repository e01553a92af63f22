from __future__ import annotations

from typing import Any, ClassVar

import pytest

from mimir_ray.cluster.transport.on_ray import actor_class
from mimir_ray.deploy.compose import CannotShare, composed, methods_of
from mimir_ray.roles.compactor.actor import CompactorActor
from mimir_ray.roles.store_gateway.actor import StoreGatewayActor
from mimir_ray.telemetry.federation import merge


class Shell:
    """What all of them have."""

    def __init__(self, name: str, failure: str = "") -> None:
        self.name, self.failure = name, failure
        self.stopped = False

    def status(self) -> dict[str, Any]:
        return {"state": "running", "progress": "", "failure": self.failure, "pid": 1}

    def metrics(self) -> bytes:
        return (
            "# HELP process_cpu_seconds_total Time.\n# TYPE process_cpu_seconds_total counter\n"
            "process_cpu_seconds_total 3.0\n# TYPE loads_total counter\n"
            f'loads_total{{of="x"}} {len(self.name)}\n'
        ).encode()

    def stop(self) -> None:
        self.stopped = True
        if self.failure:
            raise RuntimeError(self.failure)


class Reader(Shell):
    concurrency_groups: ClassVar[dict[str, str]] = {"read": "reads"}

    def read(self, *names: str) -> tuple[str, ...]:
        return (self.name, *names)

    def _private(self) -> None:
        raise AssertionError


class Writer(Shell):
    concurrency_groups: ClassVar[dict[str, str]] = {"write": "writes"}

    def write(self, text: str) -> str:
        return f"{self.name} {text}"


def make(reader: str = "", writer: str = "") -> Any:
    kind = composed({"reader/0": Reader, "writer/0": Writer})
    return kind(("R", reader), ("W", writer))


def test_every_method_goes_to_the_shell_that_has_it() -> None:
    both = make()
    assert both.read("a", "b") == ("R", "a", "b")
    assert both.write("text") == "W text"
    assert type(both).concurrency_groups == {"read": "reads", "write": "writes"}
    assert not hasattr(both, "_private")


def test_two_methods_or_groups_of_one_name_are_refused() -> None:
    with pytest.raises(CannotShare, match="method read"):
        composed({"a/0": Reader, "b/0": Reader})

    class Other(Shell):
        concurrency_groups: ClassVar[dict[str, str]] = {"look": "reads"}

        def look(self) -> None: ...

    with pytest.raises(CannotShare, match="thread group reads"):
        composed({"a/0": Reader, "b/0": Other})


def test_the_status_is_of_whoever_is_worst_off_and_of_each() -> None:
    about = make(writer="broken").status()
    assert (about["state"], about["failure"]) == ("running", "writer/0: broken")
    assert about["roles"]["reader/0"]["failure"] == ""
    both = make()
    both.shells["reader/0"].status = lambda: {"state": "starting", "progress": "reads", "failure": "", "pid": 1}
    assert (both.status()["state"], both.status()["progress"]) == ("starting", "reader/0: reads")


def test_metrics_are_of_each_role_and_those_of_the_process_are_told_once() -> None:
    text = merge({"backend-0": make().metrics()}).decode()
    assert text.count("process_cpu_seconds_total{") == 1
    assert 'process_cpu_seconds_total{pod="backend-0"} 3.0' in text
    assert 'loads_total{of="x",pod="reader-0"} 1' in text
    assert 'loads_total{of="x",pod="writer-0"} 1' in text
    assert text.count("# TYPE loads_total") == 1


def test_all_are_stopped_even_where_one_fails() -> None:
    both = make(reader="cannot stop")
    with pytest.raises(RuntimeError, match="cannot stop"):
        both.stop()
    assert all(shell.stopped for shell in both.shells.values())


def test_what_shares_a_process_by_default_can() -> None:
    kind = composed({"store-gateway/0": StoreGatewayActor, "compactor/0": CompactorActor})
    names = {*methods_of(StoreGatewayActor), *methods_of(CompactorActor)}
    assert {"select_blocks", "finish_block_upload"} <= names
    assert all(callable(getattr(kind, name)) for name in names)
    assert actor_class(kind, num_cpus=0, concurrency_groups={"blocks": 2})
