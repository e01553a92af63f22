"""One gateway for all tools, before a real distributor and a tenant's list of series."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mimir_ray.config.limits import Limits
from mimir_ray.model.exemplars import SeriesExemplars
from mimir_ray.model.metadata import Metadata
from mimir_ray.testing.sources import ListSource
from tests.compat.raw import TENANT
from tests.gateway.serving import NOW_MS, Gateway, serving, settings_with
from tests.roles.distributor.fakes import Setup


@pytest.fixture(scope="session")
def tools_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("compat")
    settings = settings_with(
        True,
        data_dir=str(folder),
        limits=Limits(compactor_block_upload_enabled=True, max_global_exemplars_per_user=100),
    )
    with serving(settings) as gateway:
        fill(gateway.lists.of(TENANT))
        gateway.lists.of(TENANT).entries += [
            Metadata("up", "gauge", "Whether it is."),
            Metadata("jobs_total", "counter", "Jobs.", ""),
        ]
        yield gateway


@pytest.fixture
def gateway(tools_gateway: Gateway) -> Gateway:
    """With a distributor that has seen nothing yet."""
    setup = Setup(max_global_exemplars_per_user=100)
    tools_gateway.services.distributor = setup.distributor
    tools_gateway.setup = setup  # type: ignore[attr-defined]
    tools_gateway.lists.of(TENANT).exemplified = list[SeriesExemplars]()
    return tools_gateway


def fill(source: ListSource) -> None:
    """An hour of two metrics, up to now."""
    points = [(NOW_MS - at * 15_000, float(240 - at)) for at in range(240, -1, -1)]
    for job in ("api", "web"):
        source.add({"__name__": "up", "job": job, "instance": f"{job}:80"}, [(at, 1.0) for at, _ in points])
        source.add({"__name__": "jobs_total", "job": job, "http.status": "200"}, points)
