"""The transport on Ray: named actors in one namespace.

Measured on 2 shared cores, Ray 2.60, one caller at a time, wall and CPU in ms a call (two runs, ± 20 %):

    call                                      wall   caller   actor
    no argument                               0.7    0.36     0.37
    one WriteBatch, 2,000 known samples       1.1    0.6      0.55
    two of them as varargs                    1.4    0.75     0.7
    eight of them as varargs                  2.9    1.8      1.1
    eight of them packed into one bytes       2.8    1.5      1.1
    answer: SeriesBatch of 0.1 MB             0.9    0.5      0.5
    answer: SeriesBatch of 1 MB               2.1    0.95     0.8
    answer: SeriesBatch of 10 MB              7.2    1.4      2.3     (arrays are views of plasma, read-only)
    answer: 10 MB packed                      6.7    2.4      3.1
    asyncio, 16 calls at once, 40 kB each     0.45   0.36     0.30    a call

So several batches go in one call (8 of them: 0.36 ms of CPU each, alone 1.15 ms), up to about 0.5 MB. `await ref`,
`ref.future()` and a callback of our own cost the same (within 5 %, less than the noise), so `acall` uses the public
one that a time-out fits on.

These are calls through Ray. Methods in a thread group are called over sockets instead (docs/decisions/0021), at about
a tenth of that: benchmarks/cluster/bench_transport.py measures both.

Ray pickles every argument by itself and in Python; a selection takes 0.15 ms each way. So arguments and small answers
travel as one bytes object (`packing.py`): 0.65 instead of 0.89 ms for a selection there and back, 0.95 instead of
1.22 ms for three batches of 2,000 samples.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorClass, ActorHandle
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    ObjectLostError,
    PendingCallsLimitExceeded,
    RayActorError,
    RayTaskError,
    RpcError,
    TaskCancelledError,
    WorkerCrashedError,
)

from mimir_ray.cluster.transport.base import (
    DEFAULT_TIMEOUT_S,
    NAMESPACE,
    Address,
    NoSuchPeer,
    PeerTimeout,
    PeerUnavailable,
    Retry,
    name_of,
)
from mimir_ray.cluster.transport.direct_client import DirectClient, DirectPending
from mimir_ray.cluster.transport.direct_server import DirectServer, Endpoint
from mimir_ray.cluster.transport.frames import Disconnected, TimedOut
from mimir_ray.cluster.transport.packing import pack, unpack

UNREACHED = (
    RayActorError,  # died, unavailable
    WorkerCrashedError,
    ObjectLostError,  # the answer was lost with the node or process that held it
    PendingCallsLimitExceeded,
    RpcError,
    TaskCancelledError,
    Disconnected,
)


_NOWHERE = Endpoint("", "", "", 0, b"", frozenset())
"""Of actors whose methods are all called through Ray."""

_PACKED = b"\x93mimir\0\0"
"""Before packed arguments and answers; eight bytes, so that arrays behind it stay aligned."""
ENDPOINT_TIMEOUT_S = 2.0
NOT_BEGUN_PAUSE_S = 0.05
ANSWER_BYTES_MAX = 64 << 10
"""Larger answers travel as they are: Ray then puts their arrays into shared memory, where nobody copies them."""


class RayTransport:
    """Clients for the named actors of one namespace; one client a name, kept.

    Needs `ray.init` before the first call. May be handed to actors: there it starts without clients.
    """

    def __init__(
        self, namespace: str = NAMESPACE, timeout_s: float = DEFAULT_TIMEOUT_S, retry: Retry | None = None
    ) -> None:
        self._namespace = namespace
        self._timeout_s = timeout_s
        self._retry = retry if retry is not None else Retry()
        self._lock = threading.Lock()
        self._clients: dict[str, RayClient] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared_transport, (self._namespace, self._timeout_s, self._retry)

    def client(self, address: Address | str) -> RayClient:
        name = name_of(address)
        with self._lock:
            found = self._clients.get(name)
            if found is None:
                found = self._clients[name] = RayClient(name, self._namespace, self._timeout_s, self._retry)
            return found

    def forget(self, address: Address | str) -> None:
        """Drops the client of an instance that is gone for good."""
        with self._lock:
            self._clients.pop(name_of(address), None)


@functools.lru_cache(maxsize=8)
def _shared_transport(namespace: str, timeout_s: float, retry: Retry) -> RayTransport:
    """Of a process: the next task in a warm worker finds the connections of the last."""
    return RayTransport(namespace, timeout_s, retry)


class RayClient:
    """Calls one named actor. See `Client`; may be used from any thread and loop.

    The handle is looked up once and again after the actor died. A call that reached nobody is made again
    after a pause, until the attempts or the time are used up; then it is `PeerUnavailable`.
    """

    def __init__(self, name: str, namespace: str, timeout_s: float, retry: Retry) -> None:
        self._name = name
        self._namespace = namespace
        self._timeout_s = timeout_s
        self._retry = retry
        self._handle: ActorHandle | None = None
        self._direct: DirectClient | None = None

    @property
    def peer(self) -> str:
        return self._name

    def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        for attempt in range(self._retry.attempts_max):
            try:
                if (direct := self._directly(method, deadline)) is not None:
                    return direct.call(method, args, deadline)
                ref = getattr(self._actor(), method).remote(*_arguments(args))
                return _answer(ray.get(ref, timeout=max(0.0, deadline - time.monotonic())))
            except RayTaskError as error:
                raise _cause(error) from None
            except (GetTimeoutError, TimedOut):
                raise PeerTimeout(self._name, method, "time-out") from None
            except (_NoSuchActor, *UNREACHED) as error:
                pause = self._pause_s(method, attempt, deadline, error)
            time.sleep(pause)
        raise AssertionError("unreachable: the last attempt raises")

    def begin(self, method: str, *args: Any, timeout_s: float | None = None) -> RayPending:
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        under_way: DirectPending | ray.ObjectRef | None = None
        try:
            if (direct := self._directly(method, deadline)) is not None:
                under_way = direct.begin(method, args, deadline)
            else:
                under_way = getattr(self._actor(), method).remote(*_arguments(args))
        except (_NoSuchActor, GetTimeoutError, TimedOut, *UNREACHED):
            self.look_up_again()  # as `result` does
        return RayPending(self, method, args, deadline, under_way)

    async def acall(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        for attempt in range(self._retry.attempts_max):
            try:
                if self._direct is None:
                    # A look-up asks the GCS and the actor and blocks, so it must not run on the loop.
                    await asyncio.to_thread(self._directly, method, deadline)
                direct = self._direct
                if direct is not None and method in direct.methods:
                    return await direct.acall(method, args, deadline)
                answer = asyncio.wrap_future(getattr(self._actor(), method).remote(*_arguments(args)).future())
                return _answer(await asyncio.wait_for(answer, max(0.0, deadline - time.monotonic())))
            except RayTaskError as error:
                raise _cause(error) from None
            except (GetTimeoutError, TimedOut, asyncio.TimeoutError):
                raise PeerTimeout(self._name, method, "time-out") from None
            except (_NoSuchActor, *UNREACHED) as error:
                pause = self._pause_s(method, attempt, deadline, error)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: the last attempt raises")

    @property
    def calls_directly(self) -> frozenset[str]:
        """The methods that are called over sockets, as far as is known yet."""
        return frozenset() if self._direct is None else self._direct.methods

    def look_up_again(self) -> None:
        """The handle in use belongs to an actor that died."""
        self._handle = None
        self._forget_direct()

    def _directly(self, method: str, deadline: float) -> DirectClient | None:
        """How to call a method beside Ray; None where it goes through Ray. Blocks the first time."""
        direct = self._direct
        if direct is None:
            describe = getattr(self._actor(), "direct_endpoint", None)
            endpoint = _NOWHERE
            if describe is not None:
                left_s = max(0.0, deadline - time.monotonic())
                try:
                    endpoint = ray.get(describe.remote(), timeout=min(left_s, ENDPOINT_TIMEOUT_S))
                except GetTimeoutError:
                    if left_s <= ENDPOINT_TIMEOUT_S:
                        raise
                    raise Disconnected("it does not say where it is called") from None  # to be tried again
            direct = self._direct = DirectClient(endpoint, ray.get_runtime_context().get_node_id())
        return direct if method in direct.methods else None

    def _forget_direct(self) -> None:
        direct, self._direct = self._direct, None
        if direct is not None:
            direct.close()

    def _actor(self) -> ActorHandle:
        handle = self._handle
        if handle is None:
            if not ray.is_initialized():
                raise _NoSuchActor("Ray is not connected")  # a look-up would start a Ray of its own
            try:
                handle = self._handle = ray.get_actor(self._name, namespace=self._namespace)
            except ValueError as error:
                raise _NoSuchActor("there is no such actor") from error
        return handle

    def _pause_s(self, method: str, attempt: int, deadline: float, error: Exception) -> float:
        """How long to wait before the next attempt; raises if there is none. Forgets a dead actor's handle."""
        if isinstance(error, ActorDiedError):
            self._handle = None
        if isinstance(error, (ActorDiedError, Disconnected)):
            self._forget_direct()
        pause = self._retry.pause_s(attempt)
        if attempt + 1 >= self._retry.attempts_max or time.monotonic() + pause >= deadline:
            reason = str(error).strip().split("\n", 1)[0]
            kind = NoSuchPeer if isinstance(error, _NoSuchActor) and ray.is_initialized() else PeerUnavailable
            raise kind(self._name, method, reason) from error
        return pause


class _NoSuchActor(Exception):
    """It is not there, or not yet."""


class RayPending:
    """See `Pending`."""

    __slots__ = ("_args", "_client", "_deadline", "_method", "_under_way")

    def __init__(
        self,
        client: RayClient,
        method: str,
        args: tuple[Any, ...],
        deadline: float,
        under_way: DirectPending | ray.ObjectRef | None,
    ) -> None:
        """`under_way` None: it could not be begun."""
        self._client = client
        self._method = method
        self._args = args
        self._deadline = deadline
        self._under_way = under_way

    def ready(self, within_s: float) -> bool:
        if self._under_way is None:
            left = max(0.0, self._deadline - time.monotonic())
            self._under_way = self._client.begin(self._method, *self._args, timeout_s=left)._under_way
        under_way = self._under_way
        if under_way is None:
            if self._is_late():
                return True  # `result` says so
            time.sleep(min(within_s, NOT_BEGUN_PAUSE_S))
            return False
        if not isinstance(under_way, DirectPending):
            return bool(ray.wait([under_way], timeout=within_s)[0])
        try:
            return under_way.ready(min(within_s, max(0.0, self._deadline - time.monotonic()))) or self._is_late()
        except Disconnected:
            self._client.look_up_again()
            self._under_way = None  # it did not come to its end, and is begun again
            return False

    def _is_late(self) -> bool:
        return time.monotonic() >= self._deadline

    def result(self) -> Any:
        under_way = self._under_way
        try:
            if isinstance(under_way, DirectPending):
                return under_way.result()
            if under_way is not None:
                return _answer(ray.get(under_way, timeout=max(0.0, self._deadline - time.monotonic())))
        except RayTaskError as error:
            raise _cause(error) from None
        except (GetTimeoutError, TimedOut):
            raise PeerTimeout(self._client.peer, self._method, "time-out") from None
        except (ActorDiedError, Disconnected):
            self._client.look_up_again()
        except UNREACHED:
            pass  # tried again below, where a failure is reported
        left = max(0.0, self._deadline - time.monotonic())
        return self._client.call(self._method, *self._args, timeout_s=left)


def _cause(error: RayTaskError) -> BaseException:
    """What the remote class raised, without Ray's wrapping."""
    cause = error.cause
    while isinstance(cause, RayTaskError):
        cause = cause.cause
    return cause


def actor_class(cls: type, **options: Any) -> ActorClass:
    """`ray.remote(**options)(cls)` for a plain class, with what Ray wants to know about its methods.

    `cls.concurrency_groups` (method → group), if there, becomes the groups that calls run in; their sizes
    are in the option `concurrency_groups`. These methods are what others call often: our clients call them over
    sockets (`direct_server.py`), anybody else through Ray. Generator methods answer with a list. Public methods
    take packed arguments from our clients, and plain ones from anybody.
    """
    groups: Mapping[str, str] = getattr(cls, "concurrency_groups", {})
    body: dict[str, Any] = {"__module__": cls.__module__, "__doc__": cls.__doc__}
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if name.startswith("_"):
            continue
        calling = _calling(method, list if inspect.isgeneratorfunction(method) else None)
        body[name] = ray.method(concurrency_group=groups[name])(calling) if name in groups else calling
    if groups:
        sizes = options.get("concurrency_groups", {})
        body["direct_endpoint"] = ray.method(concurrency_group=next(iter(groups.values())))(_serving(groups, sizes))
    marked = type(cls.__name__, (cls,), body)
    return ray.remote(**options)(marked) if options else ray.remote(marked)


def _calling(method: Callable[..., Any], convert: Callable[[Any], Any] | None) -> Callable[..., Any]:
    """A function of its own that calls `method`: Ray's mark then does not land on the plain class."""

    @functools.wraps(method)
    def calling(self: Any, *args: Any, **kwargs: Any) -> Any:
        packed = len(args) == 1 and type(args[0]) is bytes and args[0].startswith(_PACKED)
        if packed:
            args = unpack(memoryview(args[0])[len(_PACKED) :])
        answer = method(self, *args, **kwargs)
        if convert is not None:
            answer = convert(answer)
        if not packed or (small := pack(answer, ANSWER_BYTES_MAX)) is None:
            return answer
        return _PACKED + small

    del calling.__wrapped__  # type: ignore[attr-defined]  # Ray looks through it, and would miss mark and conversion
    return calling


_making_servers = threading.Lock()


def _serving(groups: Mapping[str, str], sizes: Mapping[str, int]) -> Callable[[Any], Endpoint]:
    def direct_endpoint(self: Any) -> Endpoint:
        return _endpoint_of(self, groups, sizes)

    return direct_endpoint


def _endpoint_of(actor: Any, groups: Mapping[str, str], sizes: Mapping[str, int]) -> Endpoint:
    """Where an actor's `DirectServer` is; starts it the first time."""
    with _making_servers:
        server: DirectServer | None = vars(actor).get("_direct_server")
        if server is None:
            methods = {name: getattr(actor, name) for name in groups}
            context = ray.get_runtime_context()
            is_open = os.environ.get("RAY_USE_TLS", "0").lower() in ("", "0", "false")
            host = ray.util.get_node_ip_address() if is_open else ""
            server = DirectServer(methods, groups, sizes, context.get_node_id(), _socket_folder(), host)
            actor._direct_server = server
    return server.endpoint


def _socket_folder() -> Path:
    """Of this Ray session, so that it goes with it, if a socket's path may be that long (107 bytes)."""
    context = ray.get_runtime_context()
    folder = Path(context.get_temp_dir()) / context.get_session_name()
    return folder if len(str(folder)) < 80 and folder.is_dir() else Path(tempfile.gettempdir())


def _arguments(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is handed to Ray: one packed value, or nothing at all."""
    packed = pack(args) if args else None
    return () if packed is None else (_PACKED + packed,)


def _answer(answer: Any) -> Any:
    if type(answer) is bytes and answer.startswith(_PACKED):
        return unpack(memoryview(answer)[len(_PACKED) :])
    return answer
