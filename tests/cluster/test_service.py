"""Services: order, states, failures."""

from __future__ import annotations

import pytest

from mimir_ray.cluster.service import Callables, ServiceFailed, ServiceManager, ServiceState, may_follow


class Log:
    """Services that write down what they do."""

    def __init__(self, fail_start: str = "", fail_stop: str = "") -> None:
        self.done: list[str] = []
        self.fail_start, self.fail_stop = fail_start, fail_stop

    def service(self, name: str) -> Callables:
        return Callables(
            lambda: self._do("start", name, self.fail_start), lambda: self._do("stop", name, self.fail_stop)
        )

    def _do(self, what: str, name: str, failing: str) -> None:
        self.done.append(f"{what} {name}")
        if name == failing:
            raise RuntimeError(f"{name} cannot {what}")


def three(log: Log) -> ServiceManager:
    manager = ServiceManager()
    manager.add("api", log.service("api"), needs=["store", "ring"])
    manager.add("store", log.service("store"), needs=["ring"])
    manager.add("ring", log.service("ring"))
    return manager


def test_services_start_after_what_they_need_and_stop_before_it() -> None:
    log = Log()
    manager = three(log)
    manager.start()
    assert set(manager.states().values()) == {ServiceState.RUNNING}
    assert manager.stop() == []
    assert log.done == ["start ring", "start store", "start api", "stop api", "stop store", "stop ring"]
    assert set(manager.states().values()) == {ServiceState.TERMINATED}


def test_a_failed_start_stops_what_runs_and_raises() -> None:
    log = Log(fail_start="store")
    manager = three(log)
    with pytest.raises(ServiceFailed, match="service store failed: store cannot start"):
        manager.start()
    assert log.done == ["start ring", "start store", "stop ring"]
    assert manager.states() == {
        "api": ServiceState.TERMINATED,
        "store": ServiceState.FAILED,
        "ring": ServiceState.TERMINATED,
    }


def test_a_failed_stop_does_not_keep_the_others_running() -> None:
    log = Log(fail_stop="store")
    manager = three(log)
    manager.start()
    [failure] = manager.stop()
    assert failure.service == "store"
    assert log.done[-1] == "stop ring"


def test_stopping_twice_stops_once() -> None:
    log = Log()
    manager = three(log)
    manager.start()
    manager.stop()
    manager.stop()
    assert log.done.count("stop api") == 1


def test_ready_says_what_it_waits_for() -> None:
    manager = three(Log())
    assert manager.not_ready() == ["api: New", "store: New", "ring: New"]
    manager.start()
    assert manager.not_ready() == []
    manager.hold_ready("store", "replaying the WAL, 40 %")
    assert manager.not_ready() == ["store: replaying the WAL, 40 %"]
    manager.fail("ring", "disk gone")
    assert manager.not_ready() == ["store: replaying the WAL, 40 %", "ring: Failed: disk gone"]


def test_a_failure_after_the_end_changes_nothing() -> None:
    manager = three(Log())
    manager.start()
    manager.stop()
    manager.fail("ring", "late")
    assert manager.states()["ring"] is ServiceState.TERMINATED


def test_changes_of_state_are_told() -> None:
    seen: list[str] = []
    manager = ServiceManager(lambda name, state: seen.append(f"{name} {state}"))
    manager.add("ring", Log().service("ring"))
    manager.start()
    manager.stop()
    assert seen == ["ring Starting", "ring Running", "ring Stopping", "ring Terminated"]


def test_cycles_and_unknown_needs_are_refused() -> None:
    manager = ServiceManager()
    manager.add("a", Log().service("a"), needs=["b"])
    with pytest.raises(ValueError, match="unknown"):
        manager.start()
    manager.add("b", Log().service("b"), needs=["a"])
    with pytest.raises(ValueError, match="need each other"):
        manager.start()


def test_a_name_is_taken_once() -> None:
    manager = three(Log())
    with pytest.raises(ValueError, match="there already"):
        manager.add("api", Log().service("api"))


def test_nothing_follows_an_end() -> None:
    for state in ServiceState:
        assert not may_follow(ServiceState.TERMINATED, state)
        assert not may_follow(ServiceState.FAILED, state)
