"""`mimir-ray blocks upload DIR…`: sends blocks of Prometheus' format to a mimir-ray, or any Mimir.

    mimir-ray blocks upload DIR [DIR …] --address=URL [--tenant=ID] [--user=USER] [--key=KEY] [--no-wait]

A DIR is a block, or has blocks in it. Blocks that are there already are passed over, and an upload that broke off goes
on with the files that are missing, so the command can be given again until it says that all is done.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson

from mimir_ray.cli.progress import Bar
from mimir_ray.errors import InvalidArgument, MimirRayError, Unavailable
from mimir_ray.tsdb.block.meta import META_FILE, is_ulid
from mimir_ray.tsdb.block.tombstones import TOMBSTONES_FILE, read_tombstones

PIECE_BYTES = 1 << 18
TIMEOUT_S = 600.0
ATTEMPTS = 4
FIRST_PAUSE_S = 1.0
POLL_MIN_S = 0.1
POLL_MAX_S = 5.0
BUSY_PAUSE_S = 5.0


@dataclass(eq=False)
class Refused(MimirRayError):
    """The server said no, and why."""

    status: int
    message: str

    def describe(self) -> str:
        return f"{self.message} (status {self.status})"


class NotReached(Unavailable):
    """The server did not answer, in several attempts."""


def main(arguments: list[str], sleep: Callable[[float], None] = time.sleep) -> int:
    """Exit status: 0 all blocks are there, 1 some are not, 2 arguments that cannot be understood, 3 nobody to ask."""
    given = _parser().parse_args(arguments)
    try:
        server = Server.of(given, sleep)
        blocks = find_blocks([Path(one) for one in given.directories])
    except InvalidArgument as error:
        print(f"mimir-ray blocks upload: {error}", file=sys.stderr)
        return 2
    failed = 0
    for number, folder in enumerate(blocks, 1):
        bar = Bar(f"{folder.name} uploading")
        try:
            outcome = upload(server, folder, bar, sleep, given.wait)
        except NotReached as error:
            bar.close()
            print(f"mimir-ray blocks upload: {error}", file=sys.stderr)
            return 3
        except (MimirRayError, OSError) as error:
            failed += 1
            outcome = f"failed: {error}"
        bar.close()
        print(f"{folder.name}  {number}/{len(blocks)}  {outcome}", flush=True)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    known = os.environ
    parser = argparse.ArgumentParser(
        "mimir-ray blocks upload", description="Send blocks to a mimir-ray.", allow_abbrev=False
    )
    parser.add_argument("directories", metavar="DIR", nargs="+", help="a block, or a folder of blocks")
    parser.add_argument("--address", default=known.get("MIMIR_ADDRESS", ""), help="like http://localhost:8080")
    parser.add_argument(
        "--tenant", "--id", "-id", default=known.get("MIMIR_TENANT_ID", ""), help="whose blocks (X-Scope-OrgID)"
    )
    parser.add_argument(
        "--user", default=known.get("MIMIR_API_USER", ""), help="of basic authentication; the tenant if not said"
    )
    parser.add_argument(
        "--key", default=known.get("MIMIR_API_KEY", ""), help="its password; user: the tenant if not said"
    )
    parser.add_argument("--no-wait", dest="wait", action="store_false", help="do not wait for the server's checks")
    return parser


def find_blocks(directories: list[Path]) -> list[Path]:
    """All blocks, in order of their ULIDs. Raises `InvalidArgument` for a folder without any."""
    found: dict[str, Path] = {}
    for directory in directories:
        if not directory.is_dir():
            raise InvalidArgument(f"{directory} is no folder")
        inside = [directory] if is_ulid(directory.resolve().name) else sorted(directory.iterdir())
        blocks = [one for one in inside if is_ulid(one.resolve().name) and (one / META_FILE).is_file()]
        if not blocks:
            raise InvalidArgument(f"there is no block in {directory}")
        found.update({one.resolve().name: one.resolve() for one in blocks})
    return [found[ulid] for ulid in sorted(found)]


def upload(server: Server, folder: Path, bar: Bar, sleep: Callable[[float], None], wait: bool) -> str:
    """What became of one block. Raises `Refused`, `NotReached`, and what reading the block raises."""
    base = f"/api/v1/upload/block/{folder.name}"
    state = server.state(base)
    if state["result"] == "complete":
        return "was there already"
    if state["result"] == "failed":
        raise Refused(400, f"the server has found it broken before: {state.get('error', '')}")
    files = block_files(folder)
    if state["result"] != "validating":
        there = set(state.get("files") or ())
        if not there:
            server.ask("POST", f"{base}/start", description(folder, files))
        total = sum(size for _, size in files)
        progress = Progress(bar, total)
        for name, size in files:
            if name in there:
                progress.sent(size)
            else:
                server.send_file(f"{base}/files?{urlencode({'path': name}, quote_via=quote)}", folder / name, progress)
        _finish(server, base, sleep)
    if not wait:
        return "sent"
    pause_s = POLL_MIN_S
    while (state := server.state(base))["result"] == "validating":
        sleep(pause_s)
        pause_s = min(POLL_MAX_S, 2 * pause_s)
    if state["result"] != "complete":
        raise Refused(400, state.get("error") or f"it is {state['result']} after its check")
    return f"uploaded, {sum(size for _, size in files)} bytes"


def _finish(server: Server, base: str, sleep: Callable[[float], None]) -> None:
    """Waits while as many blocks as allowed are being checked."""
    while True:
        try:
            server.ask("POST", f"{base}/finish")
            return
        except Refused as error:
            if error.status == 409:
                return  # an answer got lost
            if error.status != 429:
                raise
            sleep(BUSY_PAUSE_S)


def block_files(folder: Path) -> list[tuple[str, int]]:
    """(name, bytes) of what is sent. Raises `InvalidArgument` for a block that would not be the same there."""
    if (folder / TOMBSTONES_FILE).is_file() and len(read_tombstones(folder)):
        raise InvalidArgument("it has deleted samples, which would be back after an upload: clean its tombstones first")
    paths = [folder / "index", *sorted((folder / "chunks").glob("[0-9]" * 6))]
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]


def description(folder: Path, files: list[tuple[str, int]]) -> bytes:
    """The block's meta.json with the list of its files, which Prometheus' own do not have."""
    try:
        body = orjson.loads((folder / META_FILE).read_bytes())
        thanos = body.get("thanos") or {"version": 1, "labels": {}, "downsample": {"resolution": 0}, "source": ""}
    except (ValueError, AttributeError) as error:
        raise InvalidArgument(f"{folder / META_FILE} cannot be read: {error}") from None
    thanos["files"] = [{"rel_path": name, "size_bytes": size} for name, size in files] + [{"rel_path": META_FILE}]
    thanos["segment_files"] = [name.partition("/")[2] for name, _ in files if name.startswith("chunks/")]
    return orjson.dumps({**body, "thanos": thanos})


@dataclass(slots=True)
class Server:
    """Asks one server. What fails for a reason that may pass is tried again."""

    scheme: str
    host: str
    port: int | None
    prefix: str
    headers: dict[str, str]
    sleep: Callable[[float], None] = field(repr=False)

    @classmethod
    def of(cls, given: argparse.Namespace, sleep: Callable[[float], None]) -> Server:
        parts = urlsplit(given.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgument(f"--address: expected a URL like http://localhost:8080, got {given.address!r}")
        headers = {"X-Scope-OrgID": given.tenant} if given.tenant else {}
        if given.key:
            login = f"{given.user or given.tenant}:{given.key}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        return cls(parts.scheme, parts.hostname, parts.port, parts.path.rstrip("/"), headers, sleep)

    def state(self, base: str) -> dict[str, Any]:
        """What `check` says; `result` "none" for a block that the server has not heard of."""
        try:
            found = orjson.loads(self.ask("GET", f"{base}/check?files=true"))
        except Refused as error:
            if error.status == 404 and error.message == "block doesn't exist":
                return {"result": "none"}
            raise
        except ValueError:
            raise Refused(200, "the server's answer is no JSON; is --address that of a Mimir?") from None
        return found if isinstance(found, dict) and "result" in found else {"result": "none"}

    def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The answer's body. Raises `Refused` and `NotReached`."""
        return self._with_retries(lambda: self._once(method, path, len(body), lambda send: send(body)))

    def send_file(self, path: str, source: Path, progress: Progress) -> None:
        """Streams the file. Raises `Refused` and `NotReached`."""
        size = source.stat().st_size

        def write(send: Callable[[bytes], None]) -> None:
            with source.open("rb") as file, progress:
                while piece := file.read(PIECE_BYTES):
                    send(piece)
                    progress.sent(len(piece))

        self._with_retries(lambda: self._once("POST", path, size, write))

    def _with_retries(self, call: Callable[[], bytes]) -> bytes:
        problem: Exception = NotReached("")
        for attempt in range(ATTEMPTS):
            if attempt:
                self.sleep(FIRST_PAUSE_S * 2.0 ** (attempt - 1))
            try:
                return call()
            except Refused as error:
                if error.status < 500:
                    raise
                problem = error
            except (OSError, http.client.HTTPException) as error:
                problem = NotReached(f"{self.scheme}://{self.host}:{self.port or self.scheme} does not answer: {error}")
        raise problem

    def _once(self, method: str, path: str, size: int, write: Callable[[Callable[[bytes], None]], None]) -> bytes:
        kind = http.client.HTTPSConnection if self.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=TIMEOUT_S)
        try:
            connection.putrequest(method, self.prefix + path)
            for name, value in {**self.headers, "Content-Length": str(size)}.items():
                connection.putheader(name, value)
            connection.endheaders()
            with suppress(BrokenPipeError, ConnectionResetError):  # it answered before it had everything: it says why
                write(connection.send)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise Refused(answer.status, body.decode("utf-8", "replace").strip())
        return body


class Progress:
    """Bytes of one block, on a bar."""

    def __init__(self, bar: Bar, total: int) -> None:
        self._bar, self._total = bar, total
        self._done = self._before = 0

    def sent(self, count: int) -> None:
        self._done += count
        self._bar(self._done, self._total)

    def __enter__(self) -> Progress:
        """For one attempt to send a file: what a failed one counted does not count."""
        self._before = self._done
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._done = self._before
