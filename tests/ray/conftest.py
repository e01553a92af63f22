"""One real Ray for the whole session, private to it: its own folder and token, on the loopback."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import ray
import ray._private.services as services

NAMESPACE = "mimir-ray"
OBJECT_STORE_BYTES = 300_000_000


@pytest.fixture(scope="session")
def ray_session() -> Iterator[ModuleType]:
    """The `ray` module, connected to a cluster that ends with the session. 3 to 5 s to start."""
    # Ray's sockets live in its folder, and a socket's path has at most 107 bytes: pytest's folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="mray-"))
    resolve = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host  # it would replace 127.0.0.1 by an outside address
    try:
        ray.init(
            address="local",
            namespace=NAMESPACE,
            num_cpus=16,  # logical: actors in tests ask for few or none
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
        )
        yield ray
    finally:
        ray.shutdown()
        services.resolve_ip_for_localhost = resolve
        shutil.rmtree(folder, ignore_errors=True)
