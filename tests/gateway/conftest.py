"""One gateway for tests that change nothing in it that others see; the others start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.gateway.serving import Gateway, serving


@pytest.fixture(scope="session", autouse=True)
def quiet() -> Iterator[None]:
    """Expected failures are logged with all their variables otherwise."""
    before = structlog.get_config()
    structlog.configure(processors=[structlog.processors.KeyValueRenderer(drop_missing=True)])
    yield
    structlog.configure(**before)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with serving() as one:
        yield one
