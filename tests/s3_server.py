"""An S3 server of moto's as a process of its own, for all tests of a session.

    def test_something(s3_server: S3Server) -> None:
        config = s3_server.new_bucket()            # of `blocks_storage.s3`, with a fresh bucket
        flags = s3_server.flags(config)            # the same as flags of `serve`

Registered in tests/conftest.py.
"""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from mimir_ray.bucket.config import S3Config, Secret

ACCESS_KEY, SECRET_KEY = "testing", "testing-secret"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class S3Server:
    """`endpoint`: host:port, without TLS."""

    endpoint: str
    access_key_id: str = ACCESS_KEY
    secret_access_key: str = SECRET_KEY
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_bucket(self, endpoint: str = "") -> S3Config:
        """Settings of an empty bucket; reached at another endpoint where one is given, as of a proxy."""
        name = f"bucket-{next(self._numbers)}"
        request = urllib.request.Request(f"http://{self.endpoint}/{name}", method="PUT")
        with _DIRECT.open(request, timeout=10) as answer:
            assert answer.status == 200
        return S3Config(
            endpoint=endpoint or self.endpoint,
            bucket_name=name,
            region="us-east-1",
            access_key_id=self.access_key_id,
            secret_access_key=Secret(self.secret_access_key),
            insecure=True,
        )

    def flags(self, config: S3Config, store: str = "blocks-storage") -> list[str]:
        """For `mimir-ray serve`."""
        return [
            f"-{store}.backend=s3",
            f"-{store}.s3.endpoint={config.endpoint}",
            f"-{store}.s3.bucket-name={config.bucket_name}",
            f"-{store}.s3.region={config.region}",
            f"-{store}.s3.access-key-id={config.access_key_id}",
            f"-{store}.s3.secret-access-key={config.secret_access_key!s}",
            f"-{store}.s3.insecure=true",
        ]


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Stopped when the session ends; its buckets are gone then."""
    pytest.importorskip("moto", reason="moto's server is not installed (make test installs it)")
    port = _free_port()
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait_for(port, process)
            yield S3Server(f"127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "moto's server did not start"
        try:
            with closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("moto's server does not answer")
