"""Log lines as they come out."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from mimir_ray.telemetry.logging import configure, request_context


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_logfmt_with_time_level_message_and_fields() -> None:
    out = io.StringIO()
    configure(stream=out, component="ingester")
    structlog.get_logger("x").warning("block upload failed", block="01H", attempt=2, forced=True)
    line = out.getvalue()
    assert line.startswith("ts=2")
    assert line.endswith('level=warn component=ingester msg="block upload failed" block=01H attempt=2 forced=true\n')


def test_a_line_is_json_when_asked_for() -> None:
    out = io.StringIO()
    configure(format="json", stream=out)
    structlog.get_logger().info("started", port=8080)
    line = json.loads(out.getvalue())
    assert (line["msg"], line["port"], line["level"]) == ("started", 8080, "info")


def test_lines_below_the_level_are_not_written() -> None:
    out = io.StringIO()
    configure(level="error", stream=out)
    log = structlog.get_logger()
    log.debug("a")
    log.info("b")
    log.warning("c")
    assert out.getvalue() == ""


def test_the_context_of_a_request_is_on_its_lines_only() -> None:
    out = io.StringIO()
    configure(stream=out)
    log = structlog.get_logger()
    with request_context(user="t1"):
        log.info("inside")
    log.info("outside")
    inside, outside = out.getvalue().splitlines()
    assert inside.endswith("msg=inside user=t1")
    assert "user" not in outside


def test_concurrent_requests_do_not_share_their_context() -> None:
    out = io.StringIO()
    configure(stream=out)

    async def request(user: str, turn: asyncio.Event, other: asyncio.Event) -> None:
        with request_context(user=user):
            other.set()
            await turn.wait()
            structlog.get_logger().info("done", of=user)

    async def both() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        await asyncio.gather(request("a", first, second), request("b", second, first))

    asyncio.run(both())
    for line in out.getvalue().splitlines():
        assert line.endswith(("of=a user=a", "of=b user=b", "user=a of=a", "user=b of=b"))


def test_an_exception_is_one_line() -> None:
    out = io.StringIO()
    configure(stream=out)
    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert out.getvalue().count("\n") == 1
    assert "ValueError: boom" in out.getvalue()


def test_libraries_come_out_in_the_same_form_from_warning_on() -> None:
    out = io.StringIO()
    configure(stream=out, level="debug")
    logging.getLogger("some.library").warning("hello %s", "world")
    logging.getLogger("some.library").info("quiet")
    assert out.getvalue().endswith('level=warn component=some.library msg="hello world"\n')
    assert out.getvalue().count("\n") == 1
