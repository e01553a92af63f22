"""`mimir-ray serve`: starts a deployment in the foreground, and stops what it started."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import ray

from mimir_ray.cluster.transport.base import NAMESPACE
from mimir_ray.deploy import actors
from mimir_ray.deploy.environment import MALLOC
from mimir_ray.deploy.local_ray import LocalRay
from mimir_ray.deploy.settings import RUN_FILE, Settings
from mimir_ray.deploy.topology import ActorSpec, topology
from mimir_ray.errors import MimirRayError, Unavailable
from mimir_ray.kernel import warm_up

READY_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 12.0
CREATE_TIMEOUT_S = 60.0


class CannotStart(Unavailable):
    """The deployment did not come up; says why and what to do."""


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


def serve(settings: Settings, ray_address: str = "", out: TextIO = sys.stdout) -> int:
    """Runs until SIGINT or SIGTERM. Returns the exit status."""
    progress = Progress(out)
    stop = threading.Event()

    def told_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, told_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ExitStack() as stack:
            settings.root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_data_lock(settings.root))
            _compile_kernels(progress)
            logs = _enter_ray(settings, ray_address, stack, progress)
            handles = _start_actors(settings, bool(ray_address), stack, progress)
            url = _wait_until_ready(settings, handles, stop, progress)
            _write_run_file(settings, url, logs, stack)
            if not stop.is_set():
                _greet(settings, url, logs, progress)
            stop.wait()
            progress.say("Stopping: requests under way end, recent samples are written down.")
            began = time.monotonic()
        progress.say(f"Stopped after {time.monotonic() - began:.1f} s.")
        return 0
    except MimirRayError as error:
        progress.say(f"mimir-ray: {error}")
        return 1
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _data_lock(root: Path) -> Iterator[None]:
    """Two deployments on one data directory would write the same files."""
    with (root / "lock").open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CannotStart(
                f"{root} is in use by another mimir-ray; stop that one, or choose another -data-dir"
            ) from None
        yield


def _compile_kernels(progress: Progress) -> None:
    began = time.monotonic()

    def tell(done: int, total: int, name: str) -> None:
        if time.monotonic() - began > 1.0:
            progress.step(f"kernels: {done} of {total}, {name.removeprefix('mimir_ray.')}")

    count = warm_up(tell)
    progress.say(f"{count} kernels ready after {time.monotonic() - began:.1f} s.")


def _enter_ray(settings: Settings, address: str, stack: ExitStack, progress: Progress) -> str:
    """Starts a local Ray, or joins a running one; returns where its logs are."""
    if address:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        stack.callback(ray.shutdown)
        progress.say(f"Joined the Ray at {address}.")
        return ""
    local = stack.enter_context(LocalRay(int(settings.deploy.object_store_memory), settings.deploy.ray_dashboard))
    progress.say(f"Ray is up at {local.address}.")
    return str(local.logs)


def _start_actors(
    settings: Settings, attached: bool, stack: ExitStack, progress: Progress
) -> list[tuple[ActorSpec, Any]]:
    runtime_env = {"env_vars": MALLOC} if attached else None
    handles: list[tuple[ActorSpec, Any]] = []
    stack.callback(_stop_actors, handles, progress)
    for spec in topology(settings):
        progress.step(f"starting {spec.address.actor_name}")
        handle = actors.create(spec, settings, runtime_env)
        handles.append((spec, handle))
        if spec.address.role in ("ring", "gateway"):  # others depend on the ring; the gateway may find its port taken
            try:
                ray.get(handle.__ray_ready__.remote(), timeout=CREATE_TIMEOUT_S)
            except ray.exceptions.RayActorError as error:
                raise CannotStart(_reason(spec, error)) from None
            except ray.exceptions.GetTimeoutError:
                raise CannotStart(f"{spec.address.actor_name} did not start within {CREATE_TIMEOUT_S:g} s") from None
    progress.say(f"{len(handles)} actors started: {', '.join(spec.address.actor_name for spec, _ in handles)}.")
    return handles


def _reason(spec: ActorSpec, error: Exception) -> str:
    """Ray puts the whole remote traceback into the text; its last line says what went wrong."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{spec.address.actor_name} cannot start: {lines[-1].strip() if lines else error!r}"


def _stop_actors(handles: list[tuple[ActorSpec, Any]], progress: Progress) -> None:
    """Gateways first, so that nothing comes in; then ingesters, all at once; the ring last."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for role in ("gateway", "ingester"):
        group = [(spec, handle) for spec, handle in handles if spec.address.role == role]
        threads = []
        for spec, handle in group:
            progress.step(f"stopping {spec.address.actor_name}")
            left = max(1.0, deadline - time.monotonic())
            threads.append(threading.Thread(target=actors.stop, args=(handle, left)))
            threads[-1].start()
        for thread in threads:
            thread.join()
    for spec, handle in handles:
        if spec.address.role == "ring":
            ray.kill(handle, no_restart=True)


def _wait_until_ready(
    settings: Settings, handles: list[tuple[ActorSpec, Any]], stop: threading.Event, progress: Progress
) -> str:
    gateway = next(handle for spec, handle in handles if spec.address.role == "gateway")
    host, port = ray.get(gateway.address.remote(), timeout=CREATE_TIMEOUT_S)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    url = f"http://{shown}:{port}{settings.server.http_path_prefix}"
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not stop.is_set():
        status, body = _get(f"{url}/ready")
        if status == 200:
            break
        reasons = body.splitlines()[1:] or [body]
        if any(": Failed" in reason for reason in reasons) and time.monotonic() > deadline - READY_TIMEOUT_S + 30:
            raise CannotStart("; ".join(reasons))
        if time.monotonic() > deadline:
            raise CannotStart(f"not ready after {READY_TIMEOUT_S:g} s: {'; '.join(reasons)}")
        progress.step("; ".join(reasons))
        stop.wait(0.2)
    return url


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)


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
