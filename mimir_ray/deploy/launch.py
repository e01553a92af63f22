"""`mimir-ray serve`: starts a deployment in the foreground, and stops what it started.

Ray is imported late: what can be wrong without it is said at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from mimir_ray.config.server import ServerConfig, reachable
from mimir_ray.deploy import fork_client
from mimir_ray.deploy.preparing import Preparing
from mimir_ray.deploy.settings import FOLDER_PREFIX, RUN_FILE, Settings
from mimir_ray.errors import MimirRayError, Unavailable

END_TIMEOUT_S = 5.0
STOPPER_TIMEOUT_S = 20.0
"""Without a word of who stops the actors; longer than any of them is waited for."""
WATCH_PERIOD_S = 1.0
PREDECESSOR_TIMEOUT_S = 20.0


class CannotStart(Unavailable):
    """The deployment did not come up; says why and what to do."""


class _StopAsked(Exception):
    """SIGINT or SIGTERM came while the actors were being created."""


class Progress:
    """Lines of progress; on a terminal, steps within one phase share a line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._open = False
        self._said = ""

    def step(self, text: str) -> None:
        """Replaces the last step of this phase."""
        if text == self._said:
            return
        self._said = text
        if self._terminal:
            self._out.write(f"\r\x1b[2K  {text}")
            self._open = True
        else:
            self._out.write(f"  {text}\n")
        self._out.flush()

    def say(self, text: str = "") -> None:
        if self._open:
            self._out.write("\r\x1b[2K")
            self._open = False
        self._said = ""
        self._out.write(f"{text}\n")
        self._out.flush()


def serve(settings: Settings, preparing: Preparing, ray_address: str = "", out: TextIO = sys.stdout) -> int:
    """Runs until SIGINT or SIGTERM. Returns the exit status."""
    progress = Progress(out)
    stop = threading.Event()

    def told_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, told_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ExitStack() as stack:
            _make_folder(settings.root)
            killed = stack.enter_context(_data_lock(settings.root))
            _remove_leftovers(settings.root)
            _check_port(settings.server, PREDECESSOR_TIMEOUT_S if killed else 0.0)
            told, logs, ended = _enter_ray(settings, ray_address, stack, progress)
            signal.signal(signal.SIGTERM, told_to_stop)  # Ray put a handler of its own there: exit at once
            stack.callback(_stop_actors, told, ended, progress)
            told["settings"] = pickle.dumps(settings).hex()
            host, port = _create_actors(preparing, told, stop, progress)
            url = f"{settings.server.scheme}://{reachable(host)}:{port}{settings.server.http_path_prefix}"
            _write_run_file(settings, url, logs, stack)
            if not stop.is_set():
                _greet(settings, url, logs, progress)
            while not stop.wait(WATCH_PERIOD_S):
                if one := ended():
                    raise CannotStart(f"{one} of Ray has ended; its logs are in {logs}")
            progress.say("Stopping: requests under way end, recent samples are written down.")
            began = time.monotonic()
        progress.say(f"Stopped after {time.monotonic() - began:.1f} s.")
        return 0
    except _StopAsked:
        progress.say("Stopped before it was ready.")
        return 0
    except MimirRayError as error:
        progress.say(f"mimir-ray: {error}")
        return 1
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _data_lock(root: Path) -> Iterator[bool]:
    """Two deployments on one data directory would write the same files. Yields whether the last one was killed.

    The file holds the process id of whoever has the lock, and nothing after an orderly end.
    """
    with (root / "lock").open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CannotStart(
                f"{root} is in use by another mimir-ray; stop that one, or choose another -data-dir"
            ) from None
        held.seek(0)
        killed = bool(held.read())
        held.truncate(0)
        held.write(f"{os.getpid()}\n")
        held.flush()
        try:
            yield killed
        finally:
            held.truncate(0)


def _enter_ray(
    settings: Settings, address: str, stack: ExitStack, progress: Progress
) -> tuple[dict[str, Any], str, Callable[[], str]]:
    """Starts a local Ray, or joins a running one; returns what prepare.py is told of it, where its logs are, and what
    says which of its processes has ended ("": none)."""
    from mimir_ray.deploy.local_ray import LocalRay, join  # noqa: PLC0415  (imports Ray)

    if address:
        import ray  # noqa: PLC0415

        join(address)
        stack.callback(ray.shutdown)
        progress.say(f"Joined the Ray at {address}.")
        return {"address": address}, "", lambda: ""
    deploy = settings.deploy
    local = LocalRay(int(deploy.object_store_memory), deploy.ray_dashboard, forks=True, connect=False)
    stack.enter_context(local)
    progress.say(f"Ray is up at {local.address}.")
    told = {
        "address": local.address,
        "environment": {**_of_ray(), **local.first_job()},
        "socket": str(local.fork_socket),
        "log": str(local.logs / "fork-server.log"),
    }
    return told, str(local.logs), local.ended


def _of_ray() -> dict[str, str]:
    """What this process' environment tells Ray."""
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}


def _make_folder(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"cannot make the data directory {root}: {os.strerror(error.errno or 0)}") from None


def _remove_leftovers(root: Path) -> None:
    """The temporary folder of a Ray whose `serve` was killed; we hold the lock, so nobody uses it."""
    run = root / RUN_FILE
    try:
        logs = Path(json.loads(run.read_text())["logs"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    for folder in logs.parents:
        if folder.name.startswith(FOLDER_PREFIX) and folder.parent == Path(tempfile.gettempdir()):
            shutil.rmtree(folder, ignore_errors=True)
    run.unlink(missing_ok=True)


def _check_port(server: ServerConfig, patience_s: float = 0.0) -> None:
    """Says at once what the gateway would find out only after everything else has started.

    A killed predecessor's gateway ends some seconds after it: `patience_s` is how long to wait for that.
    """
    where = (server.http_listen_address, server.http_listen_port)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            socket.create_server(where, family=socket.AF_INET6 if ":" in where[0] else socket.AF_INET).close()
            return
        except OSError as error:
            if time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            reason = os.strerror(error.errno or 0)
            raise CannotStart(
                f"cannot listen on {where[0]}:{where[1]}: {reason}; choose another -server.http-listen-port"
            ) from None


def _create_actors(
    preparing: Preparing, told: dict[str, Any], stop: threading.Event, progress: Progress
) -> tuple[str, int]:
    """Lets that process go on now that Ray is up, and shows how it goes; ends it when told to stop meanwhile.

    Returns where the gateway listens, once all are ready. What is asked of an actor is asked there: a process that
    looks an actor up imports its class, 60 MB with all that belongs to it.
    """
    created = threading.Event()

    def end() -> None:
        stop.wait()
        if not created.is_set():
            preparing.end()

    threading.Thread(target=end, name="stop", daemon=True).start()
    if not preparing.write(json.dumps(told)):
        raise _no_actors(preparing)
    assert preparing.process.stdout is not None
    listening: tuple[str, int] | None = None
    for line in preparing.process.stdout:
        if not line.startswith("{"):
            continue
        said = json.loads(line)
        if "error" in said:
            raise CannotStart(said["error"])
        if "step" in said:
            progress.step(said["step"])
        elif "ready" in said:
            listening = said["ready"]["host"], said["ready"]["port"]
        else:
            progress.say(said["say"])
    created.set()
    if listening is None:
        raise _StopAsked if stop.is_set() else _no_actors(preparing)
    return listening


def _no_actors(preparing: Preparing) -> CannotStart:
    return CannotStart(f"the actors were not created: {preparing.last_words()}")


def _stop_actors(told: dict[str, Any], ended: Callable[[], str], progress: Progress) -> None:
    """In a process that has everything loaded, where there is one. Actors end by themselves where Ray has."""
    if ended() or ("socket" in told and _stopped_by_a_fork(told, progress)):
        return
    import ray  # noqa: PLC0415  (as above)

    from mimir_ray.deploy.local_ray import NoRay, join  # noqa: PLC0415
    from mimir_ray.deploy.stop import stop_actors  # noqa: PLC0415

    if not ray.is_initialized():
        try:
            join(told["address"])
        except NoRay:  # whoever stops us has told Ray too: a signal to a whole group of processes
            progress.say("Ray ended before the actors did; what was acknowledged is in the write-ahead logs.")
            return
    stop_actors(progress.step)


def _stopped_by_a_fork(told: dict[str, Any], progress: Progress) -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request = {
            "work": "stop",
            "arguments": [told["address"]],
            "environment": {**os.environ, **told["environment"]},
            "folder": os.getcwd(),
        }
        if not fork_client.ask(told["socket"], request, (theirs.fileno(), theirs.fileno(), theirs.fileno())):
            return False
        theirs.close()
        ours.settimeout(STOPPER_TIMEOUT_S)
        try:
            for line in ours.makefile():
                said = json.loads(line) if line.startswith("{") else {}
                if "stopped" in said:
                    _wait_for_the_end(said["stopped"])
                    return True
                if "step" in said:
                    progress.step(said["step"])
        except (OSError, ValueError):
            pass  # it hangs, or has said something else in its end
    return False


def _wait_for_the_end(pid: int) -> None:
    """Of somebody else's child, so that nothing of ours is there any more when we are not."""
    with suppress(OSError):  # it has ended already, or this kernel has no such descriptors
        process = os.pidfd_open(pid)
        try:
            select.select([process], [], [], END_TIMEOUT_S)
        finally:
            os.close(process)


def _write_run_file(settings: Settings, url: str, logs: str, stack: ExitStack) -> None:
    """Tells `mimir-ray status` where this deployment is."""
    path = settings.root / RUN_FILE
    path.write_text(json.dumps({"pid": os.getpid(), "url": url, "logs": logs}) + "\n")
    stack.callback(path.unlink, missing_ok=True)


def _greet(settings: Settings, url: str, logs: str, progress: Progress) -> None:
    prometheus = f"{url}{settings.api.prometheus_http_prefix}"
    tenant = settings.tenancy.multitenancy_enabled
    header = " -H 'X-Scope-OrgID: demo'" if tenant else ""
    lines = [
        "",
        "mimir-ray is ready.",
        "",
        f"  Look at it       {url}/",
        f"  Push to it       {url}/api/v1/push        (Prometheus: remote_write: [{{url: {url}/api/v1/push}}])",
        f"  Query it         {prometheus}             (the URL of a Grafana data source of type Prometheus)",
        f"  Try              curl -s{header} '{prometheus}/api/v1/query?query=up'",
        "",
        "  Grafana data source (provisioning/datasources/mimir-ray.yaml):",
        "    apiVersion: 1",
        "    datasources:",
        f"      - {{name: mimir-ray, type: prometheus, access: proxy, url: {prometheus},",
        "         jsonData: {httpMethod: POST, prometheusType: Mimir"
        + (", httpHeaderName1: X-Scope-OrgID}, secureJsonData: {httpHeaderValue1: demo}}" if tenant else "}}"),
        "",
        f"  Data in {settings.root}" + (f", logs in {logs}" if logs else ""),
        "  Ctrl-C stops everything.",
    ]
    for line in lines:
        progress.say(line)
