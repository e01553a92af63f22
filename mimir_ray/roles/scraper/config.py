"""Settings of the built-in scraper: the block `scraper`, ours."""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ray.config.setting import setting
from mimir_ray.config.units import Bytes, Duration, duration, size


@dataclass(frozen=True, slots=True)
class ScraperConfig:
    """The `scraper` block."""

    enabled: bool = setting(
        True, flag="scraper.enabled", help="Scrapes mimir-ray itself and the Ray cluster it runs on."
    )
    scrape_interval: Duration = setting(
        duration("10s"), flag="scraper.scrape-interval", minimum=1, help="Time between two scrapes of a target."
    )
    scrape_timeout: Duration = setting(
        duration("8s"), flag="scraper.scrape-timeout", minimum=1, help="A target must answer in this time."
    )
    body_size_limit: Bytes = setting(
        size("64MiB"),
        flag="scraper.body-size-limit",
        category="advanced",
        minimum=1,
        help="A target that answers more than this has failed.",
    )
    tenant: str = setting(
        "ray", flag="scraper.tenant", help="Who the scraped metrics belong to when multi-tenancy is on."
    )
    sd_file: str = setting(
        "",
        flag="scraper.sd-file",
        help="A Prometheus service-discovery file to scrape too, such as the one that Ray writes.",
    )
