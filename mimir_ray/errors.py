"""Every error that mimir_ray raises, one tree.

Three families: the caller's fault (`ClientError`), not now (`Unavailable`, retryable) and broken
data (`Corruption`). Our own bugs are assertions. Errors are dataclasses whose fields are the facts;
`str(error)` is the sentence a user reads, with Mimir's id at its end where Mimir has one. The edge
that talks to a user (gateway/errors.py) turns a family into a status code, nowhere else does.
"""

from __future__ import annotations

from typing import Any, ClassVar


def _rebuild(kind: type[MimirRayError], args: tuple[Any, ...], state: dict[str, Any]) -> MimirRayError:
    error = kind.__new__(kind)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


class MimirRayError(Exception):
    """The root. Picklable whatever its constructor takes, so it crosses Ray actors whole."""

    id: ClassVar[str] = ""
    """Mimir's stable id without the `err-mimir-` prefix; empty where Mimir has none."""

    def describe(self) -> str:
        """What went wrong, without the id."""
        return Exception.__str__(self)

    def __str__(self) -> str:
        text = self.describe()
        return f"{text} (err-mimir-{self.id})" if self.id else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class ClientError(MimirRayError):
    """The caller asked for something that cannot be done; the same request will fail again."""


class Unavailable(MimirRayError):
    """Not now: the same request may succeed later."""


class Corruption(MimirRayError):
    """Stored or received bytes are not what their format promises."""


class InvalidArgument(ClientError):
    """A parameter, body or configuration value that cannot be understood."""


class NotFound(ClientError):
    """The named thing does not exist."""


class LimitExceeded(ClientError):
    """A limit of a tenant or of an instance was hit. Names the setting (flag) to change.

    Upstream: pkg/util/globalerror/user.go MessageWithPerTenantLimitConfig.
    """

    flags: ClassVar[tuple[str, ...]] = ()
    per_instance: ClassVar[bool] = False

    def __str__(self) -> str:
        if not self.flags:
            return super().__str__()
        which = "related limit" if self.per_instance else "related per-tenant limit"
        flags = " and -".join(self.flags)
        return (
            f"{self.describe()} (err-mimir-{self.id}). To adjust the {which}, configure -{flags}, "
            "or contact your service administrator."
        )
