"""One deployment a module, stopped and gone when the module is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.deployment import Deployment


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Deployment]]:
    """Makes deployments (not started yet) in folders of their own; ends what is left of them."""
    made: list[Deployment] = []

    def make(*flags: str, folder: Path | None = None) -> Deployment:
        made.append(Deployment(folder or tmp_path_factory.mktemp("deployment"), flags))
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture(scope="module")
def deployment(deploy: Callable[..., Deployment], request: pytest.FixtureRequest) -> Deployment:
    """A running one, with the flags that the module names in `FLAGS`."""
    one = deploy(*getattr(request.module, "FLAGS", ()))
    one.start()
    return one
