"""Logging set-up: one line an event, logfmt as Mimir writes it or JSON.

    log = structlog.get_logger(__name__)
    log.warning("block upload failed", block=ulid, attempt=2)

The message is constant, the facts are fields. `request_context(user=..., route=...)` puts fields on every
line written inside it, through awaits and in the same thread. Libraries that log through the standard
library come out in the same form, from level warning on.
"""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager
from typing import Any, Literal, TextIO

import structlog
from structlog.contextvars import bound_contextvars
from structlog.typing import EventDict, Processor

Level = Literal["debug", "info", "warn", "error"]
Format = Literal["logfmt", "json"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_FIRST = ["ts", "level", "component", "instance", "msg"]


def configure(level: Level = "info", format: Format = "logfmt", stream: TextIO | None = None, **fields: str) -> None:  # noqa: A002
    """Sets this process' logging up. Called once, by whoever starts the process.

    Args:
        level: the least important lines that are written.
        format: of the lines.
        stream: where to; standard error by default.
        fields: on every line, such as component and instance.
    """
    target = stream or sys.stderr

    def with_fields(_logger: Any, _method: str, event: EventDict) -> EventDict:
        return {**fields, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _mimir_level,
        with_fields,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
    ]
    renderer: Processor = structlog.processors.JSONRenderer(default=str)
    if format == "logfmt":
        renderer = structlog.processors.LogfmtRenderer(key_order=_FIRST, drop_missing=True, bool_as_flag=False)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.WARNING))


def request_context(**fields: Any) -> AbstractContextManager[None]:
    """Fields for every line that is written inside: `with request_context(user=tenant, trace_id=...)`."""
    return bound_contextvars(**fields)


def _mimir_level(_logger: Any, _method: str, event: EventDict) -> EventDict:
    if event.get("level") == "warning":
        event["level"] = "warn"
    return event


def _logger_name(_logger: Any, _method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    if record is not None:
        event["component"] = record.name
    return event
