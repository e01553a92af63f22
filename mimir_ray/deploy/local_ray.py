"""A Ray of our own on this machine: on the loopback interface, with a private token and directory.

`ray.init()` would replace 127.0.0.1 by an outside address, listen on it, start a log monitor and an
autoscaler nobody needs here, and might join somebody else's cluster. So the head node is started through the
same classes that `ray start` uses; the pinned Ray version is part of that bargain. All its processes get
SIGKILL from the kernel when this one dies.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
import ray._private.services as ray_services
import ray._private.utils as ray_utils
import ray._raylet
from ray._private.node import Node
from ray._private.parameter import RayParams

from mimir_ray.cluster.transport.base import NAMESPACE
from mimir_ray.deploy.placement import OWN_LABEL
from mimir_ray.deploy.settings import FOLDER_PREFIX
from mimir_ray.deploy.worker import spare_imports
from mimir_ray.errors import Unavailable

LOOPBACK = "127.0.0.1"
CONNECT_TIMEOUT_S = 2.0
START_TIMEOUT_S = 180.0
"""Ray's own 30 s are not enough on a machine that is busy."""


class NoRay(Unavailable):
    """There is no Ray to join."""


def join(address: str) -> None:
    """Connects this process to the Ray at an address (`host:port`, or what else `ray.init` takes)."""
    arguments: dict[str, Any] = {}
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        if not port.isdigit():
            raise NoRay(f"not an address of a Ray: {address!r}; expected host:port, or auto")
        if not _listens(host, int(port)):  # `ray.init` itself would try for ever
            raise NoRay(f"no Ray answers at {address}")
    if host in (LOOPBACK, "localhost") and not _listens(ray_services.get_node_ip_address(), int(port)):
        # Ray would look for it at the machine's outside address, and not find one that `LocalRay` started.
        ray_services.resolve_ip_for_localhost = lambda name: name
        arguments = {"_node_ip_address": LOOPBACK}
    spare_imports()
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False, **arguments)
    except (ConnectionError, ValueError, ray.exceptions.RayError) as error:
        raise NoRay(f"cannot join the Ray at {address}: {str(error).splitlines()[0]}") from error


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


_raylet: Any = ray._raylet  # compiled, without types
_AGENT_PORTS = (
    _raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME,
    _raylet.METRICS_AGENT_PORT_NAME,
    _raylet.METRICS_EXPORT_PORT_NAME,
)


class _Head(Node):
    """A head node without the dashboard's processes where nobody wants a dashboard; its workers may be forked."""

    def __init__(self, parameters: RayParams, fork_socket: Path | None) -> None:
        self._fork_socket = fork_socket
        super().__init__(parameters, head=True, shutdown_at_exit=True, spawn_reaper=True)

    def _register_shutdown_hooks(self) -> None:
        """None: leaving `LocalRay` ends it, and SIGTERM, at which Ray would wait half a minute, is for the caller."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        if include_dashboard:
            super().start_api_server(include_dashboard=include_dashboard, raise_on_failure=raise_on_failure)

    def start_raylet(self, *args: Any, **kwargs: Any) -> None:
        agents: dict[str, tuple[str, ...]] = {}
        if not self._ray_params.include_dashboard:
            agents["dashboard_agent"] = _AGENT_PORTS
        if self._fork_socket is not None:
            agents["runtime_env_agent"] = (_raylet.RUNTIME_ENV_AGENT_PORT_NAME,)
        for name in [port for ports in agents.values() for port in ports]:
            # as an agent itself says that it offers nothing; the raylet waits for these files
            _raylet.persist_port(self._session_dir, self._node_id, name, -1)
        start = ray_services.start_ray_process

        def started(command: list[str], *rest: Any, **more: Any) -> Any:
            return start(_forking(_without(command, agents), self._fork_socket), *rest, **more)

        missing = ray_utils.get_dashboard_dependency_error
        ray_services.start_ray_process = started
        if "dashboard_agent" in agents:
            # Ray imports all that the agent would need, 20 MB, to see whether it could.
            ray_utils.get_dashboard_dependency_error = lambda: None
        try:
            super().start_raylet(*args, **kwargs)
        finally:
            ray_services.start_ray_process = start
            ray_utils.get_dashboard_dependency_error = missing


def _without(command: list[str], agents: Iterable[str]) -> list[str]:
    """Gives a raylet agents that only wait for its end: the dashboard's takes 75 MB, that of runtime environments 50,
    and nobody asks them anything."""
    idle = shutil.which("cat") or "cat"
    starts = {f"--{agent}_command=": f"--{agent}_command={idle}" for agent in agents}
    return [starts.get(one[: one.find("=") + 1], one) for one in command]


def _forking(command: list[str], fork_socket: Path | None) -> list[str]:
    """Has a raylet ask the fork server for its workers."""
    if fork_socket is None:
        return command
    client = [sys.executable, "-I", "-S", str(Path(__file__).with_name("fork_client.py")), str(fork_socket)]
    worker, ours = "--python_worker_command=", f"--python_worker_command={shlex.join(client)} "
    return [one.replace(worker, ours, 1) if one.startswith(worker) else one for one in command]


_get_node = ray_services.get_node


def _wait_for_node(gcs_address: str, node_id: str) -> dict[str, Any]:
    """What Ray's own start asks for and gives up on too early: a node's entry in the GCS."""
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return _get_node(gcs_address, node_id)
        except RuntimeError as error:
            if time.monotonic() > end:
                raise NoRay(
                    f"Ray did not start within {START_TIMEOUT_S:.0f} s: is the machine too busy, or out of memory? "
                    f"Its logs are in {tempfile.gettempdir()}/{FOLDER_PREFIX}*/session_latest/logs ({error})"
                ) from error


class LocalRay:
    """Starts on entering, stops everything it started on leaving. The environment must be prepared (environment.py)."""

    def __init__(
        self,
        object_store_memory: int,
        dashboard: bool = False,
        cpus: int | None = None,
        forks: bool = False,
        connect: bool = True,
    ) -> None:
        """`cpus`: None counts the machine's. `forks`: whether a fork server makes its workers, where it can be reached;
        they have no runtime environments then. `connect`: whether this process joins it."""
        self._forks = forks
        self._connect = connect
        self._object_store_memory = object_store_memory
        self._dashboard = dashboard
        self._cpus = (os.cpu_count() or 1) if cpus is None else cpus
        self._node: Node | None = None
        self._more: list[Node] = []
        self._folder: Path | None = None

    @property
    def logs(self) -> Path:
        assert self._node is not None
        return Path(self._node.get_logs_dir_path())

    @property
    def address(self) -> str:
        assert self._node is not None
        return str(self._node.gcs_address)

    def first_job(self) -> dict[str, str]:
        """What workers find in their environment that belong to the job of whoever joins first."""
        assert self._node is not None
        raylet = self._node.all_processes["raylet"][0].process.pid
        return {"RAY_RAYLET_PID": str(raylet), "RAY_JOB_ID": ray.JobID.from_int(1).hex()}

    def ended(self) -> str:
        """Which of its processes has ended that should run: "raylet", "gcs_server"; "" while all is well."""
        assert self._node is not None
        dead: list[tuple[str, Any]] = self._node.dead_processes()
        return dead[0][0] if dead else ""

    @property
    def fork_socket(self) -> Path:
        """Where the fork server is to listen."""
        assert self._folder is not None
        return self._folder / "fork.sock"

    def __enter__(self) -> LocalRay:
        # Sockets live in it, whose paths must stay below 108 bytes: so it is not below the data directory.
        self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        ray_services.resolve_ip_for_localhost = lambda host: host
        ray_services.get_node = _wait_for_node
        parameters: dict[str, Any] = {
            "node_ip_address": LOOPBACK,
            "num_cpus": self._cpus,
            "object_store_memory": self._object_store_memory,
            "temp_dir": str(self._folder),
            "include_dashboard": self._dashboard,
            "dashboard_host": LOOPBACK,
            "include_log_monitor": False,
            "no_monitor": True,
            "dashboard_agent_listen_port": 0,
            "gcs_server_port": 0,
            "worker_path": str(Path(__file__).with_name("worker.py")),
            "labels": {OWN_LABEL: "true"} if self._forks else {},
        }
        popen = ray_services.ConsolePopen
        # What is sent to our whole process group (by `timeout`, by a shell) is for us alone: Ray ends after its actors.
        ray_services.ConsolePopen = functools.partial(popen, start_new_session=True)
        try:
            self._node = _Head(RayParams(**parameters), self.fork_socket if self._forks else None)
        finally:
            ray_services.ConsolePopen = popen
        if self._connect:
            join(self._node.gcs_address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if ray.is_initialized():
            ray.shutdown()
        for node in self._more:
            node.kill_all_processes(check_alive=False, allow_graceful=False)
        if self._node is not None:
            self._node.kill_all_processes(check_alive=False, allow_graceful=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add_node(self, labels: Mapping[str, str], cpus: int = 1) -> list[int]:
        """One more node on this machine, as if it were another one; returns the ids of its processes.

        Its end is when those are killed, and the workers that they started; or ours.
        """
        parameters: dict[str, Any] = {
            "gcs_address": self.address,
            "node_ip_address": LOOPBACK,
            "num_cpus": cpus,
            "object_store_memory": self._object_store_memory,
            "temp_dir": str(self._folder),
            "labels": dict(labels),
            "include_log_monitor": False,
            "dashboard_agent_listen_port": 0,
        }
        node = Node(RayParams(**parameters), head=False, shutdown_at_exit=True, spawn_reaper=False)
        self._more.append(node)
        return [one.process.pid for kind in node.all_processes.values() for one in kind]
