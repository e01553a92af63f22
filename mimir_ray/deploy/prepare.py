"""What `serve` starts first, beside Ray: loads everything, and then forks the processes that need it.

Standard input, once Ray is up: a JSON object on one line: `address`, `settings` (a pickled `Settings`, in hexadecimal),
and where the Ray is ours `environment` (of workers), `socket` and `log` (paths). Standard output: told.py. With a Ray
that is ours a child of it creates the actors (create.py), and it goes on as a fork server until standard input ends.

Ray is imported when it is up: it reads the environment then, and a worker's says which raylet and job it belongs to.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimir_ray.deploy import fork_server
from mimir_ray.deploy.told import tell
from mimir_ray.kernel import is_cached, kernel_modules, load_imported, warm_up

if TYPE_CHECKING:
    from mimir_ray.deploy.settings import Settings


def main() -> int:
    """Returns the exit status; in a process that was forked its own."""
    began = time.monotonic()
    for name in kernel_modules():
        importlib.import_module(name)
    if not is_cached():
        _in_a_child(compile_kernels)
    count = load_imported()
    tell(say=f"{count} kernels ready after {time.monotonic() - began:.1f} s.")
    line = sys.stdin.readline()
    if not line:
        return 1  # the parent gave up
    told = json.loads(line)
    settings: Settings = pickle.loads(bytes.fromhex(told["settings"]))  # noqa: S301  (from our own parent)
    if "socket" not in told:
        from mimir_ray.deploy.create import create  # noqa: PLC0415  (imports Ray)

        return create(settings, told["address"], ours=False)
    return _fork_all(settings, told)


def _fork_all(settings: Settings, told: dict[str, Any]) -> int:
    os.environ.update(told["environment"])
    from mimir_ray.deploy import stop  # noqa: F401, PLC0415  (so that it is there)
    from mimir_ray.deploy.create import create  # noqa: PLC0415  (imports Ray)

    listener = fork_server.listen(Path(told["socket"]))
    gc.collect()
    gc.freeze()
    if os.fork() == 0:
        listener.close()
        return create(settings, told["address"], ours=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what is forked
    _say_on(told["log"])
    job = fork_server.serve(listener, sys.stdin.fileno(), fork_server.run)
    if job is not None:
        job()
    return 0


def compile_kernels() -> None:
    """Fills the kernel cache, so that from now on they are only loaded."""
    said = time.monotonic()

    def progress(done: int, total: int, name: str) -> None:
        nonlocal said
        if (now := time.monotonic()) - said > 1.0:
            said = now
            tell(step=f"kernels: {done} of {total}, {name.removeprefix('mimir_ray.')}")

    warm_up(progress)


def _in_a_child(work: Any) -> None:
    """Its memory ends with it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _say_on(log: str) -> None:
    """What this process says from now on goes to a file: whoever reads the pipes waits for their end."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
