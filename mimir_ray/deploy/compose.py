"""One actor class out of several shells: roles that share a process.

An idle actor costs 50 to 110 MB, so on a small machine roles that are mostly idle live together. The composed class has
the public methods of all of them, in the thread groups that each wants; `status`, `metrics` and `stop` are of all.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from mimir_ray.telemetry.federation import merge

SHARED = frozenset({"status", "metrics", "stop"})
_OF_THE_PROCESS = re.compile(r"(?:# (?:HELP|TYPE) )?(?:process_|python_|cortex_build_info|mimir_build_info)")


class CannotShare(TypeError):
    """Two roles have a method or a thread group of the same name."""


def methods_of(kind: type) -> list[str]:
    """The names of what callers of a shell may call, `SHARED` left out."""
    return [
        name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name)) and name not in SHARED
    ]


def composed(shells: Mapping[str, type]) -> type:
    """A class that is made with one tuple of constructor arguments a shell, in their order.

    `shells`: instance (`store-gateway/0`) → class. Raises `CannotShare`.
    """
    body: dict[str, Any] = {}
    groups: dict[str, str] = {}
    for owner, kind in shells.items():
        for name in methods_of(kind):
            if name in body:
                raise CannotShare(f"{owner} is not the only one with a method {name}")
            body[name] = _forward(owner, name)
        taken = set(groups.values())
        own: Mapping[str, str] = getattr(kind, "concurrency_groups", {})
        if both := taken & set(own.values()):
            raise CannotShare(f"{owner} is not the only one with a thread group {min(both)}")
        groups.update(own)

    def make(self: Any, *arguments: tuple[Any, ...]) -> None:
        Shared.__init__(
            self, {owner: kind(*each) for (owner, kind), each in zip(shells.items(), arguments, strict=True)}
        )

    body |= {"__init__": make, "concurrency_groups": groups, "__module__": __name__}
    body["__doc__"] = f"Runs {', '.join(shells)}."
    return type("BackendActor", (Shared,), body)


def _forward(owner: str, name: str) -> Callable[..., Any]:
    def forward(self: Any, *arguments: Any) -> Any:
        return getattr(self.shells[owner], name)(*arguments)

    forward.__name__ = forward.__qualname__ = name
    return forward


class Shared:
    """What composed classes have of their own."""

    def __init__(self, shells: Mapping[str, Any]) -> None:
        self.shells = dict(shells)

    def status(self) -> dict[str, Any]:
        """`roles`: the status of each; else as of one shell, of whoever is worst off."""
        roles = {owner: shell.status() for owner, shell in self.shells.items()}
        failures = [f"{owner}: {about['failure']}" for owner, about in roles.items() if about["failure"]]
        progress = [f"{owner}: {about['progress']}" for owner, about in roles.items() if about["progress"]]
        states = {about["state"] for about in roles.values()}
        return {
            "state": states.pop() if len(states) == 1 else "starting",
            "progress": "; ".join(progress),
            "failure": "; ".join(failures),
            "pid": os.getpid(),
            "roles": roles,
        }

    def metrics(self) -> bytes:
        """The metrics of all, each labelled as its own pod; those of the process once, without a label."""
        texts: dict[str, str] = {}
        of_process: list[str] = []
        for owner, shell in self.shells.items():
            lines = shell.metrics().decode().split("\n")
            texts[owner.replace("/", "-")] = "\n".join(line for line in lines if not _OF_THE_PROCESS.match(line))
            of_process = of_process or [line for line in lines if _OF_THE_PROCESS.match(line)]
        return "\n".join([*of_process, ""]).encode() + merge(texts)

    def stop(self) -> None:
        """Stops all side by side; raises the first failure when all have stopped."""
        failures: list[Exception] = []

        def one(shell: Any) -> None:
            try:
                shell.stop()
            except Exception as error:  # noqa: BLE001  (raised below)
                failures.append(error)

        threads = [threading.Thread(target=one, args=(shell,)) for shell in self.shells.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
