"""A real Prometheus to compare with: started on a free port with an empty database, fed by remote write."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import snappy

from mimir_ray.model.labels import Labels
from mimir_ray.wire.pb.prompb import remote_pb2

PEERS = Path(__file__).resolve().parents[3] / ".peers" / "bin"
Series = tuple[Labels, Sequence[tuple[int, float]]]


def peer(name: str) -> str | None:
    """The program of this name: from MIMIR_RAY_PEERS, beside the repository, or from PATH."""
    for folder in (os.environ.get("MIMIR_RAY_PEERS"), PEERS):
        if folder and (Path(folder) / name).exists():
            return str(Path(folder) / name)
    return shutil.which(name)


class Prometheus:
    """Its HTTP API at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def write(self, series: Iterable[Series]) -> None:
        request = remote_pb2.WriteRequest()
        for labels, points in series:
            one = request.timeseries.add()
            for name, value in labels:
                one.labels.add(name=name, value=value)
            for at, value in points:
                one.samples.add(timestamp=at, value=value)
        headers = {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        body = snappy.compress(request.SerializeToString())
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/v1/write", body, headers), timeout=30):
            pass

    def query(self, path: str, **parameters: str) -> dict[str, Any]:
        """The JSON answer, of errors too."""
        body = urllib.parse.urlencode(parameters).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}", body, timeout=60) as answer:
                return json.loads(answer.read())  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            return json.loads(error.read())  # type: ignore[no-any-return]


@contextmanager
def running_prometheus(program: str, folder: Path, *features: str, flags: Sequence[str] = ()) -> Iterator[Prometheus]:
    """One that answers, on the blocks of `folder / "data"` if there are any; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "prometheus.yml").write_text("global: {}\n")
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--web.enable-remote-write-receiver",
        "--log.level=error",
        *([f"--enable-feature={','.join(features)}"] if features else []),
        *flags,
    ]
    with open(folder / "prometheus.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_ready(f"http://{address}", process)
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "Prometheus ended"
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(url)
